"""Reference values: what operators say that measurements should be, as the broker takes them in.

    {"version": "0.1.0", "type": "sample", "payload": base64 of {NAME: VALUES or anything, ...}}
    {"version": "0.1.0", "type": "slsa" or "release_manifest",
     "payload": base64 of {"rv_list": [...], "files": {URI: signed envelope or bundle, ...}}}

A message goes in, stored values come out.  Lists are merged with what has the name already, other
JSON replaces it, and so does an item of the operation `refresh`; values end twelve months after
they were registered.  Sources: messages of the reference value provider service, and its lists of
signed provenance (`attest.reference_values.listed`); the envelopes that a list names travel beside
it, so that nothing is fetched and no file of this machine is read for a client.

Invariants: a message is stored whole or not at all; signed values count only with the signature of
a key that the operator named.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.base64_text import decode_base64
from tng.attest.reference_values.envelope import PublicKey
from tng.attest.reference_values.listed import MAX_ITEMS, list_values
from tng.attest.reference_values.values import MAX_VALUE, MAX_VALUES, check_values
from tng.attest.strict_json import Json, parse_json, parse_object
from tng.errors import ConfigError
from tng.trustee.json_body import invalid, parse_body, refuse_unknown, text_member
from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from tng.trustee.kbs.database import Database

SIGNED_TYPES: Final = ("slsa", "release_manifest")
"""Types whose values are signed."""

LIFETIME_S: Final = 365 * 86_400
"""Seconds that a value is good for."""

_VERSION: Final = "0.1.0"
_MEMBERS: Final = frozenset({"version", "type", "payload"})


class ReferenceValues:
    """Reference values by name.

    Args:
        database: where they are kept.
        keys: trusted to sign values; without any, signed ones are not taken.
    """

    def __init__(self, database: Database, keys: Sequence[PublicKey] = ()) -> None:
        self._database = database
        self._keys = keys
        self._changing = asyncio.Lock()

    async def register(self, body: bytes, now: float) -> list[str]:
        """Take a message; the names in it.

        Args:
            body: the message, or `{"message": TEXT OF THE MESSAGE}`.
            now: Unix time, seconds.

        Raises:
            TrusteeRequestError: not such a message, a signature that does not count, or too many
                values (400); a type that is not taken here (501).
        """
        sets = await asyncio.to_thread(_parse_message, body, self._keys)
        async with self._changing:
            known = await self.query(now)
            merged: dict[str, Json] = {}
            for new in sets:
                for name, value in new.values.items():
                    old = None if new.replaces else merged.get(name, known.get(name))
                    merged[name] = _merge(old, value)
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


@dataclass(frozen=True, slots=True)
class _Set:
    """Values that come together."""

    values: dict[str, Json]
    replaces: bool = False


def _parse_message(body: bytes, keys: Sequence[PublicKey]) -> list[_Set]:
    members = parse_body(body)
    if members.keys() == {"message"}:
        members = parse_body(text_member(members, "message").encode())
    refuse_unknown(members, _MEMBERS, "")
    if text_member(members, "version") != _VERSION:
        raise invalid(f"expected {_VERSION!r}", "version")
    kind = text_member(members, "type")
    if kind != "sample" and (kind not in SIGNED_TYPES or not keys):
        trust = ", with --reference-key also " + " and ".join(repr(t) for t in SIGNED_TYPES)
        raise TrusteeRequestError(
            f"type: expected 'sample'{trust}; got {kind[:80]!r}, which is not taken here",
            ProblemCode.NOT_IMPLEMENTED,
            field="type",
        )
    try:
        payload = parse_object(decode_base64(text_member(members, "payload")))
    except ValueError as exc:
        raise invalid(f"expected base64 of a JSON object: {str(exc)[:200]}", "payload") from exc
    try:
        sets = [_Set(payload)] if kind == "sample" else _signed_sets(payload, keys)
        return [_Set(check_values(new.values, "payload"), new.replaces) for new in sets]
    except (ValueError, ConfigError) as exc:
        raise invalid(str(exc)[:300], "payload") from exc


def _signed_sets(payload: dict[str, Json], keys: Sequence[PublicKey]) -> list[_Set]:
    refuse_unknown(payload, frozenset({"rv_list", "files"}), "payload")
    items, files = payload.get("rv_list"), payload.get("files")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise ValueError(f"expected rv_list with 1 to {MAX_ITEMS} items")
    if not isinstance(files, dict):
        raise ValueError("expected files, an object")  # noqa: TRY004

    def read(path: str) -> bytes:
        if path not in files:
            raise ValueError(f"files has no {path[:80]!r}")
        return json.dumps(files[path]).encode()

    sets = []
    for index, item in enumerate(items):
        try:
            values = list_values({"rv_list": [item]}, read, keys, "payload")
        except ValueError as exc:
            raise ValueError(f"item {index} of rv_list: {exc}") from exc
        # It is an object with an operation: otherwise it had no values.
        replaces = isinstance(item, dict) and item.get("operation_type") == "refresh"
        sets.append(_Set(values, replaces))
    return sets


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
