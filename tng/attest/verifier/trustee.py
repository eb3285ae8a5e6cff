"""Judging a peer by the word of a Trustee attestation service.

In: the peer's certificate, or over OHTTP its statement.  Out: an `AttestedPeer`, or the refusal
with every check made.  Two models: background check (the peer shows evidence, the service is
asked) and passport (the peer shows the service's token already).  Order of the checks:
`attest.checks`.

Judgements of one certificate, or of one statement, at the same time share one call to the
service; a pass is used again for at most a minute, a refusal never is (`verifier.judgements`).

Invariant: an `AttestedPeer` leaves this module only after `check_token` returned for a token
whose runtime data names the key of the very certificate or statement that was judged.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tng.attest.binding import pubkey_claims
from tng.attest.certificate import PeerCertificate, parse_peer_certificate
from tng.attest.checks import Findings, Step
from tng.attest.evidence import CocoToken, parse_evidence
from tng.attest.statement import MAX_TOKEN_AGE_S, Statement
from tng.attest.token import LEEWAY_S, TokenVerdict, check_token
from tng.attest.verifier.cache import fingerprint
from tng.attest.verifier.claims import check_certificate_claims, check_statement_claims
from tng.attest.verifier.judgements import Judgements
from tng.attest.verifier.service_watch import ServiceWatch
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import AttestedPeer
from tng.wire.dice import CocoEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from tng.attest.appraiser.base import Appraiser
    from tng.attest.strict_json import Json
    from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors
    from tng.clock import Clock
    from tng.verdict import Verdict


@dataclass(frozen=True, slots=True)
class TrusteeRules:
    """What one `verify` section demands.

    Attributes:
        model: who asked the attestation service: we, or the peer in advance.
        policy_ids: policies that must have been applied; empty for any.
        allow_simulated: accept platforms in software.
    """

    model: Literal["background_check", "passport"]
    policy_ids: tuple[str, ...]
    allow_simulated: bool = False


class TrusteeVerifier:
    """A `StatementVerifier` for tokens of a Trustee attestation service.

    Args:
        rules: what is demanded.
        appraiser: the service; None if it is never asked.  Closed when `run` ends.
        anchors: whom a token's signer must lead to; None to trust any signer
            (`skip_as_token_cert_verify`).
        clock: the time of day.

    Raises:
        ValueError: a background check without a service to ask.
    """

    def __init__(
        self,
        rules: TrusteeRules,
        appraiser: Appraiser | None,
        anchors: PinnedAnchors | FetchedAnchors | None,
        clock: Clock,
    ) -> None:
        is_background_check = rules.model == "background_check"
        if is_background_check and appraiser is None:
            raise ValueError("a background check needs an attestation service to ask")
        self._rules = rules
        self._appraiser = appraiser
        self._anchors = anchors
        self._clock = clock
        self._judgements = Judgements(clock)
        self._watch = ServiceWatch(appraiser, anchors, is_asked_each_time=is_background_check)

    @property
    def not_ready(self) -> str | None:
        """See `Verifier.not_ready`."""
        return self._watch.not_ready

    @property
    def models(self) -> tuple[str, ...]:
        """See `StatementVerifier.models`."""
        return (self._rules.model,)

    def verdicts(self) -> Mapping[str, Verdict]:
        """See `Verifier.verdicts`."""
        return self._judgements.verdicts()

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        """See `Verifier.judged_nowait`."""
        return self._judgements.held(fingerprint(certificate_der))

    def judged_statement_nowait(self, statement: Statement) -> AttestedPeer | None:
        """See `StatementVerifier.judged_statement_nowait`."""
        return self._judgements.held(statement.fingerprint())

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        """See `Verifier.judge`."""
        examine = functools.partial(self.examine_certificate, certificate_der)
        return await self._judgements.judge(fingerprint(certificate_der), peer, examine)

    async def judge_statement(self, statement: Statement, peer: str) -> AttestedPeer:
        """See `StatementVerifier.judge_statement`."""
        examine = functools.partial(self.examine_statement, statement)
        return await self._judgements.judge(statement.fingerprint(), peer, examine)

    async def challenge(self) -> str:
        """See `StatementVerifier.challenge`."""
        if self._appraiser is None or self._rules.model != "background_check":
            raise AppraiserError(
                "verify has model 'passport', in which no challenge is asked for",
                code=ErrorCode.AS_REJECTED,
            )
        try:
            return await self._appraiser.challenge()
        except AppraiserError as exc:
            self._note_failure(exc)
            raise

    async def run(self) -> None:
        """See `Verifier.run`."""
        await self._watch.run()

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        await self._watch.aclose()

    async def examine_certificate(self, certificate_der: bytes, findings: Findings) -> AttestedPeer:
        """Make every check on a certificate now, whatever was found out earlier.

        Args:
            certificate_der: the peer's leaf certificate.
            findings: where the checks are recorded.

        Raises:
            UntrustedPeerError: a check failed.
            AppraiserError: the attestation service could not be asked.
        """
        certificate = self._read_certificate(certificate_der, findings)
        shown = self._read_evidence(certificate.extension, findings)
        expected: dict[str, Json] = dict(pubkey_claims(certificate.spki_der))
        if isinstance(shown, CocoEvidence):
            findings.tee = shown.tee_type
            check_certificate_claims(shown, expected, findings)
        text = await self._token_for(shown, findings)
        token, record = await self._check_token(text, expected, None, findings)
        self._watch.note_presence()
        return self._accept(text, min(token.expires_at, certificate.not_after), record)

    async def examine_statement(self, statement: Statement, findings: Findings) -> AttestedPeer:
        """Make every check on a statement now, whatever was found out earlier.

        Args:
            statement: what the peer showed.
            findings: where the checks are recorded.

        Raises:
            UntrustedPeerError: a check failed.
            AppraiserError: the attestation service could not be asked.
        """
        findings.peer = statement.about.key_digest
        findings.skipped(Step.CERTIFICATE, f"OHTTP has none, key {findings.peer[:16]}")
        self._check_model(statement, findings)
        shown, expected = statement.shown, statement.expected_claims
        if isinstance(shown, CocoEvidence):
            findings.tee = shown.tee_type
            check_statement_claims(shown, expected, findings)
        text = await self._token_for(shown, findings)
        token, record = await self._check_token(text, expected, MAX_TOKEN_AGE_S, findings)
        if statement.model == self._rules.model:
            # Otherwise nobody was asked: a client's token says nothing about the service today.
            self._watch.note_presence()
        return self._accept(text, token.expires_at, record)

    def _accept(self, text: str, end: float, record: Findings) -> AttestedPeer:
        # A token or certificate that only the leeway admits lives until the end of the leeway.
        valid_until = end if end > self._clock.now() else end + LEEWAY_S
        return AttestedPeer(record.verdict(valid_until=valid_until), text)

    def _read_certificate(self, certificate_der: bytes, findings: Findings) -> PeerCertificate:
        try:
            certificate = parse_peer_certificate(certificate_der, self._clock.now())
        except UntrustedPeerError as exc:
            raise findings.refusal(Step.CERTIFICATE, exc.code, str(exc)) from exc
        findings.peer = hashlib.sha256(certificate.spki_der).hexdigest()
        findings.passed(Step.CERTIFICATE, f"self-signed, key {findings.peer[:16]}")
        return certificate

    def _read_evidence(self, extension: bytes, findings: Findings) -> CocoEvidence | CocoToken:
        try:
            evidence = parse_evidence(extension)
        except UntrustedPeerError as exc:
            raise findings.refusal(Step.EVIDENCE_FORMAT, exc.code, str(exc)) from exc
        model = "passport" if isinstance(evidence, CocoToken) else "background_check"
        if model != self._rules.model:
            raise self._other_model(model, findings)
        findings.passed(Step.EVIDENCE_FORMAT, f"model {model}, {len(extension)} octets")
        return evidence

    def _check_model(self, statement: Statement, findings: Findings) -> None:
        """Clients show tokens in either model: in a background check, the one we gave them."""
        is_given = statement.is_clients and isinstance(statement.shown, CocoToken)
        if statement.model != self._rules.model and not is_given:
            raise self._other_model(statement.model, findings)
        what = "a client's token" if is_given else f"model {statement.model}"
        findings.passed(Step.EVIDENCE_FORMAT, what)

    def _other_model(self, model: str, findings: Findings) -> UntrustedPeerError:
        detail = f"the peer attests with model {model!r}, verify has {self._rules.model!r}"
        return findings.refusal(Step.EVIDENCE_FORMAT, ErrorCode.EVIDENCE_MALFORMED, detail)

    async def _token_for(self, shown: CocoEvidence | CocoToken, findings: Findings) -> str:
        """The token that is to be judged: the peer's, or the service's about its evidence."""
        if isinstance(shown, CocoEvidence):
            return await self._appraise(shown, findings)
        findings.skipped(Step.KEY_CLAIM, "passport: the token is compared instead")
        findings.skipped(Step.APPRAISAL, "passport: the peer brought its token")
        return shown.text

    async def _appraise(self, evidence: CocoEvidence, findings: Findings) -> str:
        assert self._appraiser is not None
        try:
            text = await self._appraiser.appraise(evidence, self._rules.policy_ids)
        except UntrustedPeerError as exc:
            if exc.verdict is None:
                raise findings.refusal(Step.APPRAISAL, exc.code, str(exc)) from exc
            findings.report(exc.verdict.checks)
            raise findings.refused(exc.code, str(exc)) from exc
        except AppraiserError as exc:
            findings.failed(Step.APPRAISAL, str(exc))
            self._note_failure(exc)
            raise
        findings.passed(Step.APPRAISAL, f"the service gave a token for tee {evidence.tee_type!r}")
        return text

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

    def _note_failure(self, error: AppraiserError) -> None:
        if error.code is ErrorCode.AS_UNREACHABLE:
            self._watch.note_absence(str(error))
