"""Judging a peer by the word of a Trustee attestation service.

In: the peer's certificate.  Out: an `AttestedPeer`, or the refusal with every check made.
Two models: background check (the certificate carries evidence, the service is asked) and passport
(the certificate carries the service's token already).  Order of the checks: `attest.checks`.

Judgements of one certificate at the same time share one call to the service; a pass is used again
for at most a minute (`verifier.cache`), a refusal never is.

Invariant: an `AttestedPeer` leaves this module only after `check_token` returned for a token
whose runtime data names the key of the very certificate that was judged.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import trio

from tng.attest.binding import pubkey_claims
from tng.attest.certificate import PeerCertificate, parse_peer_certificate
from tng.attest.checks import Findings, Step
from tng.attest.evidence import CocoToken, parse_evidence
from tng.attest.strict_json import parse_object, same_json
from tng.attest.token import LEEWAY_S, TokenVerdict, check_token
from tng.attest.verifier import explain
from tng.attest.verifier.cache import VerdictCache, fingerprint
from tng.errors import AppraiserError, AttestationError, ErrorCode, UntrustedPeerError
from tng.verdict import AttestedPeer
from tng.wire.dice import CocoEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from tng.attest.appraiser.base import Appraiser
    from tng.attest.verifier.anchors import FetchedAnchors, PinnedAnchors
    from tng.clock import Clock
    from tng.verdict import Verdict

FIRST_RETRY_S: Final = 0.2
"""Seconds until an absent service is looked for again; doubled up to `PROBE_INTERVAL_S`."""

PROBE_INTERVAL_S: Final = 3.0
"""Seconds between two looks at a service that is there."""

PROBE_TIMEOUT_S: Final = 5.0
"""Seconds after which a service that is silent counts as absent."""

CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that closing connections may take at the end."""

MAX_PEERS: Final = 256
"""Peer labels whose last verdict is kept for the status page; the oldest makes room."""

log = logging.getLogger(__name__)


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
    """A `Verifier` for tokens of a Trustee attestation service.

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
        if rules.model == "background_check" and appraiser is None:
            raise ValueError("a background check needs an attestation service to ask")
        self._rules = rules
        self._appraiser = appraiser
        self._anchors = anchors
        self._clock = clock
        self._cache = VerdictCache(clock)
        self._flights: dict[bytes, _Flight] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._not_ready: str | None = "the attestation service has not answered yet"
        if appraiser is None:
            self._not_ready = None

    @property
    def not_ready(self) -> str | None:
        """See `Verifier.not_ready`."""
        return self._not_ready

    def verdicts(self) -> Mapping[str, Verdict]:
        """See `Verifier.verdicts`."""
        return dict(self._verdicts)

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        """See `Verifier.judged_nowait`."""
        return self._cache.get(fingerprint(certificate_der))

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        """See `Verifier.judge`."""
        key = fingerprint(certificate_der)
        while True:
            held = self._cache.get(key)
            if held is not None:
                self._keep(peer, held.verdict)
                return held
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, certificate_der, peer)
            await flight.landed.wait()
            match flight.outcome:
                case AttestedPeer() as attested:
                    self._keep(peer, attested.verdict)
                    return attested
                case AttestationError() as error:
                    if flight.verdict is not None:
                        self._keep(peer, flight.verdict)
                    raise _again(error)
                case None:  # the task that judged was cancelled: take its place
                    continue

    async def run(self) -> None:
        """See `Verifier.run`."""
        if self._appraiser is None:
            await trio.sleep_forever()
        try:
            await self._watch()
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the service; for users that never call `run`."""
        if self._appraiser is not None:
            await self._appraiser.aclose()

    async def _watch(self) -> None:
        pause = FIRST_RETRY_S
        while True:
            if await self._is_there():
                if self._rules.model == "passport":
                    await trio.sleep_forever()  # the anchors are here, nothing else is asked for
                pause = FIRST_RETRY_S
                await trio.sleep(PROBE_INTERVAL_S)
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, PROBE_INTERVAL_S)

    async def _is_there(self) -> bool:
        """Whether the service gave what judging needs; the answer is noted for `not_ready`."""
        assert self._appraiser is not None
        try:
            with trio.fail_after(PROBE_TIMEOUT_S):
                if self._anchors is not None:
                    await self._anchors.get()
                if self._rules.model == "background_check":
                    await self._appraiser.probe()
        except AppraiserError as exc:
            self._note_absence(str(exc))
        except trio.TooSlowError:
            self._note_absence(f"the attestation service is silent for {PROBE_TIMEOUT_S:g} s")
        else:
            self._note_presence()
            return True
        return False

    def _note_absence(self, reason: str) -> None:
        if self._not_ready != reason:
            log.warning("attestation service is not available reason=%s", reason)
        self._not_ready = reason

    def _note_presence(self) -> None:
        if self._not_ready is not None:
            log.info("attestation service is available")
        self._not_ready = None

    async def _lead(self, key: bytes, certificate_der: bytes, peer: str) -> AttestedPeer:
        """Judge, and share the outcome with everybody who asks meanwhile."""
        flight = self._flights[key] = _Flight()
        findings = Findings(self._clock.now())
        try:
            attested = await self._judge(certificate_der, findings)
        except AttestationError as exc:
            flight.outcome = exc
            flight.verdict = _verdict_of(exc, findings)
            self._keep(peer, flight.verdict)
            is_judged = isinstance(exc, UntrustedPeerError)
            event = "peer refused" if is_judged else "peer could not be judged"
            log.warning("%s peer=%s code=%s error=%s", event, peer, exc.code, exc)
            raise
        else:
            flight.outcome = attested
            self._cache.put(key, attested)
            self._keep(peer, attested.verdict)
            log.info("peer accepted peer=%s %s", peer, explain.summary(attested.verdict))
            return attested
        finally:
            del self._flights[key]
            flight.landed.set()

    async def _judge(self, certificate_der: bytes, findings: Findings) -> AttestedPeer:
        certificate = self._read_certificate(certificate_der, findings)
        expected = pubkey_claims(certificate.spki_der)
        evidence = self._read_evidence(certificate.extension, findings)
        if isinstance(evidence, CocoToken):
            findings.skipped(Step.KEY_CLAIM, "passport: the token is compared instead")
            findings.skipped(Step.APPRAISAL, "passport: the peer brought its token")
            text = evidence.text
        else:
            findings.tee = evidence.tee_type
            _check_key_claim(evidence, expected, findings)
            text = await self._appraise(evidence, findings)
        token, record = await self._check_token(text, expected, findings)
        now = self._clock.now()
        end = min(token.expires_at, certificate.not_after)
        # A token or certificate that only the leeway admits lives until the end of the leeway.
        valid_until = end if end > now else end + LEEWAY_S
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
            detail = f"the peer attests with model {model!r}, verify has {self._rules.model!r}"
            raise findings.refusal(Step.EVIDENCE_FORMAT, ErrorCode.EVIDENCE_MALFORMED, detail)
        findings.passed(Step.EVIDENCE_FORMAT, f"model {model}, {len(extension)} octets")
        return evidence

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
            if exc.code is ErrorCode.AS_UNREACHABLE:
                self._note_absence(str(exc))
            raise
        findings.passed(Step.APPRAISAL, f"the service gave a token for tee {evidence.tee_type!r}")
        return text

    async def _check_token(
        self, text: str, expected: Mapping[str, str], findings: Findings
    ) -> tuple[TokenVerdict, Findings]:
        """Check against the known anchors, and once more if the service has newer ones."""
        anchors = await self._known_anchors(findings)
        while True:
            record = findings.copy()
            try:
                token = check_token(
                    text,
                    anchors=anchors,
                    expected_claims=dict(expected),
                    policy_ids=self._rules.policy_ids,
                    now=self._clock.now(),
                    allow_simulated=self._rules.allow_simulated,
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
                self._note_presence()
                return token, record

    async def _known_anchors(self, findings: Findings) -> tuple[x509.Certificate, ...] | None:
        if self._anchors is None:
            return None
        try:
            return await self._anchors.get()
        except AppraiserError as exc:
            findings.failed(Step.TOKEN_SIGNER, str(exc))
            self._note_absence(str(exc))
            raise

    def _keep(self, peer: str, verdict: Verdict) -> None:
        self._verdicts.pop(peer, None)
        while len(self._verdicts) >= MAX_PEERS:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[peer] = verdict


class _Flight:
    """One judgement under way, and what it came to; None means that it was cancelled."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.outcome: AttestedPeer | AttestationError | None = None
        self.verdict: Verdict | None = None


def _check_key_claim(
    evidence: CocoEvidence, expected: Mapping[str, str], findings: Findings
) -> None:
    """Refuse evidence for another key before anybody is asked about it."""
    try:
        runtime_data = parse_object(evidence.aa_runtime_data.encode("utf-8", "surrogatepass"))
    except ValueError as exc:
        detail = f"aa_runtime_data is not a JSON object: {exc}"
        raise findings.refusal(Step.KEY_CLAIM, ErrorCode.EVIDENCE_MALFORMED, detail) from exc
    for name, value in expected.items():
        if not same_json(runtime_data.get(name), value):
            seen = runtime_data.get(name)
            detail = f"{name!r} is {seen!r:.120}, the certificate's key needs {value!r}"
            raise findings.refusal(Step.KEY_CLAIM, ErrorCode.BINDING_MISMATCH, detail)
    findings.passed(Step.KEY_CLAIM, "runtime data names the certificate's key")


def _verdict_of(error: AttestationError, findings: Findings) -> Verdict:
    """The verdict to keep for a peer that got no pass."""
    if isinstance(error, UntrustedPeerError) and error.verdict is not None:
        return error.verdict
    return findings.verdict(code=error.code)


def _again(error: AttestationError) -> AttestationError:
    """A second exception that says the same: one object cannot travel up two tasks."""
    if isinstance(error, UntrustedPeerError):
        return UntrustedPeerError(str(error), code=error.code, verdict=error.verdict)
    return AppraiserError(str(error), code=error.code)
