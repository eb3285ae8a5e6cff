"""What every appraisal policy answers: eight trust claims, each with a reason, and a status.

Verified claims and reference values go into an `AppraisalPolicy`, an `Appraisal` comes out.
Sources: EAR (draft-ietf-rats-ear section 3) for the claims, AR4SI (draft-ietf-rats-ar4si section
2.3.2) for the tiers, and the attestation service of Trustee for the status of a device: the worst
tier in the order none, affirming, warning, contraindicated.

Invariant: an `Appraisal` always has all eight rules, and a rule that was not set is a SKIP, which
affirms nothing.

    appraisal = policy.evaluate(claims, references)
    appraisal.require_affirming()
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from tng.errors import ErrorCode, UntrustedPeerError
from tng.verdict import Outcome

CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
"""The claims of a trustworthiness vector, in the order of the draft."""

VALUES: Final = range(-128, 128)
"""Values of a claim: one octet with a sign."""

Claims = Mapping[str, object]
"""Annotated evidence: JSON by TEE name, and `report_data`, `init_data` and their claims."""

References = Mapping[str, object]
"""Reference values: JSON by name, usually a list of what is allowed."""


class Tier(enum.StrEnum):
    """What a claim's value means; also the status of a device.  In the order of `worst`."""

    NONE = "none"
    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


_ORDER: Final = tuple(Tier)


def tier_of(value: int) -> Tier:
    """Tier of one claim.

    Args:
        value: one of `VALUES`.
    """
    if -1 <= value <= 1:
        return Tier.NONE
    if -32 <= value <= 31:
        return Tier.AFFIRMING
    if -96 <= value <= 95:
        return Tier.WARNING
    return Tier.CONTRAINDICATED


@dataclass(frozen=True, slots=True)
class Rule:
    """What a policy made of one claim.

    Attributes:
        claim: one of `CLAIMS`.
        value: one of `VALUES`; None when the policy does not set the claim.
        reason: what was seen, for people.
    """

    claim: str
    value: int | None
    reason: str

    @property
    def tier(self) -> Tier:
        """Tier of the value; `none` for a claim that is not set."""
        return Tier.NONE if self.value is None else tier_of(self.value)

    @property
    def outcome(self) -> Outcome:
        """PASS affirms, FAIL warns or contraindicates, SKIP asserts nothing."""
        match self.tier:
            case Tier.AFFIRMING:
                return Outcome.PASS
            case Tier.NONE:
                return Outcome.SKIP
            case _:
                return Outcome.FAIL


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a policy made of the claims of one device.

    Attributes:
        policy_id: the policy.
        rules: one for each of `CLAIMS`, in that order.
    """

    policy_id: str
    rules: tuple[Rule, ...]

    @property
    def vector(self) -> dict[str, int]:
        """The claims that are set, by hyphenated name."""
        return {rule.claim: rule.value for rule in self.rules if rule.value is not None}

    @property
    def status(self) -> Tier:
        """The worst tier of all rules."""
        return max((rule.tier for rule in self.rules), key=_ORDER.index)

    def require_affirming(self) -> None:
        """Return if the status is `affirming`.

        Raises:
            UntrustedPeerError: it is another (policy_denied); the message lists the rules.
        """
        if self.status is Tier.AFFIRMING:
            return
        failed = [f"{r.claim} is {r.value}: {r.reason}" for r in self.rules if r.tier not in _FINE]
        because = "; ".join(failed) or "no claim is affirmed"
        raise UntrustedPeerError(
            f"policy {self.policy_id!r} says {self.status.value}: {because}",
            code=ErrorCode.POLICY_DENIED,
        )


_FINE: Final = (Tier.NONE, Tier.AFFIRMING)


class AppraisalPolicy(Protocol):
    """A policy.  Evaluation may happen in any thread."""

    @property
    def policy_id(self) -> str:
        """Its name, as tokens carry it."""
        ...

    @property
    def trusts_all(self) -> bool:
        """Whether it is known to affirm all evidence, whatever was measured."""
        ...

    def evaluate(self, claims: Claims, references: References) -> Appraisal:
        """Appraise one device.

        Args:
            claims: verified already; a policy does not look at signatures.
            references: by name; empty where there are none.

        Raises:
            UntrustedPeerError: the claims cannot be evaluated, or the policy's answer is no
                vector (policy_denied).
        """
        ...


def make_appraisal(
    policy_id: str, values: Mapping[str, int], reasons: Mapping[str, str]
) -> Appraisal:
    """An appraisal with all eight rules.

    Args:
        policy_id: the policy.
        values: by claim, one of `VALUES` each.
        reasons: by claim.

    Raises:
        UntrustedPeerError: no claim is set, an unknown one is, or a value is none of `VALUES`
            (policy_denied).
    """
    if unknown := values.keys() - set(CLAIMS):
        raise denied(f"policy {policy_id!r} sets {min(unknown)[:40]!r}, which is no trust claim")
    for claim, value in values.items():
        if value not in VALUES:
            raise denied(f"policy {policy_id!r} sets {claim} to {value}, expected -128 to 127")
    if not values:
        raise denied(f"policy {policy_id!r} sets no trust claim, expected one of {len(CLAIMS)}")
    unset = "not set by this policy"
    return Appraisal(
        policy_id,
        tuple(Rule(claim, values.get(claim), reasons.get(claim, unset)) for claim in CLAIMS),
    )


def denied(message: str) -> UntrustedPeerError:
    """The error of a policy that says no, or cannot say yes."""
    return UntrustedPeerError(message, code=ErrorCode.POLICY_DENIED)
