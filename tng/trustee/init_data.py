"""Init data: what the host handed to a TEE at its start, as a request states it.

A request's `init_data` goes in; the digest that the TEE's configuration register must hold, and
the claims for the token, come out.  List form: `init_data_digest` or `init_data_toml` (Trustee
1.6 and later); flat form: `raw` or `structured` (1.5.2).

Invariant: the digest has at most 48 octets, the width of TDX MRCONFIGID, so that all of it is
compared.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Final

from tng.attest.binding import canonical_json
from tng.attest.strict_json import Json
from tng.errors import TngError
from tng.trustee.base64url import parse_base64url
from tng.trustee.hashing import checked_hash_name, digest
from tng.trustee.json_body import invalid, join, json_type, refuse_unknown, text_member

MAX_DIGEST: Final = 48
"""Octets of MRCONFIGID."""

MAX_TOML: Final = 262_144
"""Characters of init data; the parser is written in Python, and agents send a few kilobytes."""


@dataclass(frozen=True, slots=True)
class InitData:
    """What the TEE must have been started with.

    Attributes:
        digest: 1 to 48 octets; the register holds it padded with zeros.
        claims: the data themselves, for the token; None if only the digest is known.
    """

    digest: bytes
    claims: Json


def parse_init_data(value: Json, where: str) -> InitData | None:
    """Init data of the list form.

    Args:
        value: member `init_data`; None means no expectation.
        where: its path.

    Raises:
        TrusteeRequestError: not init data, or wider than the register (400).
    """
    if value is None:
        return None
    members = _one_member(value, frozenset({"init_data_digest", "init_data_toml"}), where)
    if "init_data_digest" in members:
        field = join(where, "init_data_digest")
        text = text_member(members, "init_data_digest", where)
        return InitData(_fitting(parse_base64url(text, field), field), None)
    return _parse_toml(text_member(members, "init_data_toml", where), join(where, "init_data_toml"))


def parse_init_data_flat(value: Json, algorithm: str) -> InitData | None:
    """Init data of the flat form.

    Args:
        value: member `init_data`; None means no expectation.
        algorithm: hashes structured data.

    Raises:
        TrusteeRequestError: not init data, or wider than the register (400).
        RemoteProtocolError: structured data without a canonical form.
    """
    if value is None:
        return None
    members = _one_member(value, frozenset({"raw", "structured"}), "init_data")
    if "raw" in members:
        raw = parse_base64url(text_member(members, "raw", "init_data"), "init_data.raw")
        return InitData(_fitting(raw, "init_data.raw"), None)
    claims = members["structured"]
    if not isinstance(claims, dict):
        raise invalid(f"expected an object, got {json_type(claims)}", "init_data.structured")
    return InitData(
        _fitting(digest(algorithm, canonical_json(claims)), "init_data.structured"), claims
    )


def _one_member(value: Json, known: frozenset[str], where: str) -> dict[str, Json]:
    if not isinstance(value, dict) or len(value) != 1:
        raise invalid(f"expected null, or an object with one of {', '.join(sorted(known))}", where)
    refuse_unknown(value, known, where)
    return value


def _parse_toml(text: str, field: str) -> InitData:
    if len(text) > MAX_TOML:
        raise invalid(f"more than {MAX_TOML} characters", field)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        raise invalid("not TOML", field) from exc
    if "version" not in document or not isinstance(document.get("data"), dict):
        raise invalid("expected the keys algorithm, version and a table [data]", field)
    algorithm = checked_hash_name(document.get("algorithm"), join(field, "algorithm"))
    claims = document["data"]
    try:
        canonical_json(claims)
    except TngError as exc:
        # Dates, for one, are TOML but not JSON: a token could not carry them.
        raise invalid("[data] holds a value that JSON has not", field) from exc
    return InitData(_fitting(digest(algorithm, text.encode()), field), claims)


def _fitting(data: bytes, field: str) -> bytes:
    # Stricter on purpose: what does not fit the register would be compared in part only.
    if not 1 <= len(data) <= MAX_DIGEST:
        raise invalid(f"expected a digest of 1 to {MAX_DIGEST} octets, got {len(data)}", field)
    return data
