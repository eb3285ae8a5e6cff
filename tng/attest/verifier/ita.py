"""Judging a peer by the word of Intel Trust Authority (provider "ita").

In: evidence and tokens.  Out: what `verifier.service` needs of them: the service's token about
evidence, and the checks of a token against the keys that the service's portal publishes.

Invariant: a token passes only by `check_ita_token`, under a key that the portal publishes now.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from tng.attest.checks import Findings, Step
from tng.attest.evidence import ITA, Evidence
from tng.attest.ita_token import ALGORITHM, ISSUERS, check_ita_token
from tng.attest.jws import parse_key_id
from tng.attest.token import TokenVerdict
from tng.attest.verifier.service import Rules, ServiceVerifier
from tng.attest.verifier.service_watch import ServiceWatch
from tng.errors import AppraiserError, ErrorCode, LocalProtocolError
from tng.wire.ita_evidence import ItaEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from tng.attest.appraiser.ita import ItaAppraiser
    from tng.attest.strict_json import Json
    from tng.attest.verifier.ita_keys import ItaKeys
    from tng.clock import Clock


PROBE_INTERVAL_S: Final = 300.0
"""Seconds between two questions that nobody needs answered; the service counts them all."""


class ItaVerifier(ServiceVerifier):
    """A `StatementVerifier` for tokens of Intel Trust Authority.

    Args:
        rules: what is demanded.
        appraiser: the service; None if it is never asked.  Closed when `run` ends.
        keys: what tokens are signed with.  Closed when `run` ends.
        clock: the time of day.

    Raises:
        ValueError: a background check without a service to ask.
    """

    def __init__(
        self, rules: Rules, appraiser: ItaAppraiser | None, keys: ItaKeys, clock: Clock
    ) -> None:
        is_background_check = rules.model == "background_check"
        if is_background_check and appraiser is None:
            raise ValueError("a background check needs an attestation service to ask")
        self._service = _Service(appraiser, keys)
        watch = ServiceWatch(self._service, keys, is_asked_each_time=is_background_check)
        super().__init__(rules, watch, clock, ITA)
        self._appraiser = appraiser
        self._keys = keys

    async def _ask(self, evidence: Evidence) -> str:
        if self._appraiser is None or not isinstance(evidence, ItaEvidence):
            raise LocalProtocolError("no service for this evidence")
        try:
            return await self._appraiser.appraise(evidence, self._rules.policy_ids)
        except AppraiserError:
            self._service.forget()
            raise

    async def _ask_challenge(self) -> str:
        if self._appraiser is None:
            raise LocalProtocolError("no service for challenges")
        try:
            return await self._appraiser.challenge()
        except AppraiserError:
            self._service.forget()
            raise

    async def _check_token(
        self,
        text: str,
        expected: Mapping[str, Json],
        max_age_s: float | None,
        findings: Findings,
    ) -> tuple[TokenVerdict, Findings]:
        key = await self._key_of(text, findings)
        token = check_ita_token(
            text,
            key,
            issuers=ISSUERS | {self._keys.portal},
            expected_claims=expected,
            policy_ids=self._rules.policy_ids,
            now=self._clock.now(),
            allow_simulated=self._rules.allow_simulated,
            max_age_s=max_age_s,
            findings=findings,
        )
        return token, findings

    async def _key_of(self, text: str, findings: Findings) -> RSAPublicKey:
        """Checks 5 and 6: the key that the portal publishes for the token."""
        try:
            key_id = parse_key_id(text, ALGORITHM)
        except ValueError as exc:
            raise findings.refusal(Step.TOKEN_FORMAT, ErrorCode.AS_BAD_TOKEN, str(exc)) from exc
        findings.passed(Step.TOKEN_FORMAT, f"{len(text)} characters, alg {ALGORITHM}")
        try:
            key = await self._keys.find(key_id)
        except AppraiserError as exc:
            findings.failed(Step.TOKEN_SIGNER, str(exc))
            self._watch.note_absence(str(exc))
            raise
        if key is None:
            detail = f"{self._keys.portal} publishes no key with the kid {key_id!r:.80}"
            raise findings.refusal(Step.TOKEN_SIGNER, ErrorCode.AS_BAD_TOKEN, detail)
        findings.passed(Step.TOKEN_SIGNER, f"kid {key_id!r:.80} of {self._keys.portal}")
        return key


class _Service:
    """The service and its portal, as one thing to look after."""

    def __init__(self, appraiser: ItaAppraiser | None, keys: ItaKeys) -> None:
        self._appraiser = appraiser
        self._keys = keys
        self._answered_at = -math.inf

    def forget(self) -> None:
        """It failed somebody: the next probe asks."""
        self._answered_at = -math.inf

    async def probe(self) -> None:
        now = trio.current_time()
        if self._appraiser is not None and now - self._answered_at >= PROBE_INTERVAL_S:
            await self._appraiser.probe()
            self._answered_at = now

    async def aclose(self) -> None:
        await self._keys.aclose()
        if self._appraiser is not None:
            await self._appraiser.aclose()
