"""From `attestation_policy` to a policy that can be evaluated.

The section of the configuration goes in, an `AppraisalPolicy` comes out.  A text that is one of
the shipped ones is evaluated by its native twin, known by the SHA-384 of the text; every other
text needs the Rego engine.  Source: the policy types of TNG 2.12.

Invariant: what comes out can be evaluated; a type that cannot is refused here, at start.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.attest.base64_text import decode_base64
from tng.attest.policy.native import (
    HARDWARE_ONLY,
    HARDWARE_WITH_REFERENCE_VALUES,
    SHIPPED,
    TRUST_ALL,
    TRUSTEE_1_8_DEFAULT,
    NativePolicy,
)
from tng.attest.policy.rego import MAX_POLICY_TEXT, RegoEngine, load_engine, make_rego_policy
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.attest.policy.base import AppraisalPolicy
    from tng.config.verify import AttestationPolicy

log = logging.getLogger(__name__)

POLICY_ID: Final = "default"
"""What a builtin attestation service calls its policy, whatever its type."""

_WHERE: Final = "attestation_policy"

_TWINS: Final[dict[str, NativePolicy]] = {
    # SHA-384 of the texts of TNG 2.12 for the types of these names.
    "155a2aaac0a19c2bf1a0216d95d85a255476f5dc04b70067"
    "fd3d7c99dba7368c586fc6405959eb8a383e29f508be9b69": HARDWARE_ONLY,
    "bcacca46e240407feecb0efd6b0386a1b8ce2778346a9ff8"
    "35a56e42eacea3112fab3ff53d0f912d0f2f6b82092b0985": TRUST_ALL,
    # SHA-384 of the default policies for CPUs of the Trustee attestation service 1.8.4 and 1.9.
    "7b4969588028122009c8cb7d9e851b479f76850a7136689e"
    "d74e8f8d2a5d019bf3cb91226ffdc82ac49e652266767a38": TRUSTEE_1_8_DEFAULT,
    "a539804ac533a699391c95309b4acbdb32b8cce2e92e3b03"
    "07726c1d583e3976b534c32886ad83f1fb8aaff2c21864df": HARDWARE_WITH_REFERENCE_VALUES,
}


def make_policy(
    section: AttestationPolicy | None, engine: Callable[[], RegoEngine] = load_engine
) -> AppraisalPolicy:
    """The policy that an operator chose.

    Args:
        section: `attestation_policy`; None means `hardware_only`.
        engine: makes the Rego engine; called only for a text without a native twin.

    Raises:
        ConfigError: a file that cannot be read, a text that cannot be evaluated here, or a type
            that this version has not.
    """
    kind = "default" if section is None else section.type
    policy: AppraisalPolicy
    if section is not None and kind in ("inline", "path"):
        policy = policy_from_text(POLICY_ID, _text(section), engine)
    else:
        policy = _shipped(kind)
    if policy.trusts_all:
        log.warning(
            "policy affirms all evidence that verifies, for tests only type=%s",
            kind,
        )
    return policy


def policy_from_text(
    policy_id: str, text: str, engine: Callable[[], RegoEngine] = load_engine
) -> AppraisalPolicy:
    """The policy that a Rego text is.

    Args:
        policy_id: its name.
        text: Rego.
        engine: see `make_policy`.

    Raises:
        ConfigError: the text is too long or no such policy, or the engine is not installed.
    """
    twin = _TWINS.get(hashlib.sha384(text.encode()).hexdigest())
    if twin is not None:
        return dataclasses.replace(twin, policy_id=policy_id)
    return make_rego_policy(policy_id, text, engine())


def _shipped(kind: str) -> NativePolicy:
    policy = SHIPPED.get("hardware_only" if kind == "default" else kind)
    if policy is None:
        raise ConfigError(
            [
                f"{_WHERE}.type: {kind!r} is not available in this version, expected one of"
                f" {', '.join(('default', *SHIPPED, 'inline', 'path'))}"
            ]
        )
    return dataclasses.replace(policy, policy_id=POLICY_ID)


def _text(section: AttestationPolicy) -> str:
    where = f"{_WHERE}.{'content' if section.type == 'inline' else 'path'}"
    try:
        if section.type == "inline":
            if not isinstance(section.content, str):
                raise ConfigError([f"{where}: expected the policy's text as base64"])
            return decode_base64(section.content).decode()
        with Path(section.path or "").open("rb") as file:
            data = file.read(4 * MAX_POLICY_TEXT + 1)  # a character has at most four octets
        return data.decode()
    except OSError as exc:
        raise ConfigError([f"{where}: cannot be read: {exc}"]) from exc
    except ValueError as exc:
        raise ConfigError([f"{where}: expected UTF-8 text: {exc}"]) from exc
