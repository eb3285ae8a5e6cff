"""From our own evidence to a token: the passport model, whichever service makes the token.

An `attest` section in, the client of its service out; then evidence in, an unjudged `Token` out.

Invariant: evidence goes only to a service of the provider that it was made for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from tng.attest.appraiser.base import Appraiser
from tng.attest.appraiser.factory import make_appraiser, make_ita_appraiser
from tng.attest.appraiser.ita import ItaAppraiser
from tng.attest.evidence import COCO, ITA, CocoToken, Evidence, ItaToken, Token
from tng.errors import ConfigError, LocalProtocolError
from tng.wire.ita_evidence import ItaEvidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.config.model import Attest

AnyAppraiser: TypeAlias = Appraiser | ItaAppraiser
"""A client of an attestation service, of whichever provider."""


def make_issuer(attest: Attest) -> AnyAppraiser | None:
    """The service that makes our tokens; None in the model background_check.

    Raises:
        ConfigError: it has no address, no key where it wants one, or is of a kind that this
            version does not know.
    """
    if attest.model == "background_check":
        return None
    if attest.as_provider == "ita":
        return make_ita_appraiser(attest, "attest")
    appraiser = make_appraiser(attest, "attest")
    if appraiser is None:
        raise ConfigError(["attest.as_addr: a passport needs the URL of an attestation service"])
    return appraiser


def issuer_provider(issuer: AnyAppraiser) -> str:
    """Whose service it is."""
    return ITA if isinstance(issuer, ItaAppraiser) else COCO


async def obtain_token(
    issuer: AnyAppraiser, evidence: Evidence, policy_ids: Sequence[str]
) -> Token:
    """The service's token about our evidence.

    Raises:
        UntrustedPeerError: the service looked at the evidence and refused it.
        AppraiserError: the service could not be asked, or gave no answer to the question.
        LocalProtocolError: the evidence was made for another provider.
    """
    if isinstance(issuer, ItaAppraiser):
        if isinstance(evidence, ItaEvidence):
            return ItaToken(await issuer.appraise(evidence, policy_ids))
    elif not isinstance(evidence, ItaEvidence):
        return CocoToken(await issuer.appraise(evidence, policy_ids))
    raise LocalProtocolError("evidence was made for another provider than the service is of")
