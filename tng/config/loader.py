"""From the text of a configuration to a `TngConfig`, with every problem at once.

In: JSON text, or a file.  Out: the configuration, or `ConfigError` with one line per problem.
Stricter than JSON parsers usually are: a key that stands twice in one object, NaN and infinity are
errors (RFC 8259 sections 4 and 6 leave them to the reader), and size and nesting are limited.

    config = prepare_config(text)      # all a launch needs
    config = parse_config(text)        # also what only a later version can do
"""

from __future__ import annotations

import json
import pathlib
import re
from typing import Final, NoReturn

from pydantic import ValidationError

from tng.config.availability import unavailable
from tng.config.check import check_config, check_files
from tng.config.model import TngConfig
from tng.config.problems import dump_path, problem_lines, quote
from tng.errors import ConfigError

MAX_TEXT: Final = 1 << 20
"""Characters of a configuration: 4096 mapping rules need a third of it."""

MAX_DEPTH: Final = 32
"""Nested lists and objects: the grammar needs 8, and the parser works recursively."""

_MAX_DUPLICATES: Final = 50  # lines about keys that stand twice

_BRACKET_OR_QUOTE: Final = re.compile(r'["\[\]{}]')
_REST_OF_STRING: Final = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def prepare_config(text: str) -> TngConfig:
    """Parse a configuration that this version is to run.

    Raises:
        ConfigError: it is wrong, or asks for something that this version does not have.
    """
    config = parse_config(text)
    missing = unavailable(config)
    if missing:
        raise ConfigError(missing)
    return config


def load_config(path: pathlib.Path) -> TngConfig:
    """Parse the configuration in a file; what `parse_config` says holds here.

    Raises:
        ConfigError: the file cannot be read, or its text is wrong.
    """
    return parse_config(read_config(path))


def read_config(path: pathlib.Path) -> str:
    """The text of a configuration file (UTF-8, with or without a byte order mark).

    Raises:
        ConfigError: the file cannot be read, is too long, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(4 * MAX_TEXT + 1)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigError([f"{quote(str(path))}: cannot be read: {reason}"]) from exc
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{quote(str(path))}: expected UTF-8, {exc.reason}"]) from exc


def parse_config(text: str, *, look_for_files: bool = True) -> TngConfig:
    """Parse a configuration; white space around it does not matter.

    Args:
        text: JSON.
        look_for_files: whether files that it names must exist on this machine.

    Raises:
        ConfigError: `problems` has one line for each problem.
    """
    data = _parse_json(text)
    if not isinstance(data, dict):
        raise ConfigError(["configuration: expected a JSON object"])
    try:
        config = TngConfig.model_validate(data)
    except ValidationError as exc:
        # Without `from`: the library's own text would repeat the values, secrets among them.
        raise ConfigError(problem_lines(exc, data, TngConfig)) from None
    problems = check_config(config)
    if look_for_files:
        problems += check_files(config)
    if problems:
        raise ConfigError(problems)
    return config


class _Duplicates:
    """Objects with a key that stands in them twice, found while parsing."""

    def __init__(self) -> None:
        self.found: list[tuple[dict[str, object], str]] = []

    def make_object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            keys = [key for key, _ in pairs]
            self.found += [(made, key) for key in made if keys.count(key) > 1][:_MAX_DUPLICATES]
        return made

    def lines(self, data: object) -> list[str]:
        by_object: dict[int, list[str]] = {}
        for made, key in self.found:
            by_object.setdefault(id(made), []).append(key)
        lines: list[str] = []
        todo: list[tuple[tuple[str | int, ...], object]] = [((), data)]
        while todo and len(lines) < _MAX_DUPLICATES:
            path, value = todo.pop()
            keys = by_object.get(id(value), [])
            lines += [
                f"{dump_path(path)}: duplicate key {quote(key)}: give it once" for key in keys
            ]
            if isinstance(value, dict):
                todo += [((*path, key), item) for key, item in value.items()]
            elif isinstance(value, list):
                todo += [((*path, position), item) for position, item in enumerate(value)]
        return lines or ["configuration: duplicate key: give each key once"]


def _parse_json(text: str) -> object:
    _limit(text)
    duplicates = _Duplicates()
    try:
        data: object = json.loads(
            text, object_pairs_hook=duplicates.make_object, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno} column {exc.colno}"
        raise ConfigError([f"configuration: not JSON: {exc.msg} at {where}"]) from None
    except ValueError as exc:  # an integer of thousands of digits (sys.set_int_max_str_digits)
        raise ConfigError(["configuration: not JSON: a number is too long"]) from exc
    if duplicates.found:
        raise ConfigError(duplicates.lines(data))
    return data


def _refuse_constant(name: str) -> NoReturn:
    raise ConfigError([f"configuration: not JSON: {name} is not a number"])


def _limit(text: str) -> None:
    """Refuse what is too long or nested too deeply, before anything recursive sees it."""
    if len(text) > MAX_TEXT:
        raise ConfigError([f"configuration: expected at most {MAX_TEXT} characters, got more"])
    depth, position = 0, 0
    while (found := _BRACKET_OR_QUOTE.search(text, position)) is not None:
        position = found.end()
        sign = found.group()
        if sign == '"':
            rest = _REST_OF_STRING.match(text, position)
            position = len(text) if rest is None else rest.end()
        else:
            depth += 1 if sign in "[{" else -1
        if depth > MAX_DEPTH:
            raise ConfigError([f"configuration: expected at most {MAX_DEPTH} nested levels"])
