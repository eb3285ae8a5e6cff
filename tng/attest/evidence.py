"""What a peer shows of itself, as a type of its own per kind and per provider.

Extension value of a certificate in, evidence or a token out, and back.  The tag inside the
extension decides which of the four kinds it is: evidence or a token, for Trustee ("coco") or for
Intel Trust Authority ("ita").

Invariant: nothing here is judged yet; `attest.verifier` does that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

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
from tng.wire.ita_evidence import ItaEvidence, dump_ita_evidence, parse_ita_evidence

COCO: Final = "coco"
"""The provider Trustee; meant where none is named."""
ITA: Final = "ita"
"""The provider Intel Trust Authority."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """An unjudged token of an attestation service (model passport).

    Attributes:
        text: the JWT.  Never logged.
    """

    text: str
    provider: ClassVar[str]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.text)} octets>)"


@dataclass(frozen=True, slots=True, repr=False)
class CocoToken(Token):
    """An unjudged token of a CoCo attestation service."""

    provider: ClassVar[str] = COCO


@dataclass(frozen=True, slots=True, repr=False)
class ItaToken(Token):
    """An unjudged token of Intel Trust Authority."""

    provider: ClassVar[str] = ITA


Evidence: TypeAlias = CocoEvidence | ItaEvidence
"""Unjudged evidence, for the attestation service of one provider."""
Shown: TypeAlias = Evidence | Token
"""What a peer shows."""

_TOKENS: Final[dict[str, type[Token]]] = {COCO: CocoToken, ITA: ItaToken}
_TOKEN_OF_TAG: Final = {TAG_COCO_TOKEN: COCO, TAG_ITA_TOKEN: ITA}
_TAG_OF_TOKEN: Final = {COCO: TAG_COCO_TOKEN, ITA: TAG_ITA_TOKEN}

PROVIDERS: Final = frozenset(_TOKENS)
"""Names of the providers."""


def make_token(text: str, provider: str) -> Token:
    """The token as one of this provider, one of `PROVIDERS`."""
    return _TOKENS[provider](text)


def provider_of(shown: Shown) -> str:
    """Whose service judges, or has judged, what is shown."""
    if isinstance(shown, Token):
        return shown.provider
    return ITA if isinstance(shown, ItaEvidence) else COCO


def runtime_data_of(evidence: Evidence) -> bytes:
    """The JSON text of the claims that the evidence says it is about; may be malformed."""
    if isinstance(evidence, ItaEvidence):
        return evidence.runtime_data
    return evidence.aa_runtime_data.encode("utf-8", "surrogatepass")


def parse_evidence(extension: bytes) -> Shown:
    """Take a peer's evidence extension apart.

    Args:
        extension: value of the extension, `PeerCertificate.extension`.

    Raises:
        UntrustedPeerError: EVIDENCE_MALFORMED; not such an extension, or of an unknown provider.
    """
    try:
        dice = parse_dice(extension)
        if dice.tag == TAG_COCO_EVIDENCE:
            return parse_coco_evidence(dice.payload)
        if dice.tag == TAG_ITA_EVIDENCE:
            return parse_ita_evidence(dice.payload)
    except RemoteProtocolError as exc:
        raise UntrustedPeerError(str(exc), code=ErrorCode.EVIDENCE_MALFORMED) from exc
    if dice.tag in _TOKEN_OF_TAG:
        return make_token(_token_text(dice.payload), _TOKEN_OF_TAG[dice.tag])
    raise UntrustedPeerError(
        f"evidence extension has tag {dice.tag:#x} (unknown), expected "
        f"{TAG_COCO_EVIDENCE:#x} (CoCo evidence), {TAG_COCO_TOKEN:#x} (CoCo token), "
        f"{TAG_ITA_EVIDENCE:#x} or {TAG_ITA_TOKEN:#x} (the same of Intel Trust Authority)",
        code=ErrorCode.EVIDENCE_MALFORMED,
    )


def dump_evidence(shown: Shown) -> bytes:
    """The extension value that carries the evidence or the token.

    Raises:
        LocalProtocolError: a token that is not ASCII.
    """
    if isinstance(shown, CocoEvidence):
        return dump_dice(DiceEvidence(TAG_COCO_EVIDENCE, dump_coco_evidence(shown)))
    if isinstance(shown, ItaEvidence):
        return dump_dice(DiceEvidence(TAG_ITA_EVIDENCE, dump_ita_evidence(shown)))
    if not shown.text.isascii():
        raise LocalProtocolError("a token with characters beyond ASCII is no JWT")
    return dump_dice(DiceEvidence(_TAG_OF_TOKEN[shown.provider], shown.text.encode("ascii")))


def _token_text(payload: bytes) -> str:
    if len(payload) > MAX_TOKEN or not payload.isascii():
        raise UntrustedPeerError(
            f"token of {len(payload)} octets in the evidence extension is longer than {MAX_TOKEN} "
            "or not ASCII",
            code=ErrorCode.EVIDENCE_MALFORMED,
        )
    return payload.decode("ascii")
