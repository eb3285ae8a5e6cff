"""Reference values: what operators say that measurements should be, as the broker takes them in.

    {"version": "0.1.0", "type": "sample", "payload": base64 of {NAME: VALUES or anything, ...}}

A message goes in, stored values come out.  Lists are merged with what has the name already, other
JSON replaces it; values end twelve months after they were registered.  Source: messages of the
reference value provider service, type `sample`.

Invariant: a message is stored whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from tng.attest.base64_text import decode_base64
from tng.attest.strict_json import Json, parse_json, parse_object
from tng.trustee.json_body import invalid, parse_body, refuse_unknown, text_member
from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from tng.trustee.kbs.database import Database

LIFETIME_S: Final = 365 * 86_400
"""Seconds that a value is good for."""

MAX_VALUES: Final = 10_000
"""Names; bounds the answer to a query and the database."""

MAX_VALUE: Final = 65_536
"""Characters of one value as JSON: a thousand digests."""

_MAX_NAME: Final = 256
_VERSION: Final = "0.1.0"
_MEMBERS: Final = frozenset({"version", "type", "payload"})


class ReferenceValues:
    """Reference values by name.

    Args:
        database: where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changing = asyncio.Lock()

    async def register(self, body: bytes, now: float) -> list[str]:
        """Take a message; the names in it.

        Args:
            body: the message, or `{"message": TEXT OF THE MESSAGE}`.
            now: Unix time, seconds.

        Raises:
            TrusteeRequestError: not such a message, or there are too many values (400); a type
                that is not taken here (501).
        """
        values = _parse_message(body)
        async with self._changing:
            known = await self.query(now)
            merged = {name: _merge(known.get(name), value) for name, value in values.items()}
            if len(known.keys() | merged.keys()) > MAX_VALUES:
                raise invalid(f"there would be more than {MAX_VALUES} reference values", "payload")
            texts = {name: _dump(name, value) for name, value in merged.items()}
            await asyncio.to_thread(
                self._database.set_reference_values, texts, now + LIFETIME_S, now
            )
        return sorted(texts)

    async def query(self, now: float) -> dict[str, Json]:
        """All values that are still good, by name."""
        texts = await asyncio.to_thread(self._database.reference_values, now)
        return {name: parse_json(text.encode()) for name, text in texts.items()}

    async def delete(self, name: str) -> None:
        """Forget a value.

        Raises:
            TrusteeRequestError: there is none of that name (404).
        """
        if not await asyncio.to_thread(self._database.delete_reference_value, name):
            raise TrusteeRequestError(
                f"there is no reference value {name[:80]!r}", ProblemCode.NOT_FOUND
            )


def _parse_message(body: bytes) -> dict[str, Json]:
    members = parse_body(body)
    if members.keys() == {"message"}:
        members = parse_body(text_member(members, "message").encode())
    refuse_unknown(members, _MEMBERS, "")
    if text_member(members, "version") != _VERSION:
        raise invalid(f"expected {_VERSION!r}", "version")
    kind = text_member(members, "type")
    if kind != "sample":
        raise TrusteeRequestError(
            f"type: expected 'sample', got {kind[:80]!r}, which is not taken here",
            ProblemCode.NOT_IMPLEMENTED,
            field="type",
        )
    try:
        values = parse_object(decode_base64(text_member(members, "payload")))
    except ValueError as exc:
        raise invalid(f"expected base64 of a JSON object: {str(exc)[:200]}", "payload") from exc
    for name in values:
        if not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
            raise invalid(f"expected names of 1 to {_MAX_NAME} printable characters", "payload")
    return values


def _merge(old: Json, new: Json) -> Json:
    if not isinstance(old, list) or not isinstance(new, list):
        return new
    seen = {json.dumps(item, sort_keys=True): item for item in (*old, *new)}
    return list(seen.values())


def _dump(name: str, value: Json) -> str:
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > MAX_VALUE:
        raise invalid(f"{name[:80]!r} has more than {MAX_VALUE} characters", "payload")
    return text
