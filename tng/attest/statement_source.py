"""Evidence and tokens of our own over OHTTP: our TEE vouches for an HPKE key.

An attester, a clock and, for the passport model, an appraiser in.  Out, for any user data:
evidence that answers the peer's challenge, or a token for which our own attestation service was
asked for a challenge:

    user data -> claims -> report data -> evidence (-> token)

Nothing is kept here: whoever asks decides how long an answer is used again.

Invariant: what is returned is about the user data that was given, and a token has not expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from tng.attest.attester.factory import make_any_attester
from tng.attest.attester.ita import AnyAttester, ItaAttester
from tng.attest.binding import canonical_json
from tng.attest.credential_source import collect_evidence
from tng.attest.evidence import COCO, ITA, Evidence
from tng.attest.passport import AnyAppraiser, make_issuer, obtain_token
from tng.attest.token_expiry import read_live_expiry
from tng.attest.user_data import UserData, claims_of, with_challenge
from tng.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.clock import Clock
    from tng.config.model import Attest


@dataclass(frozen=True, slots=True, repr=False)
class Passport:
    """A token about one key of ours.

    Attributes:
        token: the JWT.  Never logged.
        expires_at: its `exp`, Unix time in seconds.
        provider: whose service made it.
    """

    token: str
    expires_at: float
    provider: str = COCO

    def __repr__(self) -> str:
        return f"Passport(expires_at={self.expires_at:.0f})"


class StatementSource:
    """Makes statements about keys of ours.

    Args:
        attester: obtains evidence from our TEE.
        clock: the time of day, for tokens.
        appraiser: turns evidence into a token (model passport); None to show the evidence itself
            (model background_check).  Closed by `aclose`.
        policy_ids: policies to ask the appraiser for.
    """

    _provider: str = COCO

    def __init__(
        self,
        attester: AnyAttester,
        clock: Clock,
        appraiser: AnyAppraiser | None = None,
        policy_ids: Sequence[str] = (),
    ) -> None:
        self._attester = attester
        self._provider = ITA if isinstance(attester, ItaAttester) else COCO
        self._clock = clock
        self._appraiser = appraiser
        self._policy_ids = tuple(policy_ids)

    @property
    def model(self) -> str:
        """What peers are shown: evidence ("background_check") or a token ("passport")."""
        return "background_check" if self._appraiser is None else "passport"

    @property
    def provider(self) -> str:
        """Whose service judges what is shown, or has judged it."""
        return self._provider

    async def evidence(self, user_data: UserData) -> Evidence:
        """Evidence about the user data.

        Args:
            user_data: our key, and the challenge of whoever will judge.

        Raises:
            EvidenceError: our TEE gave no evidence.
            LocalProtocolError: there is no challenge to answer.
        """
        if user_data.challenge_token is None:
            raise LocalProtocolError("evidence over OHTTP answers a challenge, none was given")
        runtime_data = canonical_json(claims_of(user_data)).decode()
        return await collect_evidence(self._attester, runtime_data)

    async def passport(self, user_data: UserData) -> Passport:
        """A token about the key; a challenge in the user data is replaced by our service's own.

        Raises:
            EvidenceError: our TEE gave no evidence.
            AppraiserError: the attestation service gave no challenge or no usable token.
            UntrustedPeerError: the attestation service refused our evidence.
            LocalProtocolError: the model is background_check.
        """
        if self._appraiser is None:
            raise LocalProtocolError("a source of model background_check makes no passports")
        challenge = await self._appraiser.challenge()
        evidence = await self.evidence(with_challenge(user_data, challenge))
        token = await obtain_token(self._appraiser, evidence, self._policy_ids)
        expires_at = read_live_expiry(token.text, self._clock.now())
        return Passport(token.text, expires_at, token.provider)

    async def aclose(self) -> None:
        """Close the connections to the attestation service."""
        if self._appraiser is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._appraiser.aclose()


def make_statement_source(attest: Attest, clock: Clock) -> StatementSource:
    """The source that an `attest` section of the configuration describes.  Nothing is asked yet.

    Raises:
        ConfigError: a provider or a type that this version cannot serve, or without its address.
    """
    return StatementSource(make_any_attester(attest), clock, make_issuer(attest), attest.policy_ids)
