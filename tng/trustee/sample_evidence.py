"""Evidence of the `sample` TEE, which anybody can make: for tests of everything around a TEE.

A request goes in, claims come out.  `attest.sample` judges.  Served only when the operator asks for
it.  Invariant: nothing but the binding of this evidence means anything.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tng.attest.sample import judge_sample
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.appraised import AppraisedEvidence

if TYPE_CHECKING:
    from tng.trustee.dialects import VerificationRequest


class SampleVerifier:
    """Takes sample evidence at its word."""

    async def verify(self, request: VerificationRequest) -> tuple[AppraisedEvidence, ...]:
        """See `TeeVerifier`."""
        if request.init_data is not None:
            raise UntrustedPeerError(
                "sample evidence carries no init data, but the request expects some",
                code=ErrorCode.EVIDENCE_MALFORMED,
            )
        # In a thread: an event log may have four million octets.
        claims = await asyncio.to_thread(
            judge_sample, request.evidence, expected_report_data=request.report_data
        )
        return (AppraisedEvidence(claims, checks=(), simulated=False),)
