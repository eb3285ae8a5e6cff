"""Judging a peer by the word of an attestation service: what is the same for every provider.

In: the peer's certificate, or over OHTTP its statement.  Out: an `AttestedPeer`, or the refusal
with every check made.  Two models: background check (the peer shows evidence, the service is
asked) and passport (the peer shows the service's token already).  Order of the checks:
`attest.checks`.

Judgements of one certificate, or of one statement, at the same time share one call to the
service; a pass is used again for at most a minute, a refusal never is (`verifier.judgements`).

Invariant: an `AttestedPeer` leaves this module only after the provider's own check returned for
a token whose runtime data names the key of the very certificate or statement that was judged.
"""

from __future__ import annotations

import abc
import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tng.attest.binding import pubkey_claims
from tng.attest.certificate import PeerCertificate, parse_peer_certificate
from tng.attest.checks import Findings, Step
from tng.attest.evidence import Evidence, Shown, Token, parse_evidence, provider_of
from tng.attest.statement import MAX_TOKEN_AGE_S, Statement
from tng.attest.token import LEEWAY_S, TokenVerdict
from tng.attest.verifier.cache import fingerprint
from tng.attest.verifier.claims import check_certificate_claims, check_statement_claims
from tng.attest.verifier.judgements import Judgements
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.verdict import AttestedPeer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json
    from tng.attest.verifier.judgements import OnDecision
    from tng.attest.verifier.service_watch import ServiceWatch
    from tng.clock import Clock
    from tng.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Rules:
    """What one `verify` section demands of every provider's tokens.

    Attributes:
        model: who asked the attestation service: we, or the peer in advance.
        policy_ids: policies that must have been applied; empty for any.
        allow_simulated: accept platforms in software.
    """

    model: Literal["background_check", "passport"]
    policy_ids: tuple[str, ...]
    allow_simulated: bool = False


class ServiceVerifier(abc.ABC):
    """A `StatementVerifier` for tokens of one provider's attestation service.

    Args:
        rules: what is demanded.
        watch: looks after the service, and closes what there is to close.
        clock: the time of day.
        provider: whose evidence and tokens are judged, one of `evidence.PROVIDERS`.
    """

    def __init__(self, rules: Rules, watch: ServiceWatch, clock: Clock, provider: str) -> None:
        self._rules = rules
        self._watch = watch
        self._clock = clock
        self._provider = provider
        self._judgements = Judgements(clock)

    @abc.abstractmethod
    async def _ask(self, evidence: Evidence) -> str:
        """The service's token about the evidence; errors as of `Appraiser.appraise`."""

    @abc.abstractmethod
    async def _ask_challenge(self) -> str:
        """The service's challenge; errors as of `Appraiser.challenge`."""

    @abc.abstractmethod
    async def _check_token(
        self,
        text: str,
        expected: Mapping[str, Json],
        max_age_s: float | None,
        findings: Findings,
    ) -> tuple[TokenVerdict, Findings]:
        """Make the checks 5 to 13; the verdict, and the findings that go on from those given.

        Raises:
            UntrustedPeerError: a check failed.
            AppraiserError: what the token is checked with could not be had.
        """

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

    def record_with(self, on_decision: OnDecision) -> None:
        """Have every judgement from now on told to `on_decision`."""
        self._judgements.on_decision = on_decision

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
        if self._rules.model != "background_check":
            raise AppraiserError(
                "verify has model 'passport', in which no challenge is asked for",
                code=ErrorCode.AS_REJECTED,
            )
        try:
            return await self._ask_challenge()
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
        if not isinstance(shown, Token):
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
        if not isinstance(shown, Token):
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

    def _read_evidence(self, extension: bytes, findings: Findings) -> Shown:
        try:
            evidence = parse_evidence(extension)
        except UntrustedPeerError as exc:
            raise findings.refusal(Step.EVIDENCE_FORMAT, exc.code, str(exc)) from exc
        self._check_provider(evidence, findings)
        model = "passport" if isinstance(evidence, Token) else "background_check"
        if model != self._rules.model:
            raise self._other_model(model, findings)
        findings.passed(Step.EVIDENCE_FORMAT, f"model {model}, {len(extension)} octets")
        return evidence

    def _check_model(self, statement: Statement, findings: Findings) -> None:
        """Clients show tokens in either model: in a background check, the one we gave them."""
        self._check_provider(statement.shown, findings)
        is_given = statement.is_clients and isinstance(statement.shown, Token)
        if statement.model != self._rules.model and not is_given:
            raise self._other_model(statement.model, findings)
        what = "a client's token" if is_given else f"model {statement.model}"
        findings.passed(Step.EVIDENCE_FORMAT, what)

    def _check_provider(self, shown: Shown, findings: Findings) -> None:
        """What was made for another provider's service says nothing to this one."""
        if (provider := provider_of(shown)) != self._provider:
            detail = f"the peer attests for provider {provider!r}, verify has {self._provider!r}"
            raise findings.refusal(Step.EVIDENCE_FORMAT, ErrorCode.EVIDENCE_MALFORMED, detail)

    def _other_model(self, model: str, findings: Findings) -> UntrustedPeerError:
        detail = f"the peer attests with model {model!r}, verify has {self._rules.model!r}"
        return findings.refusal(Step.EVIDENCE_FORMAT, ErrorCode.EVIDENCE_MALFORMED, detail)

    async def _token_for(self, shown: Shown, findings: Findings) -> str:
        """The token that is to be judged: the peer's, or the service's about its evidence."""
        if not isinstance(shown, Token):
            return await self._appraise(shown, findings)
        findings.skipped(Step.KEY_CLAIM, "passport: the token is compared instead")
        findings.skipped(Step.APPRAISAL, "passport: the peer brought its token")
        return shown.text

    async def _appraise(self, evidence: Evidence, findings: Findings) -> str:
        try:
            text = await self._ask(evidence)
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

    def _note_failure(self, error: AppraiserError) -> None:
        if error.code is ErrorCode.AS_UNREACHABLE:
            self._watch.note_absence(str(error))
