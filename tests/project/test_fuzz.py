"""The fuzzing tool: it tries every parser, and finds what a parser does wrong."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from fuzzing import trust, wire
from fuzzing.mutation import MAX_RANDOM, spoil
from fuzzing.target import Finding, Target, attempt, read_alike
from tng.errors import RemoteProtocolError, TngError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = {target.name: target for target in trust.targets(None) + wire.targets()}
EXAMPLES = 15


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("fuzz_tool", ROOT / "tools/fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TARGETS)
def test_every_parser_reads_what_it_should_read(name: str) -> None:
    target = TARGETS[name]
    assert not all(attempt(target, message).is_refused for message in target.good)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore:Parsed a serial number", "ignore:The parsed certificate")
def test_every_parser_stands_some_fuzzing(name: str, tool) -> None:
    tally = tool.fuzz(TARGETS[name], EXAMPLES, seed=2)
    assert tally.read + tally.refused >= EXAMPLES


def test_an_error_of_another_kind_is_found_and_its_message_kept(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.tempfile, "tempdir", str(tmp_path))

    def read(data: bytes) -> None:
        if data != b"good":
            raise KeyError("oh")

    with pytest.raises(Finding, match="KeyError") as found:
        tool.fuzz(Target("bad", (b"good",), read), 100, seed=1)
    (kept,) = tmp_path.iterdir()
    assert str(kept) in str(found.value)
    assert len(kept.read_bytes()) <= len(b"good")  # made small


def test_a_refusal_is_no_finding_and_a_reading_that_depends_on_the_pieces_is() -> None:
    def refuse(data: bytes) -> None:
        raise RemoteProtocolError("no")

    assert attempt(Target("refuses", (), refuse), b"").is_refused
    assert read_alike(b"".join, b"abc") == b"abc"
    with pytest.raises(AssertionError, match="differently"):
        read_alike(len, b"abc")
    with pytest.raises(TngError):
        read_alike(lambda pieces: refuse(b""), b"abc")


def test_too_much_processor_time_is_found() -> None:
    from fuzzing import target

    slow = Target("slow", (), lambda data: sum(range(100_000)))
    was, target.MAX_CPU_S = target.MAX_CPU_S, 1e-9  # type: ignore[misc]
    try:
        with pytest.raises(Finding, match="took"):
            attempt(slow, b"")
    finally:
        target.MAX_CPU_S = was  # type: ignore[misc]


@pytest.mark.parametrize("edit", range(7))
def test_every_edit_changes_a_message_or_lets_it_be(edit: int) -> None:
    message = bytes(range(100))
    programme = bytes([edit, 0, 0, 10, 3, 1, 2, 3])
    assert spoil(message, programme) != message
    assert isinstance(spoil(b"", programme), bytes)
    assert spoil(message, b"\0" * 7) == message
    assert MAX_RANDOM > 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_is_well_formed_and_can_be_run() -> None:
    script = ROOT / "tools/fuzz"
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
