"""Challenges: a nonce that this service signed, and the check that it comes back in time.

`POST /challenge` gives out a nonce and an RS384 JWT around it; a TEE puts the JWT into its
runtime data as `challenge_token`, and the service checks it before it looks at the evidence.
Format: the Trustee attestation service 1.6 to 1.9.  Nothing is stored: the signature remembers.

Invariant: a token that `check` lets through was signed by this key and is not older than
LIFETIME_S.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tng.errors import ErrorCode
from tng.trustee.problems import ProblemCode, TrusteeRequestError

LIFETIME_S: Final = 300
"""Seconds between `iat` and `exp`."""

KEY_BITS: Final = 2048
"""RSA modulus; RS384 is what clients know."""

_NONCE_OCTETS: Final = 32
_MAX_TOKEN: Final = 8192  # characters; one of ours has about 500
_CLOCK_SKEW_S: Final = 60  # another instance with the same key may run ahead
_ALGORITHM: Final = "RS384"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One nonce, ready to be sent.

    Attributes:
        nonce: 32 octets, base64.
        token: the JWT around it.
    """

    nonce: str
    token: str

    def dump(self) -> bytes:
        """The answer's body."""
        answer = {"extra-params": {"jwt": self.token}, "nonce": self.nonce}
        return json.dumps(answer, separators=(",", ":")).encode("ascii")


class Challenger:
    """Gives out challenges and knows them again.

    Args:
        key: RSA, 2048 bits; the same after a restart, so that tokens survive it.
    """

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key

    def issue(self, now: int) -> Challenge:
        """A fresh challenge.

        Args:
            now: Unix time, seconds.
        """
        nonce = base64.b64encode(secrets.token_bytes(_NONCE_OCTETS)).decode("ascii")
        claims = {"nonce": nonce, "iat": now, "exp": now + LIFETIME_S}
        return Challenge(nonce, jwt.encode(claims, self._key, algorithm=_ALGORITHM))

    def check(self, token: str, now: int) -> None:
        """Accept a token of ours that is still fresh.

        Args:
            token: value of the runtime data's member `challenge_token`.
            now: Unix time, seconds.

        Raises:
            TrusteeRequestError: not ours, damaged, or out of its time (401).
        """
        if len(token) > _MAX_TOKEN:
            raise _refused(f"has {len(token)} characters, expected at most {_MAX_TOKEN}")
        try:
            # Times are checked below, against the clock that everything else uses.
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=[_ALGORITHM],
                options={
                    "require": ["nonce", "iat", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.InvalidTokenError as exc:
            raise _refused(f"was not issued by this service: {exc}") from exc
        issued, expires = claims["iat"], claims["exp"]
        if not issued - _CLOCK_SKEW_S <= now < expires:
            raise _refused(
                f"is out of its time: issued {issued}, expires {expires}, now {now}",
                ErrorCode.STALE,
            )


def _refused(text: str, code: ErrorCode = ErrorCode.REQUEST_REJECTED) -> TrusteeRequestError:
    return TrusteeRequestError(
        f"challenge_token {text}; ask for a new one with POST /challenge",
        ProblemCode.INVALID_TOKEN,
        field="challenge_token",
        code=code,
    )
