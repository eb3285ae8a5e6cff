"""What evidence for a key broker is bound to: the broker's nonce and the TEE's key.

    0.4.0   {"additional-evidence": text, "nonce": ..., "tee-pubkey": JWK}
    before  {"nonce": ..., "tee-pubkey": JWK}      and further devices in 0.4.0

The report data are the SHA-384 of the canonical JSON (RFC 8785) of that object.  Source: the key
broker's protocol, RCAR handshake, versions 0.1.0 to 0.4.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

VERSIONS: Final = ("0.1.0", "0.1.1", "0.2.0", "0.3.0", "0.4.0")
"""Versions of the handshake that are known here, oldest first."""

COMPOSITE: Final = "0.4.0"
"""The version from which evidence of several devices has a form of its own."""

TEE_KEY_CLAIM: Final = "tee-pubkey"
"""Name of the claim that holds the TEE's key; the same in requests and in tokens."""


def bound_claims(nonce: str, tee_key: Json, additional: str | None = None) -> dict[str, Json]:
    """The object whose hash the evidence carries.

    Args:
        nonce: as the broker sent it.
        tee_key: JWK, as it is sent to the broker.
        additional: evidence of further devices, as sent, for composite evidence's first device;
            None otherwise.
    """
    claims: dict[str, Json] = {"nonce": nonce, TEE_KEY_CLAIM: tee_key}
    if additional is not None:
        claims["additional-evidence"] = additional
    return claims
