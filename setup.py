"""Building of the wheel: everything is in `pyproject.toml` but the library of `tng exec`.

In: the C sources in `tng/preload`.  Out: `tng/preload/libtng_hook.so` in the wheel, or in the
source tree of an editable installation.  Where it cannot be compiled the wheel is built without
it, and `tng exec` says what is missing.  It is no Python module: one wheel serves every version.
"""

from __future__ import annotations

import pathlib
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = pathlib.Path("tng/preload")
LIBRARY = "tng.preload.libtng_hook"


class BuildLibrary(build_ext):
    """Compiles a plain shared library, whose name says nothing of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Path of the library below the root of the wheel."""
        return str(pathlib.Path(*fullname.split(".")).with_suffix(".so"))


class TagWheel(bdist_wheel):
    """Names a wheel that needs a platform, and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """The three parts of the tag."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


def libraries() -> list[Extension]:
    """What to compile on this platform; only Linux has a loader that takes it."""
    if not sys.platform.startswith("linux"):
        return []
    return [
        Extension(
            LIBRARY,
            sources=sorted(str(path) for path in SOURCES.glob("*.c")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            define_macros=[("_DEFAULT_SOURCE", None)],
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
            extra_link_args=["-s"],
            libraries=["dl", "pthread"],
            optional=True,  # no compiler is no reason not to have the rest
        )
    ]


setup(
    ext_modules=libraries(),
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": TagWheel},
)
