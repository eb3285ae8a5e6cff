"""From a request to a token: the service's one decision.

The body of `POST /attestation` goes in, a signed EAR token comes out, or the error that says why
not:

    1  read the request, in either dialect               dialects
    2  find the policy; refuse what cannot be evaluated   policies
    3  check the challenge in the runtime data            challenge
    4  verify every device's evidence                     a `TeeVerifier` per TEE
    5  evaluate the policy over the claims, sign          policy, ear

Invariant: no token without all evidence verified; a token for simulated evidence says so.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tng.errors import AppraiserError, TngError, UntrustedPeerError
from tng.trustee.decisions import Act, Decided, Decision, forget
from tng.trustee.dialects import (
    AttestationRequest,
    VerificationRequest,
    parse_attestation_request,
)
from tng.trustee.ear import Submodule, make_token
from tng.trustee.json_body import invalid
from tng.trustee.problems import ProblemCode, TrusteeRequestError, problem_of

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.trustee.appraised import AppraisedEvidence, TeeVerifier
    from tng.trustee.challenge import Challenger
    from tng.trustee.identity import SignerIdentity
    from tng.trustee.policies import Policies
    from tng.trustee.policy import Policy

log = logging.getLogger(__name__)

_CHALLENGE_CLAIM: Final = "challenge_token"
_DEVICE_CLASS: Final = "cpu"  # tdx and sample; classes for other devices come with their verifiers


class AttestationService:
    """Appraises evidence and signs what came of it.

    Args:
        identity: signs tokens.
        challenger: knows its own challenges.
        policies: by id.
        verifiers: by canonical name of the TEE; what is not in here is refused.
        clock: dates tokens and challenges.
        decided: told of every judgement.
    """

    def __init__(
        self,
        identity: SignerIdentity,
        challenger: Challenger,
        policies: Policies,
        verifiers: Mapping[str, TeeVerifier],
        clock: Clock,
        decided: Decided = forget,
    ) -> None:
        self._identity = identity
        self._challenger = challenger
        self._policies = policies
        self._verifiers = verifiers
        self._clock = clock
        self._decided = decided

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
        submodules: list[Submodule] = []
        simulated = False
        for number, (item, verifier) in enumerate(zip(request.requests, verifiers, strict=True)):
            appraised = await _verify_logged(verifier, item)
            simulated = simulated or appraised.simulated
            submodules.append(_submodule(f"{_DEVICE_CLASS}{number}", policy, item, appraised))
        return submodules, simulated

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
        return make_token(
            self._identity, submodules, now=int(self._clock.now()), simulated=simulated
        )


async def _verify_logged(verifier: TeeVerifier, item: VerificationRequest) -> AppraisedEvidence:
    try:
        return await verifier.verify(item)
    except UntrustedPeerError as exc:
        log.warning("evidence refused tee=%s code=%s: %s", item.tee, exc.code.value, exc)
        raise
    except AppraiserError as exc:
        log.error("evidence not judged tee=%s code=%s: %s", item.tee, exc.code.value, exc)  # noqa: TRY400 - the cause is in the text
        raise


def _submodule(
    name: str, policy: Policy, item: VerificationRequest, appraised: AppraisedEvidence
) -> Submodule:
    evidence = dict(appraised.claims)
    # The service adds the claims that were hashed next to the register that held the hash.
    if "report_data" in evidence:
        evidence["runtime_data_claims"] = item.runtime_data and item.runtime_data.claims
    if "init_data" in evidence:
        evidence["init_data_claims"] = item.init_data and item.init_data.claims
    return Submodule(name, policy.policy_id, policy.evaluate(evidence), evidence)
