"""The library of `tng exec`, compiled for the tests with every warning an error."""

from __future__ import annotations

import atexit
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping

import pytest

SOURCES = pathlib.Path(__file__).resolve().parents[3] / "tng" / "preload"

FLAGS = (
    *("-std=c11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden", "-D_DEFAULT_SOURCE"),
    *("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"),
)


@functools.cache
def hook_library() -> pathlib.Path:
    """The compiled library; the test is skipped where it cannot be compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the library of tng exec needs Linux and a C compiler")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tng-hook-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "libtng_hook.so"
    sources = sorted(map(str, SOURCES.glob("*.c")))
    subprocess.run(
        [compiler, *FLAGS, *sources, "-o", str(library), "-ldl", "-lpthread"], check=True
    )
    return library


def environment(more: Mapping[str, str] = {}) -> dict[str, str]:
    """Ours without what a user of the machine may have set, and `more`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TNG_", "RUST_LOG")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "TNG_HOOK_LIB": str(hook_library()), **more}
