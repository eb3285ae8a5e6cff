"""From a `verify` section with `"as_provider": "ita"` to the judge that it describes.

A section in, an `ItaVerifier` out; nothing is connected yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.attest.appraiser.factory import USER_AGENT
from tng.attest.appraiser.ita import DEFAULT_API, ItaAppraiser
from tng.attest.verifier.ita import ItaVerifier
from tng.attest.verifier.ita_keys import DEFAULT_PORTAL, ItaKeys
from tng.attest.verifier.service import Rules

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.config.model import Verify


def make_ita(verify: Verify, clock: Clock) -> ItaVerifier:
    """The verifier for the section.

    Raises:
        ConfigError: `ita_jwks_addr` is no https URL.
    """
    rules = Rules(verify.model, tuple(verify.policy_ids), verify.allow_simulated)
    keys = ItaKeys(verify.ita_jwks_addr or DEFAULT_PORTAL, user_agent=USER_AGENT)
    appraiser = None
    if rules.model == "background_check":
        url = verify.as_addr or DEFAULT_API
        appraiser = ItaAppraiser(url, verify.api_key, user_agent=USER_AGENT)
    return ItaVerifier(rules, appraiser, keys, clock)
