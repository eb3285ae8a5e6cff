"""Judging a peer by the word of a Trustee attestation service (provider "coco").

In: evidence and tokens.  Out: what `verifier.service` needs of them: the service's token about
evidence, and the checks of a token against trust anchors, which may be fetched anew.

Invariant: a token passes only by `check_token`, against anchors that the operator named or the
service publishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tng.attest.checks import Findings, Step
from tng.attest.evidence import COCO, Evidence
from tng.attest.token import TokenVerdict, check_token
from tng.attest.transparency_log import KNOWN_LOGS
from tng.attest.verifier.service import Rules, ServiceVerifier
from tng.attest.verifier.service_watch import ServiceWatch
from tng.errors import AppraiserError, LocalProtocolError, UntrustedPeerError
from tng.wire.dice import CocoEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from tng.attest.appraiser.base import Appraiser
    from tng.attest.strict_json import Json
    from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors
    from tng.clock import Clock


@dataclass(frozen=True, slots=True)
class TrusteeRules(Rules):
    """What one `verify` section demands of Trustee's tokens.

    Attributes:
        verify_signer_transparency: the token's signer must stand in a transparency log.
    """

    verify_signer_transparency: bool = False


class TrusteeVerifier(ServiceVerifier):
    """A `StatementVerifier` for tokens of a Trustee attestation service.

    Args:
        rules: what is demanded.
        appraiser: the service; None if it is never asked.  Closed when `run` ends.
        anchors: whom a token's signer must lead to; None to trust any signer
            (`skip_as_token_cert_verify`).
        clock: the time of day.
        logs: keys of transparency logs by their origins.

    Raises:
        ValueError: a background check without a service to ask.
    """

    def __init__(
        self,
        rules: TrusteeRules,
        appraiser: Appraiser | None,
        anchors: PinnedAnchors | FetchedAnchors | None,
        clock: Clock,
        logs: Mapping[str, Ed25519PublicKey] = KNOWN_LOGS,
    ) -> None:
        is_background_check = rules.model == "background_check"
        if is_background_check and appraiser is None:
            raise ValueError("a background check needs an attestation service to ask")
        watch = ServiceWatch(appraiser, anchors, is_asked_each_time=is_background_check)
        super().__init__(rules, watch, clock, COCO)
        self._appraiser = appraiser
        self._anchors = anchors
        self._logs = logs if rules.verify_signer_transparency else None

    async def _ask(self, evidence: Evidence) -> str:
        if self._appraiser is None or not isinstance(evidence, CocoEvidence):
            raise LocalProtocolError("no service for this evidence")
        return await self._appraiser.appraise(evidence, self._rules.policy_ids)

    async def _ask_challenge(self) -> str:
        if self._appraiser is None:
            raise LocalProtocolError("no service for challenges")
        return await self._appraiser.challenge()

    async def _check_token(
        self,
        text: str,
        expected: Mapping[str, Json],
        max_age_s: float | None,
        findings: Findings,
    ) -> tuple[TokenVerdict, Findings]:
        """Check against the known anchors, and once more if the service has newer ones."""
        anchors = await self._known_anchors(findings)
        while True:
            record = findings.copy()
            try:
                token = check_token(
                    text,
                    anchors=anchors,
                    expected_claims=expected,
                    policy_ids=self._rules.policy_ids,
                    now=self._clock.now(),
                    allow_simulated=self._rules.allow_simulated,
                    max_age_s=max_age_s,
                    transparency_logs=self._logs,
                    findings=record,
                )
            except UntrustedPeerError:
                is_signer = record.checks[-1].number == Step.TOKEN_SIGNER
                if not is_signer or self._anchors is None or anchors is None:
                    raise
                anchors = await self._anchors.newer_than(anchors)
                if anchors is None:
                    raise
            else:
                return token, record

    async def _known_anchors(self, findings: Findings) -> tuple[x509.Certificate, ...] | None:
        if self._anchors is None:
            return None
        try:
            return await self._anchors.get()
        except AppraiserError as exc:
            findings.failed(Step.TOKEN_SIGNER, str(exc))
            self._watch.note_absence(str(exc))
            raise
