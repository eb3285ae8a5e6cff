"""From a `verify` section with `as_type: builtin` to the service that it describes.

The section in, the appraiser and the certificate that its tokens lead to out.  Nothing is fetched
yet; policy and reference values are read now, so that what is wrong with them is said at start.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tng.attest.appraiser.builtin import BuiltinAppraiser
from tng.attest.appraiser.devices import SampleJudge, TdxJudge
from tng.attest.appraiser.ear_issuer import EarIssuer
from tng.attest.policy.factory import make_policy
from tng.attest.reference_values.factory import load_reference_values
from tng.attest.tdx.collateral_settings import CollateralSettings
from tng.attest.tdx.pccs import PccsCollateral
from tng.errors import ConfigError, EvidenceError

if TYPE_CHECKING:
    from cryptography import x509

    from tng.attest.appraiser.devices import DeviceJudge
    from tng.attest.tdx.simulator.platform import SimulatedPlatform
    from tng.clock import Clock
    from tng.config.model import Verify

log = logging.getLogger(__name__)


def make_builtin(
    verify: Verify, clock: Clock, collateral: CollateralSettings | None = None
) -> tuple[BuiltinAppraiser, x509.Certificate]:
    """The builtin attestation service of a section, and the anchor of its tokens.

    Args:
        verify: with `as_type` builtin.
        clock: the time of day.
        collateral: where collateral of real platforms comes from; None for Intel's own service.

    Raises:
        ConfigError: the policy, the reference values or the simulated platform cannot be used.
    """
    source = PccsCollateral(collateral or CollateralSettings(), clock)
    issuer = EarIssuer(clock.now())
    tdx = TdxJudge(source, clock, platform=_simulated_platform(verify, clock))
    # The policy decides about `sample`: only one that trusts everything affirms such evidence.
    judges: dict[str, DeviceJudge] = {"sample": SampleJudge(), "tdx": tdx}
    policy = make_policy(verify.attestation_policy)
    references = load_reference_values(verify.reference_values or ())
    appraiser = BuiltinAppraiser(judges, policy, references, issuer, clock, source)
    return appraiser, issuer.ca_certificate


def _simulated_platform(verify: Verify, clock: Clock) -> SimulatedPlatform | None:
    """The platform in software whose root is trusted here, beside Intel's; None for none.

    Made where there is none yet, as by the attester that shows its evidence: either may be the
    first to start.  What becomes of such evidence is up to `allow_simulated`.
    """
    if verify.simulated_platform is None:
        return None
    from tng.attest.tdx.simulator.platform import SimulatedPlatform

    directory = Path(verify.simulated_platform)
    try:
        platform = SimulatedPlatform.load_or_create(directory, int(clock.now()))
    except EvidenceError as exc:
        raise ConfigError([f"verify.simulated_platform: {exc}"]) from exc
    log.warning("SIMULATED TDX platform is judged under its own root directory=%s", directory)
    return platform
