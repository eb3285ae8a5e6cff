"""From the `verify` sections of the configuration to the judge that they describe.

Sections in, a verifier out; nothing is connected yet.  Several sections mean any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng import __version__
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors, load_pinned
from tng.attest.verifier.any_of import AnyOfVerifier
from tng.attest.verifier.trustee import TrusteeRules, TrusteeVerifier
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.attest.appraiser.base import Appraiser
    from tng.attest.verifier.base import StatementVerifier
    from tng.clock import Clock
    from tng.config.model import Verify

USER_AGENT: Final = f"tng-gateway/{__version__}"
"""What attestation services see of us."""


def make_any_verifier(sections: tuple[Verify, ...], clock: Clock) -> StatementVerifier:
    """The verifier for all `verify` sections of an entry: a peer must satisfy any one of them.

    Args:
        sections: 1 or more, in the order in which they are tried.
        clock: the time of day.

    Raises:
        ConfigError: one of them cannot be served (see `make_verifier`); all such are named.
    """
    if len(sections) == 1:
        return make_verifier(sections[0], clock)
    verifiers, problems = [], []
    for index, section in enumerate(sections):
        try:
            verifiers.append(make_verifier(section, clock))
        except ConfigError as exc:
            problems += [f"verify[{index}]: {problem}" for problem in exc.problems]
    if problems or not verifiers:
        raise ConfigError(problems or ["verify: expected at least one section, got none"])
    return AnyOfVerifier(verifiers, clock)


def make_verifier(verify: Verify, clock: Clock) -> TrusteeVerifier:
    """The verifier for one `verify` section.  Nothing is connected yet.

    Raises:
        ConfigError: a pinned certificate cannot be read, there is no source of trust, or the
            section asks for a kind of service that this version does not know.
    """
    if verify.as_provider != "coco" or verify.as_type != "restful":
        raise ConfigError(
            [
                f"verify: expected as_provider coco with as_type restful, "
                f"got {verify.as_provider} with {verify.as_type}"
            ]
        )
    rules = TrusteeRules(verify.model, tuple(verify.policy_ids), verify.allow_simulated)
    appraiser = _make_appraiser(verify)
    anchors = _make_anchors(verify, appraiser)
    # A passport is checked against pinned certificates alone: no service is needed then.
    is_asked = rules.model == "background_check" or isinstance(anchors, FetchedAnchors)
    if is_asked and appraiser is None:
        raise ConfigError(["verify.as_addr: expected the URL of an attestation service"])
    return TrusteeVerifier(rules, appraiser if is_asked else None, anchors, clock)


def _make_appraiser(verify: Verify) -> TrusteeRestAppraiser | None:
    if verify.as_addr is None:
        return None
    headers = {name: value.reveal() for name, value in verify.as_headers.items()}
    return TrusteeRestAppraiser(verify.as_addr, headers, user_agent=USER_AGENT)


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
    return FetchedAnchors(appraiser)
