"""The load generator: compiled from `load.c` on first use, then run.

In: a workload's words.  Out: its counts as a dictionary.  The binary lies in `build/bench/` under
a name that holds the digest of its source, so a changed source is compiled anew.
Invariant: counts come from a run that ended by itself; anything else is a `LoadError`.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Final

SOURCE: Final = pathlib.Path(__file__).with_name("load.c")
CACHE: Final = SOURCE.parents[1] / "build" / "bench"

_COMPILERS: Final = ("cc", "gcc", "clang")
_FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-pthread")
_OPENING_S: Final = 60.0
"""Seconds beyond the measurement that opening connections may take; the generator's own limit."""

Counts = dict[str, float]
"""What a run printed: name to number."""


class LoadError(Exception):
    """The generator cannot be built, or a run went wrong."""


def build() -> pathlib.Path:
    """The generator's path, compiled if its source is new.

    Raises:
        LoadError: there is no C compiler, or it refuses the source.
    """
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(_FLAGS).encode()).hexdigest()[:16]
    binary = CACHE / f"load-{digest}"
    if binary.exists():
        return binary
    compiler = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise LoadError(f"expected a C compiler on PATH ({', '.join(_COMPILERS)}), found none")
    CACHE.mkdir(parents=True, exist_ok=True)
    fresh = binary.with_suffix(".new")
    ended = subprocess.run(  # noqa: S603 - a compiler found by name, our own source
        [compiler, *_FLAGS, "-o", fresh, SOURCE], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise LoadError(f"{compiler} refused {SOURCE.name}:\n{ended.stderr}")
    fresh.replace(binary)
    return binary


def run(binary: pathlib.Path, words: list[str], seconds: float) -> Counts:
    """Run one workload to its end.

    Raises:
        LoadError: it printed no counts, or took far longer than asked.
    """
    return run_held(binary, words, seconds, None)


def run_held(
    binary: pathlib.Path, words: list[str], seconds: float, when_ready: Callable[[], None] | None
) -> Counts:
    """Run one workload, calling `when_ready` when it says that all connections stand.

    Raises:
        LoadError: see `run`.
    """
    command = [str(binary), *words, "-t", f"{seconds:g}"]
    with subprocess.Popen(  # noqa: S603 - our own binary, our own words
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        guard = threading.Timer(seconds + _OPENING_S + 10, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line.startswith("ready") and when_ready is not None:
                when_ready()
            output, errors = process.communicate()
        finally:
            guard.cancel()
            process.kill()
    last = ((line + output).splitlines() or [""])[-1]
    if process.returncode or not last.startswith("{"):
        status = process.returncode
        raise LoadError(f"load {' '.join(words)} ended with {status}: {errors[-300:] or last}")
    counts: Counts = json.loads(last)
    return counts
