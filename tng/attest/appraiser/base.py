"""What turns evidence into a token: the seam in front of every attestation service.

In: unjudged `CocoEvidence`.  Out: the text of a token that nobody has checked yet, or an
exception.  Whether the token is to be believed is decided in `attest.token`, never here.  Evidence
may have to answer a challenge: the same service gives one, and looks for it in the runtime data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from tng.wire.dice import CocoEvidence


class Appraiser(Protocol):
    """A client of an attestation service.  Used in the trio thread only."""

    async def appraise(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> str:
        """The service's token for the evidence, unchecked.

        Args:
            evidence: of one TEE and perhaps further devices.
            policy_ids: policies to apply; empty for the service's default.

        Raises:
            UntrustedPeerError: the service looked at the evidence and refused it.
            AppraiserError: the service could not be asked, or gave no answer to the question.
        """
        ...

    async def challenge(self) -> str:
        """A new challenge, a JWT for `challenge_token` in the runtime data of evidence.

        Raises:
            AppraiserError: the service could not be asked, or gives no challenges.
        """
        ...

    async def fetch_certificates(self) -> list[x509.Certificate]:
        """Every certificate that the service publishes for its token signer, at least one.

        Raises:
            AppraiserError: it could not be asked, or publishes none.
        """
        ...

    async def probe(self) -> None:
        """Return if the service answers at all.

        Raises:
            AppraiserError: it does not, or says that it is out of order.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections.  Asking again afterwards opens new ones."""
        ...
