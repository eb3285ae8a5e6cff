"""From a request to a token: the service's one decision.

The body of `POST /attestation` goes in, a signed EAR token comes out, or the error that says why
not:

    1  read the request, in either dialect               dialects
    2  find the policy; refuse what cannot be evaluated   policies
    3  check the challenge in the runtime data            challenge
    4  verify every device's evidence                     a `TeeVerifier` per TEE
    5  evaluate the policy over the claims, sign          policy, ear

Submodules are named by class and number: `cpu0`, `gpu0`, `gpu1`.  A further device (a GPU) for
which the request names nothing to be bound to must be bound to what the first request is.

Invariant: no token without all evidence verified; a token for simulated evidence says so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from tng.attest.ear_token import Submodule, sign_ear
from tng.attest.policy.base import References
from tng.errors import AppraiserError, TngError, UntrustedPeerError
from tng.trustee.decisions import Act, Decided, Decision, forget
from tng.trustee.device_evidence import DEVICE_TEES
from tng.trustee.dialects import (
    AttestationRequest,
    VerificationRequest,
    parse_attestation_request,
)
from tng.trustee.json_body import invalid
from tng.trustee.problems import ProblemCode, TrusteeRequestError, problem_of

if TYPE_CHECKING:
    from tng.attest.signer_identity import SignerIdentity
    from tng.clock import Clock
    from tng.trustee.appraised import AppraisedEvidence, TeeVerifier
    from tng.trustee.challenge import Challenger
    from tng.trustee.policies import Policies
    from tng.trustee.policy import Policy

log = logging.getLogger(__name__)

_CHALLENGE_CLAIM: Final = "challenge_token"
_MAX_EVALUATING: Final = 2
"""Policies evaluated at once: each is CPU, of this process or of the one beside it for Rego."""

ReferenceSource: TypeAlias = Callable[[], Awaitable[References]]
"""Gives the reference values that are good now, by name."""


async def no_references() -> References:
    """Reference values of a service that has none."""
    return {}


class AttestationService:
    """Appraises evidence and signs what came of it.

    Args:
        identity: signs tokens.
        challenger: knows its own challenges.
        policies: by id.
        verifiers: by canonical name of the TEE; what is not in here is refused.
        clock: dates tokens and challenges.
        decided: told of every judgement.
        references: reference values, for policies that read them.
    """

    def __init__(
        self,
        identity: SignerIdentity,
        challenger: Challenger,
        policies: Policies,
        verifiers: Mapping[str, TeeVerifier],
        clock: Clock,
        decided: Decided = forget,
        references: ReferenceSource = no_references,
    ) -> None:
        self._identity = identity
        self._challenger = challenger
        self._policies = policies
        self._verifiers = verifiers
        self._clock = clock
        self._decided = decided
        self._references = references
        self._evaluating = asyncio.Semaphore(_MAX_EVALUATING)

    async def attest(self, body: bytes, *, client: str = "") -> str:
        """Token for the evidence in a request.

        Args:
            body: of `POST /attestation`.
            client: address of who asks, for the record.

        Raises:
            RemoteProtocolError: runtime data without a canonical form.
            TrusteeRequestError, UntrustedPeerError, AppraiserError: see `appraise`.
        """
        return await self.appraise(parse_attestation_request(body), client=client)

    async def appraise(
        self, request: AttestationRequest, *, subject: str = "", client: str = ""
    ) -> str:
        """Token for evidence.

        Args:
            request: what to judge, and by which policy.
            subject: who asks, for the record: thumbprint of the TEE's key, if it is known.
            client: address of who asks, for the record.

        Raises:
            TrusteeRequestError: the request is wrong.
            UntrustedPeerError: the evidence is refused.
            AppraiserError: collateral cannot be had.
        """
        target = f"evidence of {','.join(item.tee for item in request.requests)}"
        decision = Decision(Act.APPRAISE, True, self._clock.now(), subject, target, client=client)
        try:
            submodules, simulated = await self._judge(request)
        except TngError as exc:
            code = problem_of(exc).code
            self._decided(dataclasses.replace(decision, granted=False, code=code))
            raise
        token = self._sign(submodules, simulated=simulated)
        statuses = ",".join(sorted({module.status.value for module in submodules}))
        target = f"{target} policy={submodules[0].policy_id} status={statuses}"
        self._decided(dataclasses.replace(decision, target=target, simulated=simulated))
        return token

    async def _judge(self, request: AttestationRequest) -> tuple[list[Submodule], bool]:
        """Every device, judged; and whether one of them is simulated."""
        policy = self._policies.chosen_by(request.policy_ids)
        verifiers = [self._verifier(item.tee, index) for index, item in enumerate(request.requests)]
        for item in request.requests:
            self._check_challenge(item)
        devices: list[tuple[VerificationRequest, AppraisedEvidence]] = []
        for item, verifier in zip(_bound(request.requests), verifiers, strict=True):
            devices += [(item, device) for device in await _verify_logged(verifier, item)]
        references = await self._references() if policy.reads_references else {}
        numbers: Counter[str] = Counter()
        submodules = []
        for item, device in devices:
            name = f"{device.device_class}{numbers[device.device_class]}"
            numbers[device.device_class] += 1
            submodules.append(await self._submodule(name, policy, references, item, device))
        return submodules, any(device.simulated for _, device in devices)

    async def _submodule(
        self,
        name: str,
        policy: Policy,
        references: References,
        item: VerificationRequest,
        device: AppraisedEvidence,
    ) -> Submodule:
        evidence = _annotated(item, device)
        async with self._evaluating:
            appraisal = await asyncio.to_thread(policy.evaluate, evidence, references)
        for rule in appraisal.rules:
            log.debug("%s %s=%s reason=%s", name, rule.claim, rule.value, rule.reason)
        return Submodule(name, policy.policy_id, appraisal.vector, evidence)

    def _verifier(self, tee: str, index: int) -> TeeVerifier:
        verifier = self._verifiers.get(tee)
        if verifier is None:
            hint = " (see --allow-sample)" if tee == "sample" else ""
            raise TrusteeRequestError(
                f"evidence of TEE {tee!r} is not verified here{hint};"
                f" available: {', '.join(sorted(self._verifiers))}",
                ProblemCode.UNSUPPORTED_TEE,
                field=f"verification_requests[{index}].tee",
            )
        return verifier

    def _check_challenge(self, item: VerificationRequest) -> None:
        claims = item.runtime_data.claims if item.runtime_data is not None else None
        if claims is None or _CHALLENGE_CLAIM not in claims:
            return
        token = claims[_CHALLENGE_CLAIM]
        if not isinstance(token, str):
            raise invalid("expected a string", _CHALLENGE_CLAIM)
        self._challenger.check(token, int(self._clock.now()))

    def _sign(self, submodules: list[Submodule], *, simulated: bool) -> str:
        statuses = Counter(module.status.value for module in submodules)
        log.info(
            "appraised devices=%d status=%s policy=%s simulated=%s",
            len(submodules),
            ",".join(sorted(statuses)),
            submodules[0].policy_id,
            "yes" if simulated else "no",
        )
        now = int(self._clock.now())
        return sign_ear(
            self._identity, submodules, service="tng-trustee", now=now, simulated=simulated
        )


def _bound(requests: Sequence[VerificationRequest]) -> list[VerificationRequest]:
    """The requests, further devices bound to what the first is bound to unless they say to what."""
    first = requests[0].runtime_data
    return [
        dataclasses.replace(item, runtime_data=first)
        if item.runtime_data is None and item.tee in DEVICE_TEES
        else item
        for item in requests
    ]


async def _verify_logged(
    verifier: TeeVerifier, item: VerificationRequest
) -> tuple[AppraisedEvidence, ...]:
    try:
        return await verifier.verify(item)
    except UntrustedPeerError as exc:
        log.warning("evidence refused tee=%s code=%s: %s", item.tee, exc.code.value, exc)
        raise
    except AppraiserError as exc:
        log.error("evidence not judged tee=%s code=%s: %s", item.tee, exc.code.value, exc)  # noqa: TRY400 - the cause is in the text
        raise


def _annotated(item: VerificationRequest, device: AppraisedEvidence) -> dict[str, object]:
    """The claims, and next to each register that held a hash the claims that were hashed."""
    evidence = dict(device.claims)
    if "report_data" in evidence:
        evidence["runtime_data_claims"] = item.runtime_data and item.runtime_data.claims
    if "init_data" in evidence:
        evidence["init_data_claims"] = item.init_data and item.init_data.claims
    return evidence
