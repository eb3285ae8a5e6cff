"""tng.attest.evidence: which kind of evidence a certificate carries."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence import (
    MAX_TOKEN,
    CocoToken,
    ItaToken,
    Shown,
    dump_evidence,
    parse_evidence,
)
from tng.errors import ErrorCode, LocalProtocolError, UntrustedPeerError
from tng.wire.dice import (
    TAG_COCO_EVIDENCE,
    TAG_COCO_TOKEN,
    TAG_ITA_EVIDENCE,
    TAG_ITA_TOKEN,
    CocoEvidence,
    DiceEvidence,
    dump_dice,
)
from tng.wire.ita_evidence import ItaEvidence

EVIDENCE = CocoEvidence("sample", b"{}", None, "{}")


@pytest.mark.parametrize(
    "evidence", [EVIDENCE, CocoToken("a.b.c"), ItaEvidence(b"q", b"{}"), ItaToken("a.b.c")]
)
def test_evidence_and_token_survive_the_round_trip(evidence: Shown) -> None:
    assert parse_evidence(dump_evidence(evidence)) == evidence


@pytest.mark.parametrize(
    ("extension", "word"),
    [
        (b"", "definite"),
        (dump_dice(DiceEvidence(TAG_COCO_EVIDENCE, b"\xf6")), "map"),
        (dump_dice(DiceEvidence(TAG_ITA_EVIDENCE, b"\xa0")), "tdx_quote"),
        (dump_dice(DiceEvidence(TAG_ITA_TOKEN, b"\xff.b.c")), "ASCII"),
        (dump_dice(DiceEvidence(0xC0C002, b"a.b.c")), "unknown"),
        (dump_dice(DiceEvidence(TAG_COCO_TOKEN, b"\xff.b.c")), "ASCII"),
        (dump_dice(DiceEvidence(TAG_COCO_TOKEN, b"a" * (MAX_TOKEN + 1))), "longer"),
    ],
)
def test_other_extensions_are_refused_as_malformed(extension: bytes, word: str) -> None:
    with pytest.raises(UntrustedPeerError, match=word) as refused:
        parse_evidence(extension)
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_token_beyond_ascii_is_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        dump_evidence(CocoToken("é.b.c"))


def test_repr_shows_no_token() -> None:
    assert "secret" not in repr(CocoToken("secret"))


@given(st.binary(max_size=100), st.sampled_from([TAG_COCO_EVIDENCE, TAG_COCO_TOKEN, 0xC0C009]))
def test_garbage_gives_untrusted_peer_errors_only(payload: bytes, tag: int) -> None:
    for extension in (payload, dump_dice(DiceEvidence(tag, payload))):
        with contextlib.suppress(UntrustedPeerError):
            parse_evidence(extension)
