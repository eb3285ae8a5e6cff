"""The shipped policies in Python: no Rego engine is needed for them.

Claims and reference values go in, an `Appraisal` comes out.  Each policy is a table: what a claim
is worth by default, and for each TEE the questions whose answers lift it.  Sources: the policy
types of TNG 2.12 (`hardware_only`, `hardware_only_strict`, `trust_all`) and, for the ones with
reference values, the default policy of the Trustee attestation service 1.8 and 1.9 for CPUs.

Invariant: a policy answers as its Rego text does; where the text would give two values to one
claim, or stop with an error, the claim keeps its default or `policy_denied` is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tng.attest.policy.base import Appraisal, Claims, References, make_appraisal
from tng.attest.policy.boot_log import (
    object_to_boot_digests,
    object_to_boot_log,
    object_to_command_line,
    object_to_command_line_digest,
    object_to_models,
)
from tng.attest.policy.rego_values import UNDEFINED, count_of, holds, is_in, look_up, text_of

INTEL_TDX: Final = "81000000"
"""`tee_type` of a TDX quote, in byte order."""

INTEL_QUOTING_ENCLAVE: Final = "939a7233f79c4ca9940a0db3957f0607"
"""`vendor_id` of quotes that Intel's quoting enclave signed."""

_DEBUG_OFF: Final = re.compile(r"[0-9a-f][02468ace]")  # bit 0 of the first octet is DEBUG

Question = Callable[[object, References], str]
"""The claims of one TEE and reference values to an objection; "" when there is none."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One way to a value of a claim.

    Attributes:
        tee: name of the claims that are asked about.
        claim: the trust claim.
        value: what it is worth when there is no objection.
        question: what is asked.
    """

    tee: str
    claim: str
    value: int
    question: Question


@dataclass(frozen=True, slots=True)
class NativePolicy:
    """A policy as a table.

    Attributes:
        policy_id: its name.
        defaults: values by claim when no branch is taken.
        branches: ways to other values.
        trusts_all: whether it affirms without looking.
    """

    policy_id: str
    defaults: tuple[tuple[str, int], ...]
    branches: tuple[Branch, ...] = ()
    trusts_all: bool = False

    def evaluate(self, claims: Claims, references: References) -> Appraisal:
        """See `AppraisalPolicy`."""
        values, reasons = {}, {}
        for claim, default in self.defaults:
            branches = [branch for branch in self.branches if branch.claim == claim]
            values[claim], reasons[claim] = _decide(default, branches, claims, references)
        return make_appraisal(self.policy_id, values, reasons)


def _decide(
    default: int, branches: list[Branch], claims: Claims, references: References
) -> tuple[int, str]:
    """Value of a claim, and why."""
    if not branches:
        return default, "not looked at: this policy always says so"
    present = [branch for branch in branches if branch.tee in claims]
    if not present:
        known = ", ".join(branch.tee for branch in branches)
        return default, f"claims of none of these TEEs: {known}"
    taken, objections = [], []
    for branch in present:
        objection = branch.question(claims[branch.tee], references)
        if objection:
            objections.append(f"{branch.tee}: {objection}")
        else:
            taken.append(branch)
    if len({branch.value for branch in taken}) > 1:
        return default, f"different values for {', '.join(branch.tee for branch in taken)}"
    if taken:
        return taken[0].value, f"{taken[0].tee}: recognised"
    return default, "; ".join(objections)


def _present(tee: object, _: References) -> str:
    return "" if holds(tee) else "there are no claims"


def _tdx_quote(tdx: object, _: References) -> str:
    kind = look_up(tdx, "quote", "header", "tee_type")
    if kind != INTEL_TDX:
        return f"quote.header.tee_type is {_shown(kind)}, expected {INTEL_TDX!r}"
    vendor = look_up(tdx, "quote", "header", "vendor_id")
    if vendor != INTEL_QUOTING_ENCLAVE:
        return f"quote.header.vendor_id is {_shown(vendor)}, expected {INTEL_QUOTING_ENCLAVE!r}"
    return ""


def _strict_tdx_quote(tdx: object, references: References) -> str:
    if objection := _tdx_quote(tdx, references):
        return objection
    where = "quote.body.td_attributes"
    attributes = text_of(look_up(tdx, "quote", "body", "td_attributes"), where)
    if attributes is None or not _DEBUG_OFF.match(attributes):
        return f"{where} is {_shown(attributes)}, expected debug to be off"
    if not count_of(look_up(tdx, "uefi_event_logs"), "uefi_event_logs"):
        return "there is no event log"
    return ""


def _tdx_configuration(tdx: object, references: References) -> str:
    xfam = look_up(tdx, "quote", "body", "xfam")
    if not is_in(xfam, references.get("tdx.xfam")):
        return f"quote.body.xfam is {_shown(xfam)}, none of the values of 'tdx.xfam'"
    return object_to_command_line(tdx, references)


def _csv_version(csv: object, _: References) -> str:
    version = look_up(csv, "version")
    return "" if version in ("1", "2") else f"version is {_shown(version)}, expected '1' or '2'"


def _snp_policy(snp: object, _: References) -> str:
    for name in ("policy_debug_allowed", "policy_migrate_ma"):
        value = look_up(snp, name)
        if value != "0":
            return f"{name} is {_shown(value)}, expected '0'"
    return ""


def _shown(value: object) -> str:
    return "missing" if value is UNDEFINED or value is None else repr(value)[:80]


def _hardware(tdx: Question) -> Iterable[Branch]:
    """What all shipped policies but `trust_all` recognise."""
    yield Branch("tdx", "hardware", 2, tdx)
    yield Branch("csv", "hardware", 2, _csv_version)
    yield Branch("tpm", "hardware", 2, _present)
    yield Branch("system", "hardware", 2, _present)


_OTHERS: Final = (
    Branch("tdx", "executables", 3, object_to_boot_log),
    Branch("tdx", "configuration", 2, _tdx_configuration),
    Branch("csv", "executables", 3, object_to_boot_log),
    Branch("csv", "configuration", 2, object_to_command_line),
    Branch("tpm", "executables", 3, object_to_boot_digests),
    Branch("tpm", "configuration", 2, object_to_command_line_digest),
    Branch("hygontpm", "hardware", 2, _present),
    Branch("hygontpm", "executables", 3, object_to_boot_digests),
    Branch("hygontpm", "configuration", 2, object_to_command_line_digest),
    Branch("system", "executables", 3, object_to_models),
    Branch("system", "configuration", 2, _present),
    *(Branch(t, "file-system", 2, _present) for t in ("tdx", "tpm", "hygontpm", "csv", "system")),
)
_SNP: Final = (
    Branch("snp", "executables", 3, _present),
    Branch("snp", "hardware", 2, _present),
    Branch("snp", "configuration", 2, _snp_policy),
    Branch("snp", "file-system", 0, _present),
)
_AFFIRMED: Final = (("executables", 2), ("configuration", 2), ("file-system", 2))
_DOUBTED: Final = (("executables", 33), ("configuration", 36), ("file-system", 35))
_UNRECOGNISED: Final = (("hardware", 97),)

HARDWARE_ONLY: Final = NativePolicy(
    "hardware_only", _AFFIRMED + _UNRECOGNISED, tuple(_hardware(_tdx_quote))
)
"""Affirms a genuine platform and looks at nothing that it measured."""

HARDWARE_ONLY_STRICT: Final = NativePolicy(
    "hardware_only_strict", _AFFIRMED + _UNRECOGNISED, tuple(_hardware(_strict_tdx_quote))
)
"""The same, but a TDX guest must not be in debug mode and must bring an event log."""

HARDWARE_WITH_REFERENCE_VALUES: Final = NativePolicy(
    "hardware_with_reference_values",
    _DOUBTED + _UNRECOGNISED,
    (*_hardware(_tdx_quote), *_OTHERS, *_SNP),
)
"""Boot loader, kernel, initrd and command line must be known; the default of Trustee 1.9."""

HARDWARE_STRICT_WITH_REFERENCE_VALUES: Final = NativePolicy(
    "hardware_strict_with_reference_values",
    _DOUBTED + _UNRECOGNISED,
    (*_hardware(_strict_tdx_quote), *_OTHERS, *_SNP),
)
"""The same, with the TDX rules of `hardware_only_strict`."""

TRUSTEE_1_8_DEFAULT: Final = NativePolicy(
    "trustee_1_8_default", _DOUBTED + _UNRECOGNISED, (*_hardware(_tdx_quote), *_OTHERS)
)
"""The default of Trustee 1.8, which knows no SNP."""

TRUST_ALL: Final = NativePolicy("trust_all", (*_AFFIRMED, ("hardware", 2)), trusts_all=True)
"""Affirms whatever was verified.  For development."""

SHIPPED: Final = {
    policy.policy_id: policy
    for policy in (
        HARDWARE_ONLY,
        HARDWARE_ONLY_STRICT,
        HARDWARE_WITH_REFERENCE_VALUES,
        HARDWARE_STRICT_WITH_REFERENCE_VALUES,
        TRUST_ALL,
    )
}
"""Policies that an operator chooses by name."""
