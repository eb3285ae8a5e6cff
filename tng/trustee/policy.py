"""Appraisal policies under a name: from annotated evidence to a trustworthiness vector.

A name and a Rego text go in, a `Policy` comes out, which appraises annotated evidence.  A text is
known by its SHA-384: the two built-in ones below and those that Trustee and TNG ship have native
twins (`attest.policy.native`), which answer alike; every other text needs the Rego engine, which
is an extra of this package.

Invariant: a policy that is stored can be evaluated; what cannot is refused when it is uploaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.policy.factory import policy_from_text
from tng.attest.policy.native import HARDWARE_ONLY, TRUST_ALL, NativePolicy
from tng.attest.policy.rego import load_engine
from tng.trustee.problems import ProblemCode, TrusteeRequestError
from tng.trustee.rego_text import Engines, engine_for, policy_refusals

if TYPE_CHECKING:
    from tng.attest.policy.base import Appraisal, AppraisalPolicy, Claims, References

MAX_POLICY_TEXT: Final = 262_144
"""Octets of one Rego text; the largest policy that Trustee ships has 17 kB."""

_POLICY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""The service's alphabet; the length bounds file names."""

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


def _sha384(text: str) -> bytes:
    return hashlib.sha384(text.encode("utf-8")).digest()


_TDX_ONLY: Final = dataclasses.replace(
    HARDWARE_ONLY,
    branches=tuple(branch for branch in HARDWARE_ONLY.branches if branch.tee == "tdx"),
)

_OWN: Final[dict[bytes, NativePolicy]] = {
    _sha384(HARDWARE_ONLY_TEXT): _TDX_ONLY,
    _sha384(TRUST_ALL_TEXT): TRUST_ALL,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy under one name.

    Attributes:
        policy_id: 1-64 of [A-Za-z0-9_-].
        text: Rego, as uploaded.
        appraises: what evaluates it; of the same name.
    """

    policy_id: str
    text: str
    appraises: AppraisalPolicy

    @property
    def digest(self) -> bytes:
        """SHA-384 of the text, 48 octets."""
        return _sha384(self.text)

    @property
    def trusts_all(self) -> bool:
        """Whether the policy is known to affirm evidence without looking at it."""
        return self.appraises.trusts_all

    @property
    def reads_references(self) -> bool:
        """Whether reference values may make a difference; only a shipped text can say they do not.

        To Rego of somebody else they are always given: a text can name them in many ways.
        """
        return not isinstance(self.appraises, NativePolicy) or "reference" in self.text

    def evaluate(self, evidence: Claims, references: References) -> Appraisal:
        """Appraise one device.  Blocks, for Rego at most for the engine's time limit.

        Args:
            evidence: claims by TEE name, as they stand in the token.
            references: reference values by name.

        Raises:
            UntrustedPeerError: see `AppraisalPolicy.evaluate`.
        """
        return self.appraises.evaluate(evidence, references)


def make_policy(policy_id: str, text: str, engines: Engines = load_engine) -> Policy:
    """Give a text a name.  Blocks while the engine looks at the text.

    Args:
        policy_id: the name.
        text: Rego.
        engines: makes the Rego engine; called only for a text without a native twin.

    Raises:
        TrusteeRequestError: the name, the size or the text is not acceptable (400), or the text
            needs an engine and none is installed (501).
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
    own = _OWN.get(_sha384(text))
    if own is not None:
        return Policy(policy_id, text, dataclasses.replace(own, policy_id=policy_id))
    with policy_refusals():
        appraises = policy_from_text(policy_id, text, lambda: engine_for(text, engines))
    return Policy(policy_id, text, appraises)


BUILT_IN: Final[dict[str, Policy]] = {
    "default": make_policy("default", HARDWARE_ONLY_TEXT),
    "hardware_only": make_policy("hardware_only", HARDWARE_ONLY_TEXT),
    "trust_all": make_policy("trust_all", TRUST_ALL_TEXT),
}
"""Policies that are there before anybody uploads one."""
