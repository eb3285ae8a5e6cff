"""What `tools/udp_load` shows of a pair, on a small scale."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def test_a_small_wave_loses_nothing_and_a_second_one_neither() -> None:
    command = [sys.executable, "-bb", "-X", "dev", str(ROOT / "tools/udp_load.py")]
    size = ["--clients", "80", "--datagrams", "5", "--waves", "2"]
    pauses = ["--idle", "1", "--settle", "0.5"]
    done = subprocess.run([*command, *size, *pauses], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:5] for line in lines if line.startswith("wave")] == [
        ["wave", "1", "0", "of", "400"],
        ["wave", "2", "0", "of", "400"],
    ]
    assert lines[-1] == "nothing lost"
