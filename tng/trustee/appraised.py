"""What verifying evidence gives, and the seam in front of every kind of TEE.

A `TeeVerifier` takes a request's evidence and gives one `AppraisedEvidence` for each device that
the evidence is of, or raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tng.trustee.dialects import VerificationRequest
    from tng.verdict import Check


@dataclass(frozen=True, slots=True)
class AppraisedEvidence:
    """Evidence of one device that passed verification.

    Attributes:
        claims: annotated evidence as the token carries it: claims by TEE name, and `report_data`
            and `init_data` where the TEE has them.
        checks: what was asked, in order; no failure among them.
        simulated: no hardware stands behind it.
        device_class: what its submodules are called, without a number.
    """

    claims: dict[str, object]
    checks: tuple[Check, ...]
    simulated: bool
    device_class: str = "cpu"


class TeeVerifier(Protocol):
    """Verifies evidence of one kind of TEE."""

    async def verify(self, request: VerificationRequest) -> tuple[AppraisedEvidence, ...]:
        """Genuine evidence that is bound to what the request names; at least one device.

        Raises:
            UntrustedPeerError: the evidence is refused; the code says why.
            AppraiserError: something that is needed to judge cannot be had.
        """
        ...
