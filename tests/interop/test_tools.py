"""What the tools of one make wrote, read and judged by those of the other."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stage.attested import REFERENCE, Vouchers, gateway, vouchers
from stage.gateways import free_port, mapping

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

BOTH = ("ours", "reference")
OTHER = {"ours": "reference", "reference": "ours"}
MODELS = ("background_check", "passport")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("interop-tools")


@pytest.fixture(scope="module")
def trust(folder: pathlib.Path) -> Iterator[Vouchers]:
    with vouchers(folder) as found:
        yield found


@pytest.fixture(scope="module")
def endpoints(folder: pathlib.Path, trust: Vouchers) -> Iterator[dict[tuple[str, str, str], int]]:
    """Ports of egresses, by make, transport and model."""
    ports: dict[tuple[str, str, str], int] = {}
    entries: dict[str, list[dict[str, object]]] = {who: [] for who in BOTH}
    for who in BOTH:
        for transport, extra in (("rats-tls", {}), ("ohttp", {"ohttp": {}})):
            for model in MODELS:
                port = ports[who, transport, model] = free_port()
                attest = trust.attest(who, passport=model == "passport")
                entries[who].append({**mapping(port, free_port()), **extra, "attest": attest})
    with (
        gateway(folder, "ours", "egress-ours", {"add_egress": entries["ours"]}) as (ours, one),
        gateway(folder, "ref", "egress-ref", {"add_egress": entries["reference"]}) as (ref, other),
    ):
        ours.await_http(one, "/readyz")
        ref.await_http(other, "/readyz")
        yield ports


def tool(who: str, *words: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "tng"] if who == "ours" else [str(REFERENCE)]
    logs = ["--log-file", "/dev/null", "tools"]
    return subprocess.run(
        [*program, *logs, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )


def verify(who: str, trust: Vouchers, model: str) -> tuple[str, str]:
    """The section with every tag spelled out, as the reference's tools want it."""
    tags = {"model": model, "as_provider": "coco", "as_type": "restful"}
    return "--verify", json.dumps({**tags, **trust.verify(who)})


def attest(who: str, trust: Vouchers, model: str) -> tuple[str, str]:
    section = {"model": model, **trust.attest(who, passport=model == "passport")}
    if model == "passport":
        section |= {"as_provider": "coco", "as_type": "restful"}
    return "--attest", json.dumps(section)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("maker", BOTH)
def test_a_certificate_of_one_is_accepted_by_the_other(
    trust: Vouchers, tmp_path: pathlib.Path, maker: str, model: str
) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    words = ("--cert-out", certificate, "--key-out", key)
    made = tool(maker, "rats-tls", "gen", *attest(maker, trust, model), *words)
    assert made.returncode == 0, made.stderr
    for judge in BOTH:
        judged = tool(
            judge, "rats-tls", "verify", "--cert", certificate, *verify(judge, trust, model)
        )
        assert judged.returncode == 0, judged.stderr
        first, token = judged.stdout.splitlines()
        assert first == "verified OK"
        assert json.loads(token).startswith("ey")


@pytest.mark.parametrize("maker", BOTH)
def test_a_certificate_of_a_stranger_is_refused_by_the_other(
    trust: Vouchers, tmp_path: pathlib.Path, maker: str
) -> None:
    certificate = tmp_path / "c.pem"
    section = {"model": "background_check", **trust.attest(maker, known=False)}
    words = ("--cert-out", certificate, "--key-out", tmp_path / "k.pem")
    assert tool(maker, "rats-tls", "gen", "--attest", json.dumps(section), *words).returncode == 0
    judge = OTHER[maker]
    words = ("--cert", certificate, *verify(judge, trust, "background_check"))
    judged = tool(judge, "rats-tls", "verify", *words)
    assert judged.returncode == 1
    assert "verified OK" not in judged.stdout


@pytest.mark.parametrize("egress", BOTH)
@pytest.mark.parametrize("dumper", BOTH)
def test_a_certificate_that_was_fetched_is_accepted_by_the_other(
    trust: Vouchers,
    endpoints: dict[tuple[str, str, str], int],
    tmp_path: pathlib.Path,
    dumper: str,
    egress: str,
) -> None:
    port, certificate = endpoints[egress, "rats-tls", "background_check"], tmp_path / "c.pem"
    words = ("--endpoint", f"127.0.0.1:{port}", "--cert-out", certificate)
    assert tool(dumper, "rats-tls", "dump", *words).returncode == 0
    judge = OTHER[dumper]
    words = ("--cert", certificate, *verify(judge, trust, "background_check"))
    assert tool(judge, "rats-tls", "verify", *words).returncode == 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("egress", BOTH)
@pytest.mark.parametrize("dumper", BOTH)
def test_a_key_dumped_by_one_is_judged_and_taken_apart_by_the_other(
    trust: Vouchers,
    endpoints: dict[tuple[str, str, str], int],
    tmp_path: pathlib.Path,
    dumper: str,
    egress: str,
    model: str,
) -> None:
    online, offline, judge = tmp_path / "online", tmp_path / "offline", OTHER[dumper]
    url = f"http://127.0.0.1:{endpoints[egress, 'ohttp', model]}"
    words = ("--endpoint", url, *verify(dumper, trust, model), "--out-dir", online)
    dumped = tool(dumper, "ohttp", "dump", *words)
    assert dumped.returncode == 0, dumped.stderr
    raw, token = online / "raw.json", online / "attestation_result.jwt"
    judged = tool(judge, "ohttp", "verify", "--raw", raw, *verify(judge, trust, model))
    assert judged.returncode == 0, judged.stderr
    lines = judged.stdout.splitlines()
    assert lines[0] == "verified OK"
    assert lines[1].startswith("attestation_result: ey")
    assert lines[2] == "claims:"
    json.loads("\n".join(lines[3:]))
    words = ("--raw", raw, "--attestation-result", token, "--out-dir", offline)
    assert tool(judge, "ohttp", "decode", *words).returncode == 0
    written = {path.name for path in online.iterdir()}
    assert {path.name for path in offline.iterdir()} == written - {token.name}
    for path in offline.iterdir():
        assert path.read_bytes() == (online / path.name).read_bytes()
