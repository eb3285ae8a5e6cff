"""The seam to whatever obtains evidence from our own TEE.

Report data in, evidence out.  An attester does not know what the report data stands for, and
does not judge what it returns; `attest.credential_source` binds the one and peers judge the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from tng.errors import EvidenceError
from tng.wire.dice import TEE_TYPES

DEADLINE: Final = 50.0
"""Seconds that obtaining evidence may take; the reference grants its agent as much."""


@dataclass(frozen=True, slots=True, repr=False)
class TeeEvidence:
    """What a TEE said about report data.

    Attributes:
        tee: name of the TEE as in `tng.wire.dice.TEE_TYPES`.
        evidence: as the attestation service expects it for this TEE, usually JSON.
        additional: JSON object from the names of further devices to their evidence;
            None without any.
    """

    tee: str
    evidence: bytes
    additional: bytes | None

    def __repr__(self) -> str:
        return f"TeeEvidence(tee={self.tee!r}, evidence=<{len(self.evidence)} octets>)"


class Attester(Protocol):
    """Obtains evidence; may be asked again and again, also at the same time."""

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        """Ask the TEE to vouch for `report_data`.

        Args:
            report_data: 1 to 64 octets; padded with zeros to the width of the TEE by the attester.

        Raises:
            EvidenceError: there is no evidence; names who was asked and what to do.
        """
        ...


def make_evidence(source: str, tee: str, evidence: bytes, additional: bytes) -> TeeEvidence:
    """Evidence from the answers of an agent.

    Args:
        source: who answered; for the error.
        tee: name of the TEE.
        evidence: the evidence itself.
        additional: evidence of further devices; empty without any.

    Raises:
        EvidenceError: an unknown TEE, or no evidence at all.
    """
    if tee not in TEE_TYPES:
        raise EvidenceError(
            f"{source} says the TEE is {tee[:64]!r}, expected one of "
            f"{', '.join(sorted(TEE_TYPES))}; "
            "check that it runs inside a TEE and that its version fits"
        )
    if not evidence:
        raise EvidenceError(f"{source} returned empty evidence; see its own log for the reason")
    return TeeEvidence(tee, evidence, additional or None)
