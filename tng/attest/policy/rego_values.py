"""Values as Rego reads them: undefined, truth, membership and equality.

JSON values go in and come out.  The native policies are twins of Rego texts, and these are the
few rules of that language in which it differs from Python's.  Source: the Rego reference, sections
on references, equality and membership; behaviour of the engine regorus 0.13.

Invariant: where Rego would stop with an error, so does this, with `policy_denied`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from tng.attest.policy.base import denied


class Undefined(enum.Enum):
    """What a reference to nothing gives."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED


def look_up(value: object, *path: str | int) -> object:
    """What stands at the end of a path of names and indices; `UNDEFINED` where it breaks off."""
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step, UNDEFINED)
        elif isinstance(step, int) and isinstance(value, list):
            value = value[step] if step < len(value) else UNDEFINED
        else:
            return UNDEFINED
    return value


def holds(value: object) -> bool:
    """Whether a value, written alone as a condition, is one that holds: null and 0 do."""
    return value is not UNDEFINED and value is not False


def elements(value: object) -> list[object]:
    """What `value[_]` iterates over: the values of an array or an object, else nothing."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def same(one: object, other: object) -> bool:
    """Rego's `==`: true is not 1, and 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return one == other


def is_in(value: object, collection: object) -> bool:
    """Rego's `in`: among the values of an array or an object."""
    return value is not UNDEFINED and any(same(value, item) for item in elements(collection))


def text_of(value: object, where: str) -> str | None:
    """A text that a string function is called with; None where there is nothing.

    Raises:
        UntrustedPeerError: it is something else (policy_denied).
    """
    if value is UNDEFINED:
        return None
    if not isinstance(value, str):
        raise denied(f"claims: expected text at {where}, got {type(value).__name__}")
    return value


def count_of(value: object, where: str) -> int:
    """Rego's `count`; 0 where there is nothing.

    Raises:
        UntrustedPeerError: it has no length (policy_denied).
    """
    if value is UNDEFINED:
        return 0
    if not isinstance(value, Mapping | list | str):
        raise denied(f"claims: expected an array at {where}, got {type(value).__name__}")
    return len(value)
