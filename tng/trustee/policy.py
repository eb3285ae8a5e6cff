"""Appraisal policies: which claims make which entry of a trustworthiness vector.

Annotated evidence goes in, a trustworthiness vector (EAR, draft-ietf-rats-ear section 3) comes
out.  A policy is known by the SHA-384 of its Rego text.  No Rego engine runs here: each text in
the table below has a native twin that answers alike, and a text that is not in the table is
refused when it is uploaded.

Invariant: a policy that is stored can be evaluated, and says the same as its text.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tng.trustee.problems import ProblemCode, TrusteeRequestError

MAX_POLICY_TEXT: Final = 262_144
"""Octets of one Rego text; the largest policy that Trustee ships has 17 kB."""

_POLICY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The service's alphabet; the length bounds file names."""

_INTEL_TDX_TEE_TYPE: Final = "81000000"
_INTEL_QE_VENDOR_ID: Final = "939a7233f79c4ca9940a0db3957f0607"
_UNRECOGNISED_HARDWARE: Final = 97
_AFFIRMING: Final = 2

HARDWARE_ONLY_TEXT: Final = """\
package policy

import rego.v1

# Affirms a genuine TEE platform and looks at nothing that it measured.

default executables := 2

default configuration := 2

default file_system := 2

default hardware := 97

hardware := 2 if {
	header := input.tdx.quote.header
	header.tee_type == "81000000"
	header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"
}
"""
"""Text of the built-in policies `default` and `hardware_only`."""

TRUST_ALL_TEXT: Final = """\
package policy

import rego.v1

# For development: affirms whatever evidence has passed verification, measured or not.

default executables := 2

default hardware := 2

default configuration := 2

default file_system := 2
"""
"""Text of the built-in policy `trust_all`."""


class Twin(enum.Enum):
    """Native evaluations, each the twin of one Rego text or more."""

    TDX_ONLY = "tdx_only"
    HARDWARE_ONLY = "hardware_only"
    TRUST_ALL = "trust_all"


_SHIPPED_WITH_TNG: Final[dict[str, Twin]] = {
    # SHA-384 of the texts that TNG 2.12.0 carries for its policy types of these names.
    "155a2aaac0a19c2bf1a0216d95d85a255476f5dc04b70067"
    "fd3d7c99dba7368c586fc6405959eb8a383e29f508be9b69": Twin.HARDWARE_ONLY,
    "bcacca46e240407feecb0efd6b0386a1b8ce2778346a9ff8"
    "35a56e42eacea3112fab3ff53d0f912d0f2f6b82092b0985": Twin.TRUST_ALL,
}


def _sha384(text: str) -> bytes:
    return hashlib.sha384(text.encode("utf-8")).digest()


_KNOWN: Final[dict[str, Twin]] = {
    _sha384(HARDWARE_ONLY_TEXT).hex(): Twin.TDX_ONLY,
    _sha384(TRUST_ALL_TEXT).hex(): Twin.TRUST_ALL,
    **_SHIPPED_WITH_TNG,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy under one name.

    Attributes:
        policy_id: 1-64 of [A-Za-z0-9_-].
        text: Rego, as uploaded.
        twin: what evaluates it.
    """

    policy_id: str
    text: str
    twin: Twin

    @property
    def digest(self) -> bytes:
        """SHA-384 of the text, 48 octets."""
        return _sha384(self.text)

    @property
    def trusts_all(self) -> bool:
        """Whether the policy affirms evidence without looking at it."""
        return self.twin is Twin.TRUST_ALL

    def evaluate(self, evidence: Mapping[str, object]) -> dict[str, int]:
        """Trustworthiness vector of annotated evidence.

        Args:
            evidence: claims by TEE name, as they stand in the token.

        Returns:
            Values -128..127 by hyphenated claim name; at least one.
        """
        hardware = _AFFIRMING if self._recognises(evidence) else _UNRECOGNISED_HARDWARE
        return {
            "configuration": _AFFIRMING,
            "executables": _AFFIRMING,
            "file-system": _AFFIRMING,
            "hardware": hardware,
        }

    def _recognises(self, evidence: Mapping[str, object]) -> bool:
        match self.twin:
            case Twin.TRUST_ALL:
                return True
            case Twin.TDX_ONLY:
                return _is_tdx(evidence)
            case Twin.HARDWARE_ONLY:
                return _is_tdx(evidence) or _is_other_hardware(evidence)


def make_policy(policy_id: str, text: str) -> Policy:
    """Give a text a name.

    Raises:
        TrusteeRequestError: the name or the size is not allowed (400), or the text is none of
            those that have a native twin (501).
    """
    if not _POLICY_ID.fullmatch(policy_id):
        raise TrusteeRequestError(
            f"policy_id: expected 1-64 letters, digits, '_' or '-', got {policy_id[:80]!r}",
            ProblemCode.INVALID_ARGUMENT,
            field="policy_id",
        )
    if len(text) > MAX_POLICY_TEXT:
        raise TrusteeRequestError(
            f"policy: more than {MAX_POLICY_TEXT} characters",
            ProblemCode.INVALID_ARGUMENT,
            field="policy",
        )
    twin = _KNOWN.get(_sha384(text).hex())
    if twin is None:
        raise TrusteeRequestError(
            "Rego engine not available in this version: the policy's SHA-384 is"
            f" {_sha384(text).hex()}, none of the shipped texts (hardware_only, trust_all)",
            ProblemCode.NOT_IMPLEMENTED,
            field="policy",
        )
    return Policy(policy_id, text, twin)


BUILT_IN: Final[dict[str, Policy]] = {
    "default": make_policy("default", HARDWARE_ONLY_TEXT),
    "hardware_only": make_policy("hardware_only", HARDWARE_ONLY_TEXT),
    "trust_all": make_policy("trust_all", TRUST_ALL_TEXT),
}
"""Policies that are there before anybody uploads one."""


def _is_tdx(evidence: Mapping[str, object]) -> bool:
    return (
        _member(evidence, "tdx", "quote", "header", "tee_type") == _INTEL_TDX_TEE_TYPE
        and _member(evidence, "tdx", "quote", "header", "vendor_id") == _INTEL_QE_VENDOR_ID
    )


def _is_other_hardware(evidence: Mapping[str, object]) -> bool:
    # As Rego reads the shipped text: `input.tpm` holds unless it is missing or false.
    return (
        _member(evidence, "csv", "version") in ("1", "2")
        or evidence.get("tpm", False) is not False
        or evidence.get("system", False) is not False
    )


def _member(value: object, *path: str) -> object:
    """Member at the end of a path of names, or None."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
