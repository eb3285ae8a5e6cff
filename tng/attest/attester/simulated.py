"""An attester whose TEE is a TDX platform in software: for demonstrations and tests.

Report data in, TDX evidence out, from the platform in a directory (see
`attest.tdx.simulator.store`); a new one where there is none.  SIMULATED: a verifier accepts
this evidence only when it was told to, and was given that platform's root.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from tng.attest.attester.base import TeeEvidence
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import Clock, SystemClock
from tng.errors import EvidenceError, LocalProtocolError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class SimulatedAttester:
    """Obtains evidence from a simulated platform.

    Args:
        directory: where the platform lives; read, or made, at the first request.
        clock: the time of day for certificates of a new platform.
    """

    def __init__(self, directory: Path, *, clock: Clock | None = None) -> None:
        self._directory = directory
        self._clock = clock or SystemClock()
        self._platform: SimulatedPlatform | None = None
        self._loading = trio.Lock()

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        """Evidence over `report_data`.

        Args:
            report_data: 1 to 64 octets; zeros are appended.

        Raises:
            EvidenceError: the platform can be neither read nor made, or `report_data` is too long.
        """
        platform = await self._load()
        try:
            # One signature, well under a millisecond: not worth a thread.
            evidence = platform.evidence(report_data)
        except LocalProtocolError as exc:
            raise EvidenceError(f"the simulated platform gives no evidence: {exc}") from exc
        return TeeEvidence("tdx", evidence, None)

    async def _load(self) -> SimulatedPlatform:
        async with self._loading:
            if self._platform is None:
                now = int(self._clock.now())
                self._platform = await trio.to_thread.run_sync(
                    SimulatedPlatform.load_or_create, self._directory, now
                )
                _warn(self._directory, self._platform)
            return self._platform


def _warn(directory: Path, platform: SimulatedPlatform) -> None:
    log.warning(
        "SIMULATED TDX evidence: no hardware protects this process directory=%s spoiled=%s",
        directory,
        platform.spoil or "no",
    )
