"""From the `verify` sections of the configuration to the judge that they describe.

Sections in, a verifier out; nothing is connected yet.  Several sections mean any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.attest.appraiser.factory import make_appraiser
from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors, load_pinned
from tng.attest.verifier.any_of import AnyOfVerifier
from tng.attest.verifier.judgements import OnDecision, forget
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.attest.appraiser.base import Appraiser
    from tng.attest.tdx.collateral_settings import CollateralSettings
    from tng.attest.verifier.base import StatementVerifier
    from tng.attest.verifier.service import ServiceVerifier
    from tng.clock import Clock
    from tng.config.model import Verify


def make_any_verifier(
    sections: tuple[Verify, ...],
    clock: Clock,
    collateral: CollateralSettings | None = None,
    on_decision: OnDecision = forget,
) -> StatementVerifier:
    """The verifier for all `verify` sections of an entry: a peer must satisfy any one of them.

    Args:
        sections: 1 or more, in the order in which they are tried.
        clock: the time of day.
        collateral: where the builtin service has it from; None for Intel's own service.
        on_decision: told of every judgement.

    Raises:
        ConfigError: one of them cannot be served (see `make_verifier`); all such are named.
    """
    if len(sections) == 1:
        only = make_verifier(sections[0], clock, collateral)
        only.record_with(on_decision)
        return only
    verifiers, problems = [], []
    for index, section in enumerate(sections):
        try:
            verifiers.append(make_verifier(section, clock, collateral))
        except ConfigError as exc:
            problems += [f"verify[{index}]: {problem}" for problem in exc.problems]
    if problems or not verifiers:
        raise ConfigError(problems or ["verify: expected at least one section, got none"])
    any_of = AnyOfVerifier(verifiers, clock)
    any_of.record_with(on_decision)
    return any_of


def make_verifier(
    verify: Verify, clock: Clock, collateral: CollateralSettings | None = None
) -> ServiceVerifier:
    """The verifier for one `verify` section.  Nothing is connected yet.

    Args:
        verify: the section.
        clock: the time of day.
        collateral: where the builtin service has it from; None for Intel's own service.

    Raises:
        ConfigError: a file cannot be read, there is no source of trust, or the section asks for a
            kind of service, or a policy, that this version does not know.
    """
    if verify.as_provider == "ita":
        from tng.attest.verifier.ita_factory import make_ita

        return make_ita(verify, clock)
    rules = TrusteeRules(
        verify.model,
        tuple(verify.policy_ids),
        verify.allow_simulated,
        verify.verify_signer_transparency,
    )
    if (verify.as_provider, verify.as_type) == ("coco", "builtin"):
        return _make_builtin(verify, rules, clock, collateral)
    appraiser = make_appraiser(verify, "verify")
    anchors = _make_anchors(verify, appraiser)
    # A passport is checked against pinned certificates alone: no service is needed then.
    is_asked = rules.model == "background_check" or isinstance(anchors, FetchedAnchors)
    if is_asked and appraiser is None:
        raise ConfigError(["verify.as_addr: expected the URL of an attestation service"])
    return TrusteeVerifier(rules, appraiser if is_asked else None, anchors, clock)


def _make_builtin(
    verify: Verify, rules: TrusteeRules, clock: Clock, collateral: CollateralSettings | None
) -> TrusteeVerifier:
    """The judge that asks nobody: its own service, trusted by its own certificate alone."""
    if rules.model != "background_check":
        raise ConfigError(["verify.as_type: a builtin attestation service gives out no passports"])
    from tng.attest.appraiser.builtin_factory import make_builtin

    appraiser, anchor = make_builtin(verify, clock, collateral)
    return TrusteeVerifier(rules, appraiser, PinnedAnchors([anchor]), clock)


def _make_anchors(
    verify: Verify, appraiser: Appraiser | None
) -> PinnedAnchors | FetchedAnchors | None:
    """Where trust in the token's signer comes from; None where the operator wants none."""
    if verify.skip_as_token_cert_verify:
        return None
    if verify.trusted_certs_paths:
        return load_pinned(verify.trusted_certs_paths)
    if appraiser is None:
        raise ConfigError(["verify: expected as_addr or trusted_certs_paths, got neither"])
    if verify.as_type == "grpc":
        raise ConfigError(
            [
                "verify.trusted_certs_paths: required key is missing with as_type grpc: over gRPC "
                "a service publishes no certificate of its signer"
            ]
        )
    return FetchedAnchors(appraiser)
