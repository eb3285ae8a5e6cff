"""Evidence of TDX: which root it must lead to, and what the judgement becomes in a token.

Evidence goes in, annotated claims come out.  `attest.tdx.appraisal` judges; this file chooses
the root and the collateral.  Evidence whose certificates call themselves simulated is judged
under the root of the one simulated platform that the operator named, and never otherwise; all
other evidence is judged under Intel's root.  The name only chooses the root: under either, the
whole chain is verified.

Invariant: claims of evidence that was judged under the simulated root carry
`"simulated_platform": true`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tng.attest.tdx.appraisal import (
    CHECK_NAMES,
    TdxAppraisal,
    TdxRefused,
    judge_tdx,
    parse_tdx_evidence,
)
from tng.attest.tdx.certificates import PckCertificate, pck_certificate
from tng.attest.tdx.quote import Quote, parse_quote
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.appraised import AppraisedEvidence
from tng.verdict import Check, Outcome

if TYPE_CHECKING:
    from tng.attest.tdx.collateral import Collateral
    from tng.attest.tdx.simulator.platform import SimulatedPlatform
    from tng.clock import Clock
    from tng.trustee.collateral import CollateralSource
    from tng.trustee.dialects import VerificationRequest

_EVIDENCE_FORMAT, _QUOTE_FORMAT, _SIGNATURE = 1, 2, 3  # numbers of judge_tdx's checks

_MAX_JUDGING: Final = 4
"""Judgements at once: each is a few milliseconds of CPU outside the event loop."""


class TdxVerifier:
    """Judges TDX evidence.

    Args:
        collateral: of real platforms.
        platform: the simulated platform that is trusted beside Intel; None for none.
        allowed_tcb_status: accepted TCB statuses.
        clock: the time at which evidence must hold.
    """

    def __init__(
        self,
        collateral: CollateralSource,
        platform: SimulatedPlatform | None,
        allowed_tcb_status: frozenset[str],
        clock: Clock,
    ) -> None:
        self._collateral = collateral
        self._platform = platform
        self._allowed_tcb_status = allowed_tcb_status
        self._clock = clock
        self._judging = asyncio.Semaphore(_MAX_JUDGING)

    async def verify(self, request: VerificationRequest) -> tuple[AppraisedEvidence, ...]:
        """See `TeeVerifier`."""
        quote, certificate = _read(request.evidence)
        if not certificate.says_simulated:
            collateral = await self._collateral.collateral_for(quote)
            appraisal = await self._judge(request, collateral, None)
            return (_appraised(appraisal),)
        if self._platform is None:
            raise _refused(
                _SIGNATURE,
                "the quote comes from a TDX platform in software; expected one of Intel's"
                " (a service started with --allow-simulated would judge it)",
                ErrorCode.SIMULATED_EVIDENCE,
            )
        collateral = self._platform.collateral(int(self._clock.now()))
        appraisal = await self._judge(request, collateral, self._platform.root_der)
        return (_appraised(appraisal),)

    async def _judge(
        self, request: VerificationRequest, collateral: Collateral, root_ca_der: bytes | None
    ) -> TdxAppraisal:
        async with self._judging:
            return await asyncio.to_thread(
                judge_tdx,
                request.evidence,
                expected_report_data=request.report_data,
                collateral=collateral,
                now=int(self._clock.now()),
                root_ca_der=root_ca_der,
                allowed_tcb_status=self._allowed_tcb_status,
                init_data_digest=request.init_data.digest if request.init_data else None,
            )


def _appraised(appraisal: TdxAppraisal) -> AppraisedEvidence:
    return AppraisedEvidence(appraisal.claims, appraisal.checks, simulated=appraisal.simulated)


def _read(evidence: bytes) -> tuple[Quote, PckCertificate]:
    """What is needed before judging: the quote, and who it says made it."""
    number = _EVIDENCE_FORMAT
    try:
        parts = parse_tdx_evidence(evidence)
        number = _QUOTE_FORMAT
        quote = parse_quote(parts.quote)
        number = _SIGNATURE
        return quote, pck_certificate(quote)
    except UntrustedPeerError as exc:
        raise _refused(number, str(exc), exc.code) from exc


def _refused(failed: int, message: str, code: ErrorCode) -> TdxRefused:
    """A refusal before judging, in the form of one by `judge_tdx`."""
    checks = []
    for number, name in CHECK_NAMES.items():
        if number < failed:
            checks.append(Check(number, name, Outcome.PASS, "readable"))
        elif number == failed:
            checks.append(Check(number, name, Outcome.FAIL, message))
        else:
            skipped = f"not made: check {failed} failed"
            checks.append(Check(number, name, Outcome.SKIP, skipped))
    return TdxRefused(message, code=code, checks=tuple(checks))
