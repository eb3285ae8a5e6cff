"""Judges of a machine's evidence, one for each kind of TEE that the builtin service knows.

Evidence, and the report data that it must be bound to, go in; annotated claims come out, or the
refusal.  TDX evidence is judged by `tdx.appraisal` under Intel's root, or, if the operator trusts
a platform in software, under that platform's root when its certificates say that they are its.
The `sample` TEE is what its name says: anybody can make such evidence, and the policy decides
whether that is enough.

Invariant: what comes out was verified, and bound to the report data wherever some was given.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from tng.attest.sample import judge_sample
from tng.attest.tdx.appraisal import DEFAULT_TCB_STATUSES, judge_tdx, parse_tdx_evidence
from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.quote import parse_quote
from tng.errors import ErrorCode, UntrustedPeerError

if TYPE_CHECKING:
    from tng.attest.tdx.collateral import Collateral
    from tng.attest.tdx.pccs import PccsCollateral
    from tng.attest.tdx.quote import Quote
    from tng.attest.tdx.simulator.platform import SimulatedPlatform
    from tng.clock import Clock

MAX_JUDGING: Final = 4
"""Quotes judged at once: each is a few milliseconds of a processor."""


@dataclass(frozen=True, slots=True)
class JudgedDevice:
    """Evidence that was verified.

    Attributes:
        claims: annotated evidence: claims by TEE name, and `report_data` and `init_data` where
            the TEE has them.
        simulated: no hardware stands behind it.
        device_class: what its submodules are called, without a number.
    """

    claims: dict[str, object]
    simulated: bool = False
    device_class: str = "cpu"


class DeviceJudge(Protocol):
    """Verifies evidence of one kind of TEE."""

    async def judge(self, evidence: bytes, report_data: bytes | None) -> JudgedDevice:
        """The claims in genuine evidence.

        Args:
            evidence: as the attestation agent gave it.
            report_data: what it must be bound to, at most 64 octets; None for nothing.

        Raises:
            UntrustedPeerError: the evidence is refused; a `TdxRefused` lists its checks.
            AppraiserError: something that is needed to judge cannot be had.
        """
        ...


class TdxJudge:
    """Judges TDX evidence.

    Args:
        collateral: of real platforms.
        clock: the time at which evidence must hold.
        platform: the platform in software that is trusted beside Intel; None for none.
        statuses: TCB statuses that are acceptable.
    """

    def __init__(
        self,
        collateral: PccsCollateral,
        clock: Clock,
        *,
        platform: SimulatedPlatform | None = None,
        statuses: frozenset[str] = DEFAULT_TCB_STATUSES,
    ) -> None:
        self._collateral = collateral
        self._clock = clock
        self._platform = platform
        self._statuses = statuses
        self._limiter = trio.CapacityLimiter(MAX_JUDGING)

    async def judge(self, evidence: bytes, report_data: bytes | None) -> JudgedDevice:
        """See `DeviceJudge.judge`."""
        quote = parse_quote(parse_tdx_evidence(evidence).quote)
        collateral, root_ca_der = await self._trusted(quote)
        appraisal = await trio.to_thread.run_sync(
            functools.partial(
                judge_tdx,
                evidence,
                expected_report_data=report_data,
                collateral=collateral,
                now=int(self._clock.now()),
                root_ca_der=root_ca_der,
                allowed_tcb_status=self._statuses,
            ),
            limiter=self._limiter,
        )
        return JudgedDevice(appraisal.claims, appraisal.simulated)

    async def _trusted(self, quote: Quote) -> tuple[Collateral, bytes | None]:
        """Collateral and root; the name in a certificate only chooses, and proves nothing."""
        if not pck_certificate(quote).says_simulated:
            return await self._collateral.collateral_for(quote), None
        if self._platform is None:
            raise UntrustedPeerError(
                "the quote comes from a TDX platform in software, expected one of Intel's; for "
                "trials, name the platform in verify.simulated_platform",
                code=ErrorCode.SIMULATED_EVIDENCE,
            )
        return self._platform.collateral(int(self._clock.now())), self._platform.root_der


class SampleJudge:
    """Takes sample evidence at its word, except for what it is bound to."""

    async def judge(self, evidence: bytes, report_data: bytes | None) -> JudgedDevice:
        """See `DeviceJudge.judge`."""
        await trio.lowlevel.checkpoint()
        return JudgedDevice(judge_sample(evidence, expected_report_data=report_data))
