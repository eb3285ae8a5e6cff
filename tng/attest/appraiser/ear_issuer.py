"""The signer of the builtin attestation service: tokens, and challenges.

What appraisal came to goes in, a token as Trustee's default broker gives it comes out
(`ear_token`); and challenges, which come back in runtime data.  The keys are made at the start and
never leave the process, so that a token or a challenge of an earlier process means nothing here.

Invariant: a challenge that `check_challenge` lets through was issued by this very object, at most
`CHALLENGE_LIFETIME_S` ago.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Final

import jwt
from cryptography import x509
from cryptography.x509.oid import NameOID

from tng.attest.ear_token import Submodule, sign_ear
from tng.attest.signer_identity import make_signer
from tng.errors import ErrorCode, UntrustedPeerError

CHALLENGE_LIFETIME_S: Final = 300
"""Seconds for which a challenge may be answered; the same as Trustee's."""

MAX_CHALLENGE: Final = 1024
"""Characters of a challenge; ours have about 200."""

_SECRET_OCTETS: Final = 32
_ALGORITHM: Final = "HS256"  # who issues a challenge is the only one who reads it


class EarIssuer:
    """Signs with keys that it makes itself.

    Args:
        now: Unix time, seconds.
    """

    def __init__(self, now: float) -> None:
        self._signer = make_signer(_name("tng builtin AS CA"), _name("tng builtin AS"), now)
        self._secret = secrets.token_bytes(_SECRET_OCTETS)

    @property
    def ca_certificate(self) -> x509.Certificate:
        """Issued the certificate in every token; the anchor to trust."""
        return self._signer.ca_certificate

    def token(self, devices: Sequence[Submodule], now: int, *, simulated: bool) -> str:
        """Sign what appraisal came to.

        Args:
            devices: at least one; names distinct.
            now: Unix time, seconds.
            simulated: no hardware stands behind the evidence; the verifier's name then says so.
        """
        return sign_ear(self._signer, devices, service="builtin AS", now=now, simulated=simulated)

    def challenge(self, now: int) -> str:
        """A fresh challenge, a JWT.

        Args:
            now: Unix time, seconds.
        """
        nonce = base64.b64encode(secrets.token_bytes(_SECRET_OCTETS)).decode("ascii")
        claims = {"nonce": nonce, "iat": now, "exp": now + CHALLENGE_LIFETIME_S}
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def check_challenge(self, token: str, now: int) -> None:
        """Accept a challenge of ours that is still fresh.

        Args:
            token: as it stands in the runtime data.
            now: Unix time, seconds.

        Raises:
            UntrustedPeerError: not ours, damaged, or out of its time (stale).
        """
        if len(token) > MAX_CHALLENGE:
            raise _stale(f"has {len(token)} characters, expected at most {MAX_CHALLENGE}")
        try:
            # Times are checked below, against the clock that everything else uses.
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
        except jwt.InvalidTokenError as exc:
            raise _stale(f"was not issued by this gateway since its start: {exc}") from exc
        issued, expires = claims["iat"], claims["exp"]
        if not issued <= now < expires:
            raise _stale(f"is out of its time: issued {issued}, expires {expires}, now {now}")


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _stale(problem: str) -> UntrustedPeerError:
    return UntrustedPeerError(f"challenge_token {problem}", code=ErrorCode.STALE)
