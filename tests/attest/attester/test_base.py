"""tng.attest.attester.base: evidence is complete, or refused."""

from __future__ import annotations

import pytest

from tng.attest.attester.base import TeeEvidence, make_evidence
from tng.errors import ErrorCode, EvidenceError


def test_no_additional_evidence_is_none() -> None:
    assert make_evidence("x", "tdx", b"{}", b"") == TeeEvidence("tdx", b"{}", None)
    assert make_evidence("x", "tdx", b"{}", b"{}") == TeeEvidence("tdx", b"{}", b"{}")


@pytest.mark.parametrize(("tee", "evidence"), [("TDX", b"{}"), ("", b"{}"), ("tdx", b"")])
def test_an_unknown_tee_and_empty_evidence_are_refused(tee: str, evidence: bytes) -> None:
    with pytest.raises(EvidenceError, match="the agent") as refused:
        make_evidence("the agent", tee, evidence, b"")
    assert refused.value.code is ErrorCode.EVIDENCE_UNAVAILABLE


def test_repr_shows_no_evidence() -> None:
    assert "secret" not in repr(TeeEvidence("tdx", b"secret", None))
