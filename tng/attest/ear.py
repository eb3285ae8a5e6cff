"""The EAT Attestation Result of Trustee's default broker, read.

In: claims whose signature was verified.  Out: an `Appraisal`, the same for every token kind.
Source: EAR (draft-ietf-rats-ear) in the profile `PROFILE`; tiers of the trustworthiness vector
as in draft-ietf-rats-ar4si section 2.3.

Invariant: an `Appraisal` without objection means that every submodule said "affirming".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

PROFILE: Final = "tag:github.com,2024:confidential-containers/Trustee"
"""The one value of `eat_profile` that is known here."""

MAX_SUBMODS: Final = 64
"""Devices in one token: two CPUs and sixteen GPUs leave room enough."""

_T = TypeVar("_T")
_EVIDENCE: Final = "ear.veraison.annotated-evidence"
_LIFTED: Final = frozenset({"report_data", "runtime_data_claims", "init_data", "init_data_claims"})
"""Members beside the tee's own claims; two of them hold what the attester wrote itself."""

_AFFIRMING: Final = (*range(-32, -1), *range(2, 32))
"""Trustworthiness claims of the affirming tier."""

_MAX_NAMED: Final = 8
"""Members of a vector that a message lists."""


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What a token says of the evidence.

    Attributes:
        runtime_data: claims that the evidence was bound to.
        tee: name of the first submodule's TEE; "" if not given.
        simulated: the evidence carries the mark of a platform in software.
        policy_ids: policies that were applied.
        objection: why the result is no "yes"; "" when it is one.
        result: the "yes" in words.
    """

    runtime_data: dict[str, Json]
    tee: str
    simulated: bool
    policy_ids: tuple[str, ...]
    objection: str
    result: str


def read_ear(claims: dict[str, Json]) -> Appraisal:
    """The appraisal in an EAR.

    Raises:
        ValueError: an unknown profile, or a member that every Trustee EAR has is missing.
    """
    if claims["eat_profile"] != PROFILE:
        raise ValueError(f"eat_profile is {claims['eat_profile']!r:.120}, expected {PROFILE!r}")
    submods = claims.get("submods")
    if not isinstance(submods, dict) or not 1 <= len(submods) <= MAX_SUBMODS:
        raise ValueError(f"submods is not an object with 1 to {MAX_SUBMODS} members")
    named = {name: _member(submods, name, dict, "submods") for name in submods}
    policies = {_member(submod, "ear.appraisal-policy-id", str, n) for n, submod in named.items()}
    if len(policies) != 1:
        raise ValueError(f"submods name different policies: {sorted(policies)!r:.200}")
    objections = [_objection(name, submod) for name, submod in named.items()]
    if "cpu0" not in named:
        raise ValueError(f"there is no submod 'cpu0' among {sorted(named)!r:.200}")
    cpu = _member(named["cpu0"], _EVIDENCE, dict, "cpu0")
    return Appraisal(
        runtime_data=_member(cpu, "runtime_data_claims", dict, f"cpu0/{_EVIDENCE}"),
        tee=next((name for name in cpu if name not in _LIFTED), ""),
        simulated=any(_is_simulated(submod.get(_EVIDENCE)) for submod in named.values()),
        policy_ids=tuple(policies),
        objection="; ".join(filter(None, objections)),
        result=f"affirming: {', '.join(named)}",
    )


def marks_simulation(value: Json) -> bool:
    """Whether `simulated_platform` stands anywhere inside with a value other than false."""
    if isinstance(value, dict):
        mark = value.get("simulated_platform", False)
        return mark is not False or any(marks_simulation(inner) for inner in value.values())
    if isinstance(value, list):
        return any(marks_simulation(inner) for inner in value)
    return False


def _is_simulated(evidence: Json) -> bool:
    """The same for annotated evidence, without what the attester itself may have written."""
    if not isinstance(evidence, dict):
        return False
    return any(marks_simulation(value) for name, value in evidence.items() if name not in _LIFTED)


def _objection(name: str, submod: dict[str, Json]) -> str:
    """Why this submodule does not say yes; "" if it does."""
    status = _member(submod, "ear.status", str, name)
    vector = _member(submod, "ear.trustworthiness-vector", dict, name)
    policy = _member(submod, "ear.appraisal-policy-id", str, name)
    if status == "affirming":
        return ""
    doubts = [f"{k} {v!r:.20}" for k, v in vector.items() if v not in _AFFIRMING][:_MAX_NAMED]
    because = f" ({', '.join(doubts)})" if doubts else ""
    return (
        f"submod {name!r:.40} has status {status!r:.40}{because:.200}, "
        f"policy {policy!r:.80} wants 'affirming'"
    )


def _member(container: dict[str, Json], name: str, kind: type[_T], where: str) -> _T:
    value = container.get(name)
    if not isinstance(value, kind):
        expected = "object" if issubclass(kind, dict) else "text"
        raise ValueError(f"{where:.40}/{name:.40} is missing or no {expected}")  # noqa: TRY004
    return value
