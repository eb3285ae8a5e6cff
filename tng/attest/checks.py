"""The fixed list of questions asked about a peer, and the record of their answers.

In: one answer after the other, in the order of `Step`.  Out: a `Verdict`, or the exception that
refuses the peer and carries the verdict.  Numbers and names below are the ones users meet in
the log, in HTTP error bodies, in the status page and in THREATS.md:

     1  certificate        form, names, self-signature and dates of the peer's certificate
     2  evidence format    evidence or token can be read and is of the configured model
     3  key claim          the evidence speaks of the peer's key (background check only)
     4  appraisal          the attestation service was asked and gave a token
     5  token format       size, JOSE header, algorithm, embedded key
     6  token signer       chain of the signing certificate up to a trust anchor
     7  token signature    signature of the token by that key
     8  token time         expiry and start of validity; age, where no certificate has one
     9  token profile      EAR of the known profile, or the simple CoCo token
    10  key binding        the appraised runtime data names the peer's key
    11  real hardware      the evidence does not come from a platform in software
    12  appraisal result   every submodule is affirming (or nothing was evaluated to "no")
    13  policy             the configured policies were the ones applied
    14  signer transparency  the signing certificate stands in a transparency log (where
                           `verify_signer_transparency` asks for it)

Check 1 is skipped for OHTTP, where evidence comes without a certificate.  Checks that an
attestation service reports about itself follow number 4 under its own numbers, with "service: "
in front of the name.  Where any of several `verify` sections may accept, "verify[0] " and so on
stand in front of the names.

Invariant: a verdict is accepted only if no recorded check failed.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from tng.errors import UntrustedPeerError
from tng.verdict import Check, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tng.errors import ErrorCode

MAX_DETAIL: Final = 600
"""Characters of one detail text; what a peer writes into its token must not flood a log."""


class Step(enum.IntEnum):
    """Number of a check; `title` is its name."""

    CERTIFICATE = 1
    EVIDENCE_FORMAT = 2
    KEY_CLAIM = 3
    APPRAISAL = 4
    TOKEN_FORMAT = 5
    TOKEN_SIGNER = 6
    TOKEN_SIGNATURE = 7
    TOKEN_TIME = 8
    TOKEN_PROFILE = 9
    KEY_BINDING = 10
    REAL_HARDWARE = 11
    APPRAISAL_RESULT = 12
    POLICY = 13
    SIGNER_TRANSPARENCY = 14

    @property
    def title(self) -> str:
        """The name people read: "token signer"."""
        return self.name.lower().replace("_", " ")


class Findings:
    """Answers so far about one peer.

    Args:
        judged_at: Unix time of the judgement, seconds.
        peer: SHA-256 of the peer's SubjectPublicKeyInfo, lower-case hex; "" while unknown.

    Attributes:
        tee: "tdx", "sample", ...; "" while unknown.
        simulated: whether the evidence says that no hardware stands behind it.
        policy_ids: policies that the token names.
    """

    def __init__(self, judged_at: float, peer: str = "") -> None:
        self.judged_at = judged_at
        self.peer = peer
        self.tee = ""
        self.simulated = False
        self.policy_ids: tuple[str, ...] = ()
        self._checks: list[Check] = []

    @property
    def checks(self) -> tuple[Check, ...]:
        """What was recorded, in order."""
        return tuple(self._checks)

    def copy(self) -> Findings:
        """A record that goes on from here without changing this one."""
        twin = Findings(self.judged_at, self.peer)
        twin.tee, twin.simulated, twin.policy_ids = self.tee, self.simulated, self.policy_ids
        twin.report(self._checks)
        return twin

    def passed(self, step: Step, detail: str) -> None:
        """Record that the question was answered as it must be."""
        self._add(step, Outcome.PASS, detail)

    def skipped(self, step: Step, why: str) -> None:
        """Record that the question was not asked, and why that is right here."""
        self._add(step, Outcome.SKIP, why)

    def failed(self, step: Step, detail: str) -> None:
        """Record that the question was answered otherwise than it must be."""
        self._add(step, Outcome.FAIL, detail)

    def report(self, checks: Iterable[Check]) -> None:
        """Append checks made elsewhere, as they are."""
        self._checks.extend(checks)

    def refusal(self, step: Step, code: ErrorCode, detail: str) -> UntrustedPeerError:
        """Record the failure, and give the exception to raise for it."""
        self.failed(step, detail)
        return self.refused(code, f"{step.title}: {_bounded(detail)}")

    def refused(self, code: ErrorCode, message: str) -> UntrustedPeerError:
        """The exception for failures that are recorded already."""
        return UntrustedPeerError(message, code=code, verdict=self.verdict(code=code))

    def verdict(self, *, code: ErrorCode | None = None, valid_until: float = 0) -> Verdict:
        """What it all comes to.

        Args:
            code: why the peer is refused; None to accept it.
            valid_until: end of an acceptance, Unix time in seconds.
        """
        if code is None and any(check.outcome is Outcome.FAIL for check in self._checks):
            raise AssertionError("a failed check was recorded and nobody raised its refusal")
        return Verdict(
            accepted=code is None,
            code=code,
            checks=self.checks,
            tee=self.tee,
            simulated=self.simulated,
            policy_ids=self.policy_ids,
            peer=self.peer,
            judged_at=self.judged_at,
            valid_until=valid_until if code is None else 0,
        )

    def _add(self, step: Step, outcome: Outcome, detail: str) -> None:
        self._checks.append(Check(int(step), step.title, outcome, _bounded(detail)))


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 3] + "..."
