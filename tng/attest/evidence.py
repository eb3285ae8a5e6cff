"""What a certificate's evidence extension holds, as a type of its own per kind.

Extension value in, `CocoEvidence` or `CocoToken` out, and back.  The tag inside the extension
decides which; other providers' tags are refused by name.

Invariant: nothing here is judged yet; `attest.verifier` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tng.attest.jws import MAX_TOKEN
from tng.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, UntrustedPeerError
from tng.wire.dice import (
    TAG_COCO_EVIDENCE,
    TAG_COCO_TOKEN,
    TAG_ITA_EVIDENCE,
    TAG_ITA_TOKEN,
    CocoEvidence,
    DiceEvidence,
    dump_coco_evidence,
    dump_dice,
    parse_coco_evidence,
    parse_dice,
)

_OTHER_TAGS: Final = {
    TAG_ITA_EVIDENCE: "evidence for Intel Trust Authority",
    TAG_ITA_TOKEN: "a token of Intel Trust Authority",
}


@dataclass(frozen=True, slots=True, repr=False)
class CocoToken:
    """An unjudged token of a CoCo attestation service (model passport).

    Attributes:
        text: the JWT.  Never logged.
    """

    text: str

    def __repr__(self) -> str:
        return f"CocoToken(<{len(self.text)} octets>)"


def parse_evidence(extension: bytes) -> CocoEvidence | CocoToken:
    """Take a peer's evidence extension apart.

    Args:
        extension: value of the extension, `PeerCertificate.extension`.

    Raises:
        UntrustedPeerError: EVIDENCE_MALFORMED; not such an extension, or of a provider that is
            not served here.
    """
    try:
        dice = parse_dice(extension)
        if dice.tag == TAG_COCO_EVIDENCE:
            return parse_coco_evidence(dice.payload)
    except RemoteProtocolError as exc:
        raise UntrustedPeerError(str(exc), code=ErrorCode.EVIDENCE_MALFORMED) from exc
    if dice.tag == TAG_COCO_TOKEN:
        return CocoToken(_token_text(dice.payload))
    seen = _OTHER_TAGS.get(dice.tag, "unknown")
    raise UntrustedPeerError(
        f"evidence extension has tag {dice.tag:#x} ({seen}), expected "
        f"{TAG_COCO_EVIDENCE:#x} (CoCo evidence) or {TAG_COCO_TOKEN:#x} (CoCo token)",
        code=ErrorCode.EVIDENCE_MALFORMED,
    )


def dump_evidence(evidence: CocoEvidence | CocoToken) -> bytes:
    """The extension value that carries the evidence or the token.

    Raises:
        LocalProtocolError: a token that is not ASCII.
    """
    if isinstance(evidence, CocoEvidence):
        return dump_dice(DiceEvidence(TAG_COCO_EVIDENCE, dump_coco_evidence(evidence)))
    if not evidence.text.isascii():
        raise LocalProtocolError("a token with characters beyond ASCII is no JWT")
    return dump_dice(DiceEvidence(TAG_COCO_TOKEN, evidence.text.encode("ascii")))


def _token_text(payload: bytes) -> str:
    if len(payload) > MAX_TOKEN or not payload.isascii():
        raise UntrustedPeerError(
            f"token of {len(payload)} octets in the evidence extension is longer than {MAX_TOKEN} "
            "or not ASCII",
            code=ErrorCode.EVIDENCE_MALFORMED,
        )
    return payload.decode("ascii")
