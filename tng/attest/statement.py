"""What a peer shows over OHTTP, together with what it has to be about.

There is no certificate there: evidence or a token comes in a control message or in a request, and
the key that it must name stands beside it.  Evidence or token and user data in, a `Statement` for
`attest.verifier` out.  Source: TNG 2.12.0, over OHTTP; what is expected of which:

    evidence of either side      challenge and key
    token of a server, a client  the key alone: the challenge was somebody else's

Invariant: what is expected of a statement always names the key.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.evidence import Shown, Token
from tng.attest.user_data import ClientUserData, UserData, claims_of
from tng.wire.ita_evidence import ItaEvidence, dump_ita_evidence

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

MAX_TOKEN_AGE_S: Final = 24 * 3600.0
"""Seconds since a token was issued.  It answers no challenge of ours, and without a certificate
nothing else ends it but its own expiry, which its service may set years ahead."""

_DOMAIN: Final = b"tng statement 1\0"  # keeps these fingerprints apart from those of certificates


@dataclass(frozen=True, slots=True, repr=False)
class Statement:
    """Something unjudged that a peer showed.

    Attributes:
        shown: evidence or a token.
        about: the key that it has to name, and for evidence the challenge that it has to answer.
    """

    shown: Shown
    about: UserData

    def __repr__(self) -> str:
        return f"Statement({self.shown!r}, key={self.about.key_digest[:16]})"

    @property
    def model(self) -> str:
        """The model in which the peer attests: "background_check" or "passport"."""
        return "passport" if isinstance(self.shown, Token) else "background_check"

    @property
    def is_clients(self) -> bool:
        """Whether a client shows it to a server."""
        return isinstance(self.about, ClientUserData)

    @property
    def expected_claims(self) -> dict[str, Json]:
        """What the appraised runtime data must have: at least these, with these values."""
        is_token = isinstance(self.shown, Token)
        return self.about.key_claims if is_token else claims_of(self.about)

    def fingerprint(self) -> bytes:
        """SHA-256 over all of what is shown and what is expected, 32 octets."""
        digest = hashlib.sha256(_DOMAIN)
        for part in (*_parts(self.shown), json.dumps(claims_of(self.about)).encode()):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()


def _parts(shown: Shown) -> tuple[bytes, ...]:
    """The members of what is shown; the number of them and the first tell its kind."""
    if isinstance(shown, Token):
        return (b"token", _octets(shown.provider), _octets(shown.text))
    if isinstance(shown, ItaEvidence):
        return (b"ita", dump_ita_evidence(shown))
    additional = shown.aa_additional_evidence
    return (
        _octets(shown.tee_type),
        shown.aa_evidence,
        b"" if additional is None else b"\1" + additional,
        _octets(shown.aa_runtime_data),
        shown.hash_algorithm.name.encode(),
    )


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
