"""What judging a peer came to: every check, numbered and named, and what follows from them.

A `Verdict` exists for refusals too.  `AttestedPeer` exists only for a peer that passed:
`attest.verifier` makes it, and a tunnel hands out a stream only with one of these or with
the explicit `NoRa`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from tng.errors import ErrorCode


class Outcome(enum.StrEnum):
    """Result of one check.  SKIP never counts as PASS."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """One question asked about a peer, and the answer.

    Attributes:
        number: position in the fixed list of `attest/verifier`; the same in log, docs and status.
        name: short and constant, e.g. "token signature".
        outcome: pass, fail, or skip.
        detail: what was seen; for a skip, why it was not asked.  Never a secret.
    """

    number: int
    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that was found out about one peer.

    Attributes:
        accepted: whether the peer may be trusted.
        code: why not, when refused; None when accepted.
        checks: in the order they were made.
        tee: "tdx", "sample", ..., or "" if it never became known.
        simulated: the evidence says of itself that no hardware stands behind it.
        policy_ids: policies named by the token.
        peer: SHA-256 of the peer's SubjectPublicKeyInfo, or over OHTTP of its HPKE key or key
            configuration list; lower-case hex.
        judged_at: Unix time of the judgement, seconds.
        valid_until: Unix time after which the verdict no longer holds, seconds; 0 when refused.
    """

    accepted: bool
    code: ErrorCode | None
    checks: tuple[Check, ...]
    tee: str
    simulated: bool
    policy_ids: tuple[str, ...]
    peer: str
    judged_at: float
    valid_until: float


@dataclass(frozen=True, slots=True)
class AttestedPeer:
    """A peer that passed every check.  Made by `attest.verifier` alone.

    Attributes:
        verdict: the full pass.
        token: the attestation token, as text; for callers that pass it on.  Never logged.
    """

    verdict: Verdict
    token: str

    def __repr__(self) -> str:
        return f"AttestedPeer(peer={self.verdict.peer[:16]}, tee={self.verdict.tee!r})"


class NoRa(enum.Enum):
    """Stands where an `AttestedPeer` would: the operator asked for no remote attestation."""

    NO_RA = "no_ra"
