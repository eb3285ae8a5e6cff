"""`tng exec` before anything runs: its words, the library, the environment, the program."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stage.gateways import free_port, mapping
from tng.cli import exec as execute
from tng.cli.exec_library import PLACES, child_environment, find_library
from tng.cli.exec_program import check_reach, find_program
from tng.cli.main import main
from tng.config.model import TngConfig
from tng.errors import ConfigError, StartError
from tng.gateway.hook_ports import is_free_port, with_ports

NO_RA = {"no_ra": True}
CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs" / "exec").glob("*.json"))


def ingress(*rules: dict[str, object], **more: object) -> dict[str, object]:
    return {"hook": {"capture_dst": list(rules), **more}, **NO_RA}


def egress(*rules: dict[str, object], **more: object) -> dict[str, object]:
    return {"hook": {"capture_listen": list(rules), **more}, **NO_RA}


def prepared(
    ingresses: Sequence[dict[str, object]], egresses: Sequence[dict[str, object]] = ()
) -> TngConfig:
    config = {"add_ingress": ingresses, "add_egress": egresses}
    return execute.prepare_exec_config(json.dumps(config))


# -- the configuration -------------------------------------------------------------------


def test_every_port_is_named_afterwards() -> None:
    config = prepared(
        [ingress({"port": 80}), ingress({"port": 81}, proxy_port=4)],
        [
            egress(
                {"port": 90, "port_end": 92, "host": "10.0.0.1"},
                {
                    "port": 100,
                    "port_end": 101,
                    "redirect_to_port": 200,
                    "redirect_to_port_end": 201,
                },
            )
        ],
    )
    proxies = [entry.hook.proxy_port for entry in config.add_ingress]
    rules = config.add_egress[0].hook.capture_listen
    assert proxies[0] not in {None, 4}
    assert proxies[1] == 4
    assert [rule.port for rule in rules] == [90, 91, 92, 100, 101]
    assert [rule.host for rule in rules] == ["10.0.0.1"] * 3 + [None] * 2
    assert [rule.redirect_to_port for rule in rules[3:]] == [200, 201]
    given_ports = [*proxies, *(rule.redirect_to_port for rule in rules)]
    assert len(set(given_ports)) == len(given_ports)


@pytest.mark.parametrize(
    ("ingresses", "egresses", "line"),
    [
        (
            [{**mapping(1, 2), **NO_RA}, ingress({"port": 1})],
            [],
            "add_ingress[0].mapping: tng exec only supports 'hook' mode ingress, but ingress entry "
            "0 uses a 'mapping' mode. Use `tng launch` for non-hook modes.",
        ),
        (
            [ingress({"port": 1})],
            [{**mapping(1, 2), **NO_RA}],
            "add_egress[0].mapping: tng exec only supports 'hook' mode egress, but egress entry 0"
            " uses a 'mapping' mode. Use `tng launch` for non-hook modes.",
        ),
        (
            [],
            [egress({"port": 9}), egress({"port": 8, "port_end": 10})],
            "add_egress[1].hook.capture_listen[0].port: Conflict: port 9 is already claimed by"
            " another entry",
        ),
        (
            [ingress({"port": 1}, proxy_port=9)],
            [egress({"port": 8, "redirect_to_port": 9})],
            "add_egress[0].hook.capture_listen[0].redirect_to_port: Conflict: port 9 is already"
            " claimed by another entry",
        ),
        (
            [ingress({"port": 1}, proxy_listen="127.0.0.2")],
            [],
            "add_ingress[0].hook.proxy_listen: expected 127.0.0.1 (or 0.0.0.0), where the program"
            " looks for its proxy, got 127.0.0.2",
        ),
        (
            [],
            [egress({"port": 1, "port_end": 65535})],
            "configuration: expected at most 4096 ports, got 65535",
        ),
    ],
)
def test_what_cannot_be_run_beside_a_program_is_named(ingresses, egresses, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(ingresses, egresses)
    assert caught.value.problems == [line]


def test_an_egress_that_captures_nothing_is_a_plain_run() -> None:
    config = prepared([], [egress()])
    assert child_environment(config, {}, "/x.so") == {"LD_PRELOAD": "/x.so"}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_configuration_of_the_project_can_be_run(
    file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("a certificate")
    text = file.read_text(encoding="utf-8").replace("/etc/tng/trustee-ca.pem", str(pem))
    execute.prepare_exec_config(text)


def test_there_are_configurations_for_both_sides() -> None:
    assert [file.stem for file in CONFIGS] == ["egress-hook", "ingress-hook"]


def test_no_free_port_is_an_error_that_says_what_to_do() -> None:
    config = prepared([ingress({"port": 80}, proxy_port=4)], [egress({"port": 9})])
    again = config.model_copy(update={"add_ingress": [_without_port(config.add_ingress[0])]})
    with pytest.raises(StartError, match="name them: proxy_port, redirect_to_port"):
        with_ports(again, is_free=lambda _: False)


def _without_port(entry):
    return entry.model_copy(update={"hook": entry.hook.model_copy(update={"proxy_port": None})})


def test_a_taken_port_is_not_given() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        assert not is_free_port(taken.getsockname()[1])
    assert is_free_port(free_port())


# -- the library and the environment -----------------------------------------------------


def test_the_environment_is_what_the_library_reads() -> None:
    config = prepared(
        [
            ingress(
                {"host": "10.0.0.0/24", "port": 80},
                {"port": 8080, "port_end": 8090},
                proxy_port=7,
            )
        ],
        [egress({"port": 90, "redirect_to_port": 91}, capture_local_traffic=True)],
    )  # fmt: skip
    base = {"PATH": "/bin", "LD_PRELOAD": "/other.so", "TNG_HOOK_EGRESS_MAPPINGS": "old"}
    made = child_environment(config, base, "/lib/h.so")
    assert made["PATH"] == "/bin"
    assert made["LD_PRELOAD"] == "/lib/h.so:/other.so"
    assert json.loads(made["TNG_HOOK_INGRESS_MAPPINGS"]) == {
        "ingresses": [
            {
                "proxy_port": 7,
                "capture_rules": [
                    {"host_cidr": "10.0.0.0/24", "port": 80},
                    {"host_cidr": "*", "port": 8080, "port_end": 8090},
                ],
                "capture_local_traffic": False,
                "may_be_silent": True,
            }
        ]
    }
    assert json.loads(made["TNG_HOOK_EGRESS_MAPPINGS"]) == {
        "entries": [{"origin_port": 90, "real_port": 91}]
    }


def test_mappings_of_an_outer_gateway_do_not_come_through() -> None:
    config = prepared([ingress({"port": 80})])
    assert "TNG_HOOK_EGRESS_MAPPINGS" not in child_environment(
        config, {"TNG_HOOK_EGRESS_MAPPINGS": "old"}, "/lib/h.so"
    )


def test_the_library_is_found_in_its_places_in_order(tmp_path: pathlib.Path) -> None:
    first, second, named = (tmp_path / name for name in ("a.so", "b.so", "named.so"))
    second.touch()
    assert find_library({}, (first, second)) == second
    first.touch()
    assert find_library({}, (first, second)) == first
    named.touch()
    assert find_library({"TNG_HOOK_LIB": str(named)}, (first,)) == named
    assert [place.name for place in PLACES] == ["libtng_hook.so"] * 2


def test_a_library_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path) -> None:
    with pytest.raises(StartError, match=r"resolve libtng_hook\.so path: .*nowhere.*gcc"):
        find_library({}, (tmp_path / "nowhere",))
    with pytest.raises(StartError, match="points to '/nope' but the file does not exist"):
        find_library({"TNG_HOOK_LIB": "/nope"})


@pytest.mark.parametrize("name", ["a b", "a:b", "$LIB"])
def test_a_path_that_the_loader_would_cut_is_refused(tmp_path: pathlib.Path, name: str) -> None:
    place = tmp_path / name / "libtng_hook.so"
    place.parent.mkdir()
    place.touch()
    with pytest.raises(StartError, match="no path with a space, a colon"):
        find_library({}, (place,))


# -- the program -------------------------------------------------------------------------


def elf(*segments: tuple[int, bytes], bits: int = 64, order: str = "<", machine: int = 62) -> bytes:
    """An ELF file with nothing but a table of segments, and their octets."""
    wide = bits == 64
    head, entry = (64, 56) if wide else (52, 32)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    address = "Q" if wide else "I"
    fixed = struct.pack(
        f"{order}HHI{address * 3}IHHHHHH",
        3, machine, 1, 0, head, 0, 0, head, entry, len(segments), 0, 0, 0,
    )  # fmt: skip
    table, body = b"", b""
    at = head + entry * len(segments)
    for kind, octets in segments:
        size, offset = len(octets), at + len(body)
        if wide:
            table += struct.pack(f"{order}IIQQQQQQ", kind, 4, offset, 0, 0, size, size, 1)
        else:
            table += struct.pack(f"{order}IIIIIIII", kind, offset, 0, 0, size, size, 4, 1)
        body += octets
    return ident + fixed + table + body


INTERP = (3, b"/lib64/ld-linux-x86-64.so.2\0")
GO_NOTE = (4, struct.pack("<III", 4, 8, 4) + b"Go\0\0" + b"buildid!")


@pytest.fixture
def library(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "libtng_hook.so"
    path.write_bytes(elf())
    return path


def program(folder: pathlib.Path, octets: bytes, name: str = "program") -> pathlib.Path:
    path = folder / name
    path.write_bytes(octets)
    path.chmod(0o755)
    return path


def test_a_dynamically_linked_program_is_taken(tmp_path, library) -> None:
    check_reach(program(tmp_path, elf((1, b""), INTERP, (4, b"other note"))), library, {})


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (elf((1, b"")), "is statically linked"),
        (elf(), "is statically linked"),
        (elf(INTERP, GO_NOTE), "is made by Go"),
        (elf(INTERP, bits=32, machine=3), "another kind of machine"),
        (elf(INTERP, machine=183), "another kind of machine"),
        (elf(INTERP, order=">"), "another kind of machine"),
    ],
)
def test_a_program_that_the_library_cannot_reach_is_refused(
    tmp_path, library, octets: bytes, words: str
) -> None:
    with pytest.raises(StartError, match=words) as caught:
        check_reach(program(tmp_path, octets), library, {})
    assert "http_proxy" in str(caught.value)


@pytest.mark.parametrize(
    "line", ["#!{}\n", "#! {} -x\n", "#!/usr/bin/env {}\n", "#!/usr/bin/env -S A=1 {} -x\n"]
)
def test_of_a_script_the_interpreter_counts(tmp_path, library, line: str) -> None:
    static = program(tmp_path, elf(), "static")
    script = program(tmp_path, line.format(static).encode(), "script")
    outer = program(tmp_path, f"#!{script}\n".encode(), "outer")
    for started in (script, outer):
        with pytest.raises(StartError, match="/static is statically linked"):
            check_reach(started, library, {"PATH": str(tmp_path)})
    program(tmp_path, elf(INTERP), "static")
    check_reach(outer, library, {"PATH": str(tmp_path)})


def test_scripts_that_start_each_other_end_somewhere(tmp_path, library) -> None:
    loop = tmp_path / "loop"
    check_reach(program(tmp_path, f"#!{loop}\n".encode(), "loop"), library, {})


def test_an_interpreter_that_is_not_there_is_named(tmp_path, library) -> None:
    script = program(tmp_path, b"#!/nowhere/sh\n")
    with pytest.raises(StartError, match="/nowhere/sh"):
        check_reach(script, library, {})


@pytest.mark.parametrize("bit", [stat.S_ISUID, stat.S_ISGID])
def test_a_program_that_gains_privileges_is_refused(tmp_path, library, bit) -> None:
    path = program(tmp_path, elf(INTERP))
    path.chmod(0o755 | bit)
    if not path.stat().st_mode & bit:
        pytest.skip("this file system has no such bit")
    check_reach(path, library, {})  # it is our own: nothing is gained
    with pytest.raises(StartError, match="gains privileges"):
        check_reach(path, library, {}, (12345, 12345))


def test_file_capabilities_are_privileges(tmp_path, library) -> None:
    path = program(tmp_path, elf(INTERP))
    net_bind = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    try:
        os.setxattr(path, "security.capability", net_bind)
    except OSError:
        pytest.skip("no right to give capabilities here")
    check_reach(path, library, {}, (0, 0))
    with pytest.raises(StartError, match="gains privileges"):
        check_reach(path, library, {}, (12345, 12345))


def test_a_library_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(StartError, match="is not a shared library"):
        check_reach(program(tmp_path, elf(INTERP)), program(tmp_path, b"text", "lib"), {})


@given(cut=st.integers(0, 120), octets=st.binary(max_size=64))
def test_what_is_no_program_is_left_to_the_system(tmp_path, cut: int, octets: bytes) -> None:
    """Or refused; never an error that nobody foresaw."""
    library = program(tmp_path, elf(), "library")
    for broken in (elf(INTERP, GO_NOTE)[:cut] + octets, octets):
        with contextlib.suppress(StartError):
            check_reach(program(tmp_path, broken), library, {})


def test_a_program_is_found_as_a_shell_finds_it(tmp_path) -> None:
    path = program(tmp_path, elf(INTERP), "thing")
    assert find_program("thing", {"PATH": str(tmp_path)}) == path
    assert find_program(str(path), {}) == path
    path.chmod(0o644)
    with pytest.raises(StartError, match="cannot run 'thing': not found in PATH"):
        find_program("thing", {"PATH": str(tmp_path)})


# -- the command -------------------------------------------------------------------------

GOOD = json.dumps({"add_ingress": [ingress({"port": 80})]})


def test_a_command_is_needed(capfd) -> None:
    for words in ([], ["--"]):
        assert main(["exec", "--config-content", GOOD, *words]) == 2
        assert "expected a command to run" in capfd.readouterr().err


def test_a_command_that_is_not_there_is_an_exit_status_of_1(capfd, tmp_path, monkeypatch) -> None:
    library = program(tmp_path, elf(), "libtng_hook.so")
    monkeypatch.setenv("TNG_HOOK_LIB", str(library))
    assert main(["exec", "--config-content", GOOD, "--", "no-such-program"]) == 1
    assert "cannot run 'no-such-program'" in capfd.readouterr().err


def test_a_static_program_is_refused_before_anything_listens(capfd, tmp_path, monkeypatch) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and gcc")
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }")
    static, shared = tmp_path / "static", tmp_path / "libtng_hook.so"
    done = subprocess.run(
        [compiler, "-static", source, "-o", static], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this compiler makes no static programs")
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", shared], check=True)
    monkeypatch.setenv("TNG_HOOK_LIB", str(shared))
    assert main(["exec", "--config-content", GOOD, "--", str(static)]) == 1
    assert "is statically linked" in capfd.readouterr().err
    check_reach(pathlib.Path(sys.executable), shared, {})
