"""What a side says of itself over OHTTP: the claims that evidence or a token is bound to.

An HPKE key (a server's key configuration, a client's public key) and perhaps a challenge in,
claims out, and back from a peer's runtime data:

    server   {"challenge_token": jwt, "hpke_key_config": {"encoded_key_config_list": base64,
              "expire_timestamp": seconds}}
    client   {"challenge_token": jwt, "pk_s": base64 of 32 octets}
    runtime  = canonical JSON of the claims (RFC 8785); report data = SHA-384(runtime)

Source: TNG 2.12.0, over OHTTP; the hash and the canonical form are those of `attest.binding`.

Invariant: a value of either class has claims that name exactly one HPKE key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from tng.attest.appraiser.trustee_messages import MAX_CHALLENGE
from tng.attest.base64_text import decode_standard, dump_standard
from tng.attest.evidence import runtime_data_of
from tng.attest.strict_json import parse_object
from tng.attest.token import MAX_NUMERIC_DATE
from tng.errors import ErrorCode, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.evidence import Evidence
    from tng.attest.strict_json import Json

CHALLENGE_CLAIM: Final = "challenge_token"
"""Name of the claim with the challenge that the evidence answers."""
SERVER_CLAIM: Final = "hpke_key_config"
"""Name of the claim with a server's key configuration."""
CLIENT_CLAIM: Final = "pk_s"
"""Name of the claim with a client's public key."""

PUBLIC_KEY_SIZE: Final = 32
"""Octets of an X25519 public key."""
MAX_KEY_CONFIG_LIST: Final = 4 * 1024
"""Characters of an encoded list of key configurations; one with two suites has 64."""

_LIST: Final = "encoded_key_config_list"
_EXPIRY: Final = "expire_timestamp"
_MAX_KEY_TEXT: Final = 64  # characters; base64 of a key has 44


@dataclass(frozen=True, slots=True)
class ServerUserData:
    """What a server's evidence is about.

    Attributes:
        encoded_key_config_list: base64 of the list (RFC 9458 section 3.2), as it is on the wire.
        expire_timestamp: Unix time at which the key expires, seconds.
        challenge_token: what the evidence answers; None in a passport's expectations.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) a list that is no base64 or too long, a time out
            of bounds, a challenge that no service gives.
    """

    encoded_key_config_list: str
    expire_timestamp: int
    challenge_token: str | None = None

    def __post_init__(self) -> None:
        _check_list(self.encoded_key_config_list)
        _check_expiry(self.expire_timestamp)
        _check_challenge(self.challenge_token)

    @property
    def key_config(self) -> dict[str, Json]:
        """Value of the claim, and of `hpke_key_config` in a control message."""
        return {_LIST: self.encoded_key_config_list, _EXPIRY: self.expire_timestamp}

    @property
    def key_claims(self) -> dict[str, Json]:
        """The claims that name the key."""
        return {SERVER_CLAIM: self.key_config}

    @property
    def key_digest(self) -> str:
        """SHA-256 of the decoded list, lower-case hex; the peer's name in a verdict."""
        return hashlib.sha256(decode_standard(self.encoded_key_config_list)).hexdigest()


@dataclass(frozen=True, slots=True)
class ClientUserData:
    """What a client's evidence is about.

    Attributes:
        public_key: X25519, 32 octets; the sender's key of HPKE's Auth mode (RFC 9180).
        challenge_token: what the evidence answers; None in expectations of a token.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) a key of another length, or a challenge that no
            service gives.
    """

    public_key: bytes
    challenge_token: str | None = None

    def __post_init__(self) -> None:
        if len(self.public_key) != PUBLIC_KEY_SIZE:
            _refuse(f"public key has {len(self.public_key)} octets, expected {PUBLIC_KEY_SIZE}")
        _check_challenge(self.challenge_token)

    @property
    def key_claims(self) -> dict[str, Json]:
        """The claims that name the key."""
        return {CLIENT_CLAIM: dump_standard(self.public_key)}

    @property
    def key_digest(self) -> str:
        """SHA-256 of the key, lower-case hex; the peer's name in a verdict."""
        return hashlib.sha256(self.public_key).hexdigest()


UserData: TypeAlias = ServerUserData | ClientUserData


def claims_of(user_data: UserData) -> dict[str, Json]:
    """All claims, the challenge included if there is one."""
    if user_data.challenge_token is None:
        return user_data.key_claims
    return {CHALLENGE_CLAIM: user_data.challenge_token, **user_data.key_claims}


def with_challenge(user_data: UserData, challenge_token: str) -> UserData:
    """The same key, and the challenge that evidence about it has to answer.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) no challenge, or one that is too long.
    """
    return replace(user_data, challenge_token=challenge_token)


def parse_key_config(value: Json) -> ServerUserData:
    """What a server's key configuration says, without a challenge.

    Args:
        value: the object `hpke_key_config` of a control message; unknown members are passed over.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) no such object.
    """
    if not isinstance(value, dict):
        _refuse(f"{SERVER_CLAIM} is {_kind(value)}, expected an object")
    encoded, expiry = value.get(_LIST), value.get(_EXPIRY)
    if not isinstance(encoded, str):
        _refuse(f"{_LIST} is {_kind(encoded)}, expected text")
    if isinstance(expiry, bool) or not isinstance(expiry, int):
        _refuse(f"{_EXPIRY} is {_kind(expiry)}, expected a whole number of seconds")
    return ServerUserData(encoded, expiry)


def parse_user_data(claims: Mapping[str, Json]) -> UserData:
    """What the claims in a peer's runtime data are about; unknown claims are passed over.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) no key, two of them, or a member of another form.
    """
    if (SERVER_CLAIM in claims) == (CLIENT_CLAIM in claims):
        _refuse(f"runtime data names both or neither of {SERVER_CLAIM!r} and {CLIENT_CLAIM!r}")
    challenge = claims.get(CHALLENGE_CLAIM)
    if challenge is not None and not isinstance(challenge, str):
        _refuse(f"{CHALLENGE_CLAIM} is {_kind(challenge)}, expected text")
    if SERVER_CLAIM in claims:
        return replace(parse_key_config(claims[SERVER_CLAIM]), challenge_token=challenge)
    return ClientUserData(_public_key(claims[CLIENT_CLAIM]), challenge)


def read_user_data(evidence: Evidence) -> UserData:
    """What a peer's evidence says it is about; nothing is proved by that.

    Raises:
        RemoteProtocolError: (EVIDENCE_MALFORMED) as `parse_user_data`, or not a JSON object.
    """
    try:
        claims = parse_object(runtime_data_of(evidence))
    except ValueError as exc:
        _refuse(f"runtime data is not a JSON object: {exc}", exc)
    return parse_user_data(claims)


def _public_key(value: Json) -> bytes:
    if not isinstance(value, str) or len(value) > _MAX_KEY_TEXT:
        _refuse(f"{CLIENT_CLAIM} is {_kind(value)}, expected base64 of {PUBLIC_KEY_SIZE} octets")
    try:
        return decode_standard(value)
    except ValueError as exc:
        _refuse(f"{CLIENT_CLAIM} is {exc}", exc)


def _check_list(encoded: str) -> None:
    if not 0 < len(encoded) <= MAX_KEY_CONFIG_LIST:
        _refuse(f"{_LIST} has {len(encoded)} characters, expected 1 to {MAX_KEY_CONFIG_LIST}")
    try:
        decode_standard(encoded)
    except ValueError as exc:
        _refuse(f"{_LIST} is {exc}", exc)


def _check_expiry(expiry: int) -> None:
    if not 0 <= expiry <= MAX_NUMERIC_DATE:
        _refuse(f"{_EXPIRY} is no date of the years 1970 to 9999")


def _check_challenge(challenge: str | None) -> None:
    if challenge is None or (
        0 < len(challenge) <= MAX_CHALLENGE and challenge.isascii() and challenge.isprintable()
    ):
        return
    _refuse(
        f"{CHALLENGE_CLAIM} has {len(challenge)} characters, expected 1 to {MAX_CHALLENGE} that "
        "are printable ASCII"
    )


def _kind(value: object) -> str:
    return "absent or null" if value is None else f"of type {type(value).__name__}"


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    raise RemoteProtocolError(message, code=ErrorCode.EVIDENCE_MALFORMED) from cause
