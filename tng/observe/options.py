"""How the process is to log: the reference's flags and environment variables as one value.

In: flags as the command line gives them, and the environment as a mapping that the caller passes.
Out: `LogOptions`.  Source: global options of TNG 2.12 (`--log-file`, `--log-format`, ...) and the
variables that override them.  Invariant: a value that is not understood is refused by its name.
"""

from __future__ import annotations

import enum
import pathlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_MAX_SIZE: Final = 64 * 1024 * 1024
"""Octets after which a rolling log file rolls over, as the reference has it."""

DEFAULT_MAX_BACKUPS: Final = 5
"""Rolled files kept, as the reference has it."""

MAX_BACKUPS: Final = 1000
"""Each roll renames every one of them."""

_UNITS: Final = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_SIZE: Final = re.compile(r"(\d{1,15})\s*([A-Za-z]*)")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})


class LogFormat(enum.StrEnum):
    """Form of the lines."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class LogFlags:
    """What the command line said; None where it said nothing.

    Attributes:
        file: --log-file.
        format: --log-format.
        error_file: --log-error-file.
        rolling: --log-rolling.
        max_size: --log-max-size, e.g. "64MB".
        max_backups: --log-max-backups, as text.
    """

    file: str | None = None
    format: str | None = None
    error_file: str | None = None
    rolling: bool = False
    max_size: str | None = None
    max_backups: str | None = None


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How to log.

    Attributes:
        levels: directives for `parse_levels`; empty for the default ones.
        format: form of the lines.
        file: where lines go; None for standard output.
        error_file: where ERROR lines go instead of `file`; None for no such file.
        rolling: whether files roll over by size.
        max_size: octets at which a file rolls over, 1 or more.
        max_backups: rolled files to keep, 0-1000.
    """

    levels: str = ""
    format: LogFormat = LogFormat.TEXT
    file: pathlib.Path | None = None
    error_file: pathlib.Path | None = None
    rolling: bool = False
    max_size: int = DEFAULT_MAX_SIZE
    max_backups: int = DEFAULT_MAX_BACKUPS


def log_options(flags: LogFlags, environment: Mapping[str, str]) -> LogOptions:
    """Options from `flags`, overridden by the reference's variables.

    Args:
        flags: the command line.
        environment: TNG_LOG (before RUST_LOG) for the levels; TNG_LOG_FORMAT,
            TNG_LOG_ERROR_FILE, TNG_LOG_ROLLING, TNG_LOG_MAX_SIZE and TNG_LOG_MAX_BACKUPS each
            override their flag.

    Raises:
        ConfigError: one or more values are not understood; every one of them is named.
    """
    problems: list[str] = []
    form = environment.get("TNG_LOG_FORMAT") or flags.format or LogFormat.TEXT.value
    if form not in {"text", "json"}:
        problems.append(f"log format: expected text or json, got {form!r}")
        form = "text"
    error_file = environment.get("TNG_LOG_ERROR_FILE") or flags.error_file
    rolling = _rolling(environment.get("TNG_LOG_ROLLING"), flags.rolling, problems)
    if rolling and flags.file is None:
        problems.append("--log-rolling: expected --log-file FILE beside it: only files roll over")
    options = LogOptions(
        levels=environment.get("TNG_LOG") or environment.get("RUST_LOG") or "",
        format=LogFormat(form),
        file=pathlib.Path(flags.file) if flags.file else None,
        error_file=pathlib.Path(error_file) if error_file else None,
        rolling=rolling,
        max_size=_max_size(environment.get("TNG_LOG_MAX_SIZE") or flags.max_size, problems),
        max_backups=_max_backups(
            environment.get("TNG_LOG_MAX_BACKUPS") or flags.max_backups, problems
        ),
    )
    if problems:
        raise ConfigError(problems)
    return options


def _rolling(word: str | None, flag: bool, problems: list[str]) -> bool:
    if word is None:
        return flag
    if word.lower() not in _TRUE | _FALSE:
        problems.append(f"TNG_LOG_ROLLING: expected true or false, got {word!r}")
    return word.lower() in _TRUE


def _max_size(text: str | None, problems: list[str]) -> int:
    if text is None:
        return DEFAULT_MAX_SIZE
    match = _SIZE.fullmatch(text.strip())
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None or int(match[1]) == 0:
        problems.append(f"--log-max-size: expected a size such as 64MB, 1GB or 65536, got {text!r}")
        return DEFAULT_MAX_SIZE
    return int(match[1]) * factor


def _max_backups(text: str | None, problems: list[str]) -> int:
    if text is None:
        return DEFAULT_MAX_BACKUPS
    if not (text.isascii() and text.isdigit() and int(text[:5]) <= MAX_BACKUPS):
        problems.append(f"--log-max-backups: expected an integer 0-{MAX_BACKUPS}, got {text!r}")
        return DEFAULT_MAX_BACKUPS
    return int(text)
