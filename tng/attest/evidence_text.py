"""Evidence as attestation agents write it: one JSON object, octets in it as base64.

Octets in; members, and the octets in them, out.  Whose evidence it is, and which members it must
have, is for the caller.

Invariant: nothing beyond `MAX_EVIDENCE_OCTETS` is parsed, and what cannot be read is refused as
evidence_malformed.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

from tng.attest.strict_json import Json, parse_object
from tng.errors import ErrorCode, UntrustedPeerError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EVIDENCE_OCTETS: Final = 4 * 1024 * 1024
"""The largest message of an attestation agent's ttrpc."""


def malformed(message: str) -> UntrustedPeerError:
    """The error of evidence that cannot be read."""
    return UntrustedPeerError(message, code=ErrorCode.EVIDENCE_MALFORMED)


def evidence_members(evidence: bytes, what: str) -> dict[str, Json]:
    """The members of evidence.

    Args:
        evidence: JSON text.
        what: how people call it, for the message.

    Raises:
        UntrustedPeerError: too long, or no JSON object.
    """
    if len(evidence) > MAX_EVIDENCE_OCTETS:
        raise malformed(f"{what} has at most {MAX_EVIDENCE_OCTETS} octets, got {len(evidence)}")
    try:
        return parse_object(evidence)
    except ValueError as exc:
        raise malformed(f"{what} is not a JSON object: {str(exc)[:200]}") from exc


def member_octets(members: Mapping[str, Json], name: str, what: str) -> bytes:
    """The octets of a member, which is base64.

    Raises:
        UntrustedPeerError: it is absent, or no base64.
    """
    text = members.get(name)
    if not isinstance(text, str):
        raise malformed(f"{what} needs the text member {name!r}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise malformed(f"member {name!r} of {what} is not base64") from exc
