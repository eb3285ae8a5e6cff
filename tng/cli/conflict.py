"""The clear word when another distribution brings the same package and command.

PyPI's `tng-sdk` installs a package `tng` and a command `tng` too.  With both in one environment
the files of one overwrite those of the other, and what runs is a mixture.
In: the names of the installed distributions.  Out: nothing, or the error.
Invariant: only metadata is read; nothing of the other distribution is imported.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Final

from tng.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

OURS: Final = "tng-gateway"
OTHERS: Final = ("tng-sdk",)
"""Distributions that install a package named `tng`."""


def installed_version(name: str) -> str | None:
    """Version of the distribution `name`; None when it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def refuse_conflict(version_of: Callable[[str], str | None] = installed_version) -> None:
    """Refuse to run beside a distribution that brings the same package.

    Args:
        version_of: what tells the installed version of a distribution.

    Raises:
        StartError: there is one; says which, and the two commands that mend it.
    """
    for name in OTHERS:
        version = version_of(name)
        if version is not None:
            raise StartError(
                f"expected {OURS} alone to bring the package and the command `tng`, but"
                f" {name} {version} is installed here too and overwrites parts of it; run"
                f" `pip uninstall {name}`, then `pip install --force-reinstall --no-deps {OURS}`,"
                f" or use two virtual environments"
            )
