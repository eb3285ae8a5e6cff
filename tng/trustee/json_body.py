"""Bodies of requests as JSON: one meaning, a bounded size, or a refusal.

Octets in, plain values out.  `attest.strict_json` does the reading (RFC 8259 without duplicate
members); added here are a bound on the number of elements and the refusal of text that UTF-8
cannot carry, so that everything behind this file may encode what it got.

Invariant: whatever the octets are, the result is a value or a `TrusteeRequestError`.
"""

from __future__ import annotations

import json
from typing import Final

from tng.attest.strict_json import Json, parse_json
from tng.trustee.problems import ProblemCode, TrusteeRequestError

_MAX_ELEMENTS: Final = 100_000
"""Separators and brackets in a body: evidence is one long string, so real requests have dozens."""

_TYPE_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "a number"),
    (float, "a number"),
    (list, "an array"),
    (dict, "an object"),
)


def parse_body(data: bytes) -> dict[str, Json]:
    """The JSON object that a body holds.

    Raises:
        TrusteeRequestError: not JSON, not an object, or JSON that two readers could understand
            differently (400).
    """
    # Counted before parsing: it bounds the memory and the time that parsing can take.
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _MAX_ELEMENTS:
        raise _refused(f"more than {_MAX_ELEMENTS} elements")
    try:
        value = parse_json(data)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as exc:
        raise _refused(f"octet {exc.start} is not UTF-8") from exc
    except UnicodeEncodeError as exc:
        raise _refused("half of a surrogate pair") from exc
    except ValueError as exc:
        raise _refused(str(exc)[:200]) from exc
    if not isinstance(value, dict):
        raise _refused(f"expected an object, got {json_type(value)}")
    return value


def json_type(value: Json) -> str:
    """What a value is, for messages."""
    return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), "null")


def refuse_unknown(members: dict[str, Json], known: frozenset[str], where: str) -> None:
    """Refuse an object with members that nobody reads.

    Args:
        members: the object.
        known: names that are read, or ignored on purpose.
        where: path of the object, "" for the body itself.

    Raises:
        TrusteeRequestError: there is another member (400).
    """
    if unknown := sorted(members.keys() - known):
        raise invalid(
            f"unknown member {unknown[0][:80]!r}, known: {', '.join(sorted(known))}", where
        )


def text_member(members: dict[str, Json], name: str, where: str = "") -> str:
    """A member that must be a string.

    Raises:
        TrusteeRequestError: it is missing or something else (400).
    """
    value = members.get(name)
    if not isinstance(value, str):
        raise invalid(f"expected a string, got {json_type(value)}", join(where, name))
    return value


def join(where: str, name: str) -> str:
    """Path of a member of the object at `where`."""
    return f"{where}.{name}" if where else name


def invalid(message: str, field: str) -> TrusteeRequestError:
    """The refusal of one member; `field` is its path."""
    where = field or "body"
    return TrusteeRequestError(f"{where}: {message}", ProblemCode.INVALID_ARGUMENT, field=field)


def _refused(message: str) -> TrusteeRequestError:
    return TrusteeRequestError(f"body is not acceptable JSON: {message}", ProblemCode.INVALID_JSON)
