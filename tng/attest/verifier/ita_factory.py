"""From a `verify` section with `"as_provider": "ita"` to the judge that it describes.

A section in, an `ItaVerifier` out; nothing is connected yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.attest.appraiser.factory import USER_AGENT, make_ita_appraiser
from tng.attest.verifier.ita import ItaVerifier
from tng.attest.verifier.ita_keys import DEFAULT_PORTAL, ItaKeys
from tng.attest.verifier.service import Rules

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.config.model import Verify


def make_ita(verify: Verify, clock: Clock) -> ItaVerifier:
    """The verifier for the section.

    Raises:
        ConfigError: `ita_jwks_addr` is no https URL, or there is no key for a service that is
            known to want one.
    """
    rules = Rules(verify.model, tuple(verify.policy_ids), verify.allow_simulated)
    keys = ItaKeys(verify.ita_jwks_addr or DEFAULT_PORTAL, user_agent=USER_AGENT)
    is_asked = rules.model == "background_check"
    appraiser = make_ita_appraiser(verify, "verify") if is_asked else None
    return ItaVerifier(rules, appraiser, keys, clock)
