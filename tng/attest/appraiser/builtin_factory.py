"""From a `verify` section with `as_type: builtin` to the service that it describes.

The section in, the appraiser and the certificate that its tokens lead to out.  Nothing is fetched
yet; policy and reference values are read now, so that what is wrong with them is said at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.attest.appraiser.builtin import BuiltinAppraiser
from tng.attest.appraiser.devices import SampleJudge, TdxJudge
from tng.attest.appraiser.ear_issuer import EarIssuer
from tng.attest.policy.factory import make_policy
from tng.attest.reference_values.factory import load_reference_values
from tng.attest.tdx.collateral_settings import CollateralSettings
from tng.attest.tdx.pccs import PccsCollateral

if TYPE_CHECKING:
    from cryptography import x509

    from tng.attest.appraiser.devices import DeviceJudge
    from tng.clock import Clock
    from tng.config.model import Verify


def make_builtin(
    verify: Verify, clock: Clock, collateral: CollateralSettings | None = None
) -> tuple[BuiltinAppraiser, x509.Certificate]:
    """The builtin attestation service of a section, and the anchor of its tokens.

    Args:
        verify: with `as_type` builtin.
        clock: the time of day.
        collateral: where collateral of real platforms comes from; None for Intel's own service.

    Raises:
        ConfigError: the policy or the reference values cannot be used.
    """
    source = PccsCollateral(collateral or CollateralSettings(), clock)
    issuer = EarIssuer(clock.now())
    # The policy decides about `sample`: only one that trusts everything affirms such evidence.
    judges: dict[str, DeviceJudge] = {"sample": SampleJudge(), "tdx": TdxJudge(source, clock)}
    policy = make_policy(verify.attestation_policy)
    references = load_reference_values(verify.reference_values or ())
    appraiser = BuiltinAppraiser(judges, policy, references, issuer, clock, source)
    return appraiser, issuer.ca_certificate
