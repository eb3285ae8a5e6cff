"""JSON from people we do not trust yet: one meaning or an error.

In: octets.  Out: plain Python values.  Source: RFC 8259, and the advice of RFC 8725 section 2.4
to refuse repeated members, so that no two readers of one token see different claims.

Invariant: whatever the octets, the result is a value of bounded depth or a ValueError.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MAX_DEPTH: Final = 64
"""Containers inside each other; real tokens need about 12."""


def parse_json(data: bytes) -> Json:
    """The value that `data` holds.

    Raises:
        ValueError: not UTF-8, not JSON, a member named twice, NaN or an infinity, or nested
            deeper than `MAX_DEPTH`.
    """
    try:
        value: Json = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    _check_depth(value)
    return value


def parse_object(data: bytes) -> dict[str, Json]:
    """The JSON object that `data` holds.

    Raises:
        ValueError: as `parse_json`, or the value is no object.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {type(value).__name__}")  # noqa: TRY004
    return value


def same_json(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON; unlike `==`, true is not 1 and 1 is not 1.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object names a member twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Json) -> None:
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = _containers(
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        )
    if level:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _containers(values: Iterable[Json]) -> list[dict[str, Json] | list[Json]]:
    return [value for value in values if isinstance(value, dict | list)]
