"""What crosses between a supervisor and its workers for OHTTP, as JSON.

Statements, evidence, passports, HPKE keys; user data go as their claims (`attest.user_data`).
`dump_x` and `parse_x` are inverse, as in `workers.messages`.  Text that a peer chose goes as
octets, so that whatever it holds, the frame around it can be read.

Invariants: a private key appears in the message that carries it and nowhere else, no message here
is ever logged; a key that comes out has the public key that belongs to it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.attest.evidence import COCO, PROVIDERS, Evidence, Token, make_token
from tng.attest.ita_json import dump_ita_object, parse_ita_object
from tng.attest.statement import Statement
from tng.attest.statement_source import Passport
from tng.attest.strict_json import parse_json
from tng.attest.user_data import claims_of, parse_user_data
from tng.errors import RemoteProtocolError
from tng.gateway.workers.messages import dump_octets, member, number, octets
from tng.tunnel.ohttp.keyring import MAX_KEYS, Key, Keyring
from tng.wire.dice import CocoEvidence, HashAlgorithm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json

Fields = dict[str, "Json"]

_TEXT = "utf-8", "surrogatepass"


def dump_statement(statement: Statement) -> Fields:
    """What a peer showed, and what it has to be about."""
    shown = statement.shown
    fields: Fields = {"about": claims_of(statement.about)}
    if isinstance(shown, Token):
        fields["token"] = dump_octets(shown.text.encode(*_TEXT))
        fields["provider"] = shown.provider
    else:
        fields["evidence"] = dump_evidence(shown)
    return fields


def parse_statement(fields: Mapping[str, Json]) -> Statement:
    """The statement that `dump_statement` was given.

    Raises:
        RemoteProtocolError: not such fields.
    """
    about = parse_user_data(member(fields, "about", dict))
    if "token" in fields:
        return Statement(make_token(_text(fields, "token"), _provider(fields)), about)
    return Statement(parse_evidence(member(fields, "evidence", dict)), about)


def dump_evidence(evidence: Evidence) -> Fields:
    """Evidence; it may be a peer's that is not judged yet."""
    if not isinstance(evidence, CocoEvidence):
        return {"ita": dump_octets(json.dumps(dump_ita_object(evidence)).encode())}
    additional = evidence.aa_additional_evidence
    return {
        "tee": dump_octets(evidence.tee_type.encode(*_TEXT)),
        "evidence": dump_octets(evidence.aa_evidence),
        "additional": None if additional is None else dump_octets(additional),
        "runtime_data": dump_octets(evidence.aa_runtime_data.encode(*_TEXT)),
        "hash": int(evidence.hash_algorithm),
    }


def parse_evidence(fields: Mapping[str, Json]) -> Evidence:
    """The evidence that `dump_evidence` was given.

    Raises:
        RemoteProtocolError: not such fields.
    """
    if "ita" in fields:
        try:
            return parse_ita_object(parse_json(octets(fields, "ita")))
        except ValueError as exc:
            raise _unfit("evidence that is no JSON") from exc
    try:
        algorithm = HashAlgorithm(member(fields, "hash", int))
    except ValueError as exc:
        raise _unfit("evidence with an unknown hash algorithm") from exc
    return CocoEvidence(
        _text(fields, "tee"),
        octets(fields, "evidence"),
        None if fields.get("additional") is None else octets(fields, "additional"),
        _text(fields, "runtime_data"),
        algorithm,
    )


def dump_passport(passport: Passport) -> Fields:
    """A token about one of our keys."""
    return {
        "token": dump_octets(passport.token.encode()),
        "expires_at": passport.expires_at,
        "provider": passport.provider,
    }


def parse_passport(fields: Mapping[str, Json]) -> Passport:
    """The passport that `dump_passport` was given.

    Raises:
        RemoteProtocolError: not such fields.
    """
    return Passport(_text(fields, "token"), number(fields, "expires_at"), _provider(fields))


def dump_keyring(keyring: Keyring) -> list[Json]:
    """HPKE keys with their private halves: for the stream to a worker, and nothing else."""
    return [
        {
            "id": key.key_id,
            "private": dump_octets(key.private.private_bytes_raw()),
            "actived_at": key.actived_at,
            "stale_at": key.stale_at,
            "expire_at": key.expire_at,
        }
        for key in keyring
    ]


def parse_keyring(keys: list[Json]) -> Keyring:
    """The keys that `dump_keyring` was given.

    Raises:
        RemoteProtocolError: not such keys, or more of them than a ring holds.
    """
    if len(keys) > MAX_KEYS:
        raise _unfit(f"{len(keys)} keys, a ring holds {MAX_KEYS}")
    return Keyring(_parse_key(key) for key in keys)


def _parse_key(fields: Json) -> Key:
    if not isinstance(fields, dict):
        raise _unfit("key that is no object")
    key_id = member(fields, "id", int)
    if not 0 <= key_id <= 0xFF:
        raise _unfit("key whose id is no octet")
    try:
        private = X25519PrivateKey.from_private_bytes(octets(fields, "private"))
    except ValueError:
        raise _unfit("key that cannot be read") from None  # whose words may show the key
    return Key(
        key_id,
        private,
        private.public_key().public_bytes_raw(),
        number(fields, "actived_at"),
        number(fields, "stale_at"),
        number(fields, "expire_at"),
    )


def _provider(fields: Mapping[str, Json]) -> str:
    provider = fields.get("provider", COCO)
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise _unfit("unknown provider")
    return provider


def _text(fields: Mapping[str, Json], name: str) -> str:
    try:
        return octets(fields, name).decode(*_TEXT)
    except UnicodeDecodeError as exc:
        raise _unfit(f"{name!r} that is no text") from exc


def _unfit(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"message between processes of this gateway: {what}")
