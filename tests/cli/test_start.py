"""The start of a gateway: what is loaded for it, and what is left to those who need it.

Seconds depend on the machine, modules do not: nearly all of a start is loading them.
"""

from __future__ import annotations

import gc
import json
import pathlib
import re
import sys

import pytest

from stage.gateways import free_port, http_proxy, mapping
from stage.processes import running
from tng.cli.commands import COMMANDS
from tng.cli.launch import _starting
from tng.cli.main import make_parser

LIBRARIES = {
    "OpenSSL": "TLS between gateways",
    "_cffi_backend": "of OpenSSL",
    "annotated_types": "of pydantic",
    "attr": "of trio",
    "attrs": "of trio",
    "bcrypt": "looked for by cryptography",
    "cryptography": "certificates",
    "h11": "the control interface, and clients of http_proxy",
    "hpack": "streams that share a tunnel",
    "idna": "of trio",
    "outcome": "of trio",
    "pydantic": "the configuration",
    "pydantic_core": "of pydantic",
    "sniffio": "of trio",
    "sortedcontainers": "of trio",
    "trio": "everything but connections",
    "typing_extensions": "of pydantic",
    "typing_inspection": "of pydantic",
}
"""Other people's packages that a start may load, and what they are there for."""

SEEN_ANYWHERE = {"coverage", "sitecustomize", "usercustomize", "org"}
"""What an environment, or the standard library itself, may add."""

NEEDED_PARTS = {
    "tng.attest": {"credential", "dummy", "verifier", "verifier.base", "verifier.explain"},
    "tng.cli": {
        *("audit_records", "collateral", "commands", "conflict", "ita_key", "launch", "main"),
        "openssl_settings",
    },
    "tng.gateway.netfilter": {"factory", "sockets"},
    "tng.tunnel": {
        *("base", "bridge", "dialer", "express", "rats_tls", "rats_tls.client"),
        *("rats_tls.contexts", "rats_tls.identity", "rats_tls.judging", "rats_tls.pool"),
        "rats_tls.server",
    },
}
"""Of these packages, the only modules that tunnels without attestation need."""

STANDARD_LIBRARY_UNNEEDED = {
    *("asyncio", "difflib", "http.client", "http.server", "logging.handlers", "multiprocessing"),
    *("pickle", "pydoc", "sqlite3", "unittest", "urllib.request", "xml"),
}

MOST_OF_OURS = 110
"""Modules of this package; 106 today."""

MOST_OF_OURS_OVER_OHTTP = 158
"""The same for OHTTP without attestation; 154 today."""

MOST_OF_ALL = 560
"""With the standard library and all others; 512 today with Python 3.11.  Each costs 0.5 ms."""


def loaded_modules(folder: pathlib.Path, side: str, **options: object) -> set[str]:
    """Modules that a gateway has loaded from its start to its end, tried ones included."""
    control, port = free_port(), free_port()
    mode = http_proxy(port) if side == "ingress" else mapping(port, free_port())
    config = {
        f"add_{side}": [{**mode, "no_ra": True, **options}],
        "control_interface": {"restful": {"host": "127.0.0.1", "port": control}},
    }
    words = ("-X", "importtime", "-m", "tng", "launch", "--config-content", json.dumps(config))
    with running(folder, side, *words) as process:
        process.await_http(control, "/readyz")
        assert process.stop() == 0
        lines = re.findall(r"^import time: .*\| *(\S+)$", process.log, re.MULTILINE)
    return set(lines)


@pytest.fixture(scope="module", params=["egress", "ingress"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return loaded_modules(tmp_path_factory.mktemp("start"), request.param)


@pytest.mark.slow
def test_a_start_loads_no_library_that_it_does_not_need(loaded: set[str]) -> None:
    top = {name.partition(".")[0] for name in loaded}
    own = {"tng", *(name for name in top if name.startswith("_"))}  # `_x`: of the installation
    assert top - set(sys.stdlib_module_names) - own - SEEN_ANYWHERE <= set(LIBRARIES)
    assert not loaded & STANDARD_LIBRARY_UNNEEDED


@pytest.mark.slow
@pytest.mark.parametrize("package", NEEDED_PARTS)
def test_a_start_loads_no_part_of_ours_that_it_does_not_need(
    loaded: set[str], package: str
) -> None:
    inside = {name.removeprefix(f"{package}.") for name in loaded if name.startswith(f"{package}.")}
    assert inside <= NEEDED_PARTS[package]


@pytest.mark.slow
def test_a_start_loads_no_more_modules_than_its_budget(loaded: set[str]) -> None:
    ours = {name for name in loaded if name.partition(".")[0] == "tng"}
    assert len(ours) <= MOST_OF_OURS
    assert len({name for name in loaded if not name.startswith("coverage")}) <= MOST_OF_ALL


@pytest.mark.slow
def test_one_side_does_not_load_the_other(loaded: set[str]) -> None:
    assert not {"tng.gateway.ingress", "tng.gateway.egress"} <= loaded
    assert not {"tng.gateway.ingress.entry", "tng.gateway.egress.entry"} <= loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "others"), [("ingress", {"server", "delivery"}), ("egress", {"client", "key_fetch"})]
)
def test_over_ohttp_what_the_entry_does_not_use_is_not_loaded(
    tmp_path: pathlib.Path, side: str, others: set[str]
) -> None:
    loaded = loaded_modules(tmp_path, side, ohttp={})
    assert not {f"tng.tunnel.ohttp.{name}" for name in {*others, "keys_peer_shared"}} & loaded
    assert not {f"tng.tunnel.rats_tls.{name}" for name in ("client", "server", "pool")} & loaded
    assert not {f"tng.attest.{name}" for name in ("credential_source", "statement_source")} & loaded
    ours = {name for name in loaded if name.partition(".")[0] == "tng"}
    assert len(ours) <= MOST_OF_OURS_OVER_OHTTP


def test_the_collector_rests_during_the_start_and_seldom_looks_afterwards() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    try:
        with _starting():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 10_000
        assert gc.get_freeze_count() > frozen
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def test_a_start_that_fails_leaves_the_collector_on() -> None:
    before = gc.get_threshold()
    try:
        with pytest.raises(ValueError, match="broken"), _starting():
            raise ValueError("broken")
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.mark.parametrize("words", [["launch", "-c", "x"], ["--log-file", "tools", "audit"]])
def test_every_command_is_listed_whatever_is_loaded(words: list[str]) -> None:
    assert make_parser(words).format_help() == make_parser().format_help()
    for name, line in COMMANDS.items():
        assert re.search(
            rf"^    {name} +{line[:20]}", make_parser(words).format_help(), re.MULTILINE
        )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--log-file", "launch", "config", "schema"], "config"),
        (["--log-format=json", "launch", "-c", "tools"], "launch"),
    ],
)
def test_the_name_of_a_command_may_stand_as_a_value_too(words: list[str], command: str) -> None:
    parsed = make_parser(words).parse_args(words)
    assert parsed.command == command
    assert vars(parsed) == vars(make_parser().parse_args(words))


def test_a_command_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser(["lunch"]).parse_args(["lunch"])
    assert "invalid choice: 'lunch'" in capsys.readouterr().err
