"""Evidence of further devices: GPUs, and the stand-ins for them.

A request goes in, one `AppraisedEvidence` per device comes out.  `attest.devices` judges.

Invariant: NVIDIA's GPUs are judged only with a nonce to compare with.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tng.attest.devices import NVIDIA, SAMPLE_DEVICE, DeviceAppraisal, judge_device
from tng.errors import ErrorCode, UntrustedPeerError
from tng.trustee.appraised import AppraisedEvidence

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.trustee.dialects import VerificationRequest

DEVICE_TEES: Final = frozenset({NVIDIA, SAMPLE_DEVICE})
"""Names of what stands beside a CPU's TEE."""

_MAX_JUDGING: Final = 4
"""Judgements at once: sixteen GPUs take a few dozen milliseconds of CPU."""


class DeviceVerifier:
    """Judges evidence of one kind of device.

    Args:
        clock: the time at which evidence must hold.
        allow_sample: take evidence that anybody can make.
    """

    def __init__(self, clock: Clock, *, allow_sample: bool) -> None:
        self._clock = clock
        self._allow_sample = allow_sample
        self._judging = asyncio.Semaphore(_MAX_JUDGING)

    async def verify(self, request: VerificationRequest) -> tuple[AppraisedEvidence, ...]:
        """See `TeeVerifier`."""
        if request.init_data is not None:
            raise UntrustedPeerError(
                f"evidence of {request.tee} carries no init data, but the request expects some",
                code=ErrorCode.EVIDENCE_MALFORMED,
            )
        async with self._judging:
            devices = await asyncio.to_thread(
                judge_device,
                request.tee,
                request.evidence,
                expected=request.report_data,
                now=self._clock.now(),
                allow_sample=self._allow_sample,
            )
        return tuple(_appraised(device) for device in devices)


def _appraised(device: DeviceAppraisal) -> AppraisedEvidence:
    return AppraisedEvidence(
        device.claims, device.checks, simulated=False, device_class=device.device_class
    )
