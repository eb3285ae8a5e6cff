"""Which log lines are wanted: the directives of RUST_LOG and TNG_LOG.

In: `info,tng.tunnel=debug,httpx=off`.  Out: a level for everything, and levels for logger names.
Source: the directive syntax of the reference's RUST_LOG as far as it concerns names and levels;
`tng::tunnel` and `tng.tunnel` are the same name.  Invariant: text that is not understood is
refused with its position, never skipped.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE: Final = 5
"""Below DEBUG; nothing of ours logs there, libraries may."""

OFF: Final = logging.CRITICAL + 10
"""Above every level that is used."""

DEFAULT_DIRECTIVES: Final = (
    "info,httpx=warn,httpcore=warn,aiohttp=warn,hpack=warn,asyncio=warn,trio=warn"
)
"""What is logged when nobody says: our life-cycle and connections, other libraries' warnings."""

_LEVELS: Final = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": OFF,
}

_NAME: Final = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")

MAX_DIRECTIVES: Final = 64
"""More than that is not written by hand."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels as `logging` counts them.

    Attributes:
        default: level of every logger without one of its own.
        by_name: logger name to level; holds for the loggers below it too.
    """

    default: int
    by_name: Mapping[str, int]


def parse_levels(text: str) -> Levels:
    """Read comma-separated directives: `level`, `name` (all of it) or `name=level`.

    Directives that come later win.  Empty text means `DEFAULT_DIRECTIVES`; text without a bare
    level leaves ERROR for whatever it does not name.

    Raises:
        ConfigError: a directive is not understood.
    """
    directives = [part.strip() for part in text.split(",") if part.strip()]
    if not directives:
        return parse_levels(DEFAULT_DIRECTIVES)
    if len(directives) > MAX_DIRECTIVES:
        raise ConfigError([f"log levels: expected at most {MAX_DIRECTIVES} directives"])
    default = logging.ERROR
    by_name: dict[str, int] = {}
    problems: list[str] = []
    for directive in directives:
        name, separator, word = directive.partition("=")
        level = _LEVELS.get((word if separator else name).strip().lower())
        target = name.strip().replace("::", ".")
        if not separator and level is not None:
            default = level
        elif not _NAME.fullmatch(target) or (separator and level is None):
            problems.append(
                f"log levels: expected LEVEL, NAME or NAME=LEVEL with a level of"
                f" {', '.join(_LEVELS)}, got {directive!r}"
            )
        else:
            by_name[target] = TRACE if level is None else level
    if problems:
        raise ConfigError(problems)
    return Levels(default, by_name)
