"""The attestation service inside the gateway: an appraiser that asks nobody.

Evidence in, a token out, as from a service: each device is verified by its judge (`devices`), the
policy is evaluated over its claims, and what came of it is signed with keys of this process
(`ear_issuer`).  The verifier then checks that token like any other, with the issuer's own CA as
its one anchor, so that checks, explanation and memory are the same for every kind of service; over
OHTTP clients carry it back to us.  See docs/decisions/0006-builtin-as.md.

Source: `as_type: builtin` of TNG 2.12.0.

Invariant: no token without all evidence verified, bound to its runtime data, and put before the
policy; a token about simulated evidence says so.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from typing import TYPE_CHECKING

import trio

from tng.attest.appraiser.devices import JudgedDevice
from tng.attest.appraiser.trustee_messages import runtime_claims
from tng.attest.binding import canonical_json, report_data
from tng.attest.checks import Findings, Step
from tng.attest.devices import judge_devices
from tng.attest.ear_token import Submodule
from tng.attest.tdx.appraisal import TdxRefused
from tng.attest.user_data import CHALLENGE_CLAIM
from tng.errors import ErrorCode, RemoteProtocolError, UntrustedPeerError
from tng.verdict import Check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from tng.attest.appraiser.devices import DeviceJudge
    from tng.attest.appraiser.ear_issuer import EarIssuer
    from tng.attest.policy.base import AppraisalPolicy, References
    from tng.attest.strict_json import Json
    from tng.attest.tdx.pccs import PccsCollateral
    from tng.clock import Clock
    from tng.wire.dice import CocoEvidence

log = logging.getLogger(__name__)


class BuiltinAppraiser:
    """An `Appraiser` in process.  Used in the trio thread only.

    Args:
        judges: by name of the TEE; evidence of any other is refused.
        policy: what claims must be like.
        references: reference values for the policy, by name.
        issuer: signs tokens and challenges.
        clock: dates them.
        collateral: closed by `aclose`.
    """

    def __init__(
        self,
        judges: Mapping[str, DeviceJudge],
        policy: AppraisalPolicy,
        references: References,
        issuer: EarIssuer,
        clock: Clock,
        collateral: PccsCollateral,
    ) -> None:
        self._judges = judges
        self._policy = policy
        self._references = references
        self._issuer = issuer
        self._clock = clock
        self._collateral = collateral

    def __repr__(self) -> str:
        return f"BuiltinAppraiser({self._policy.policy_id!r})"

    async def appraise(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> str:
        """See `Appraiser.appraise`; which policies were asked for is compared by the verifier."""
        del policy_ids
        try:
            claims = runtime_claims(evidence)
            self._check_challenge(claims)
            expected = report_data(canonical_json(claims), evidence.hash_algorithm)
            judged = [await self._judge(evidence.tee_type, evidence.aa_evidence, expected)]
            judged += await self._judge_further(evidence.aa_additional_evidence, expected)
            return await self._token(judged, claims)
        except (UntrustedPeerError, RemoteProtocolError) as exc:
            raise _refused(exc) from exc

    async def challenge(self) -> str:
        """See `Appraiser.challenge`."""
        await trio.lowlevel.checkpoint()
        return self._issuer.challenge(int(self._clock.now()))

    async def fetch_certificates(self) -> list[x509.Certificate]:
        """See `Appraiser.fetch_certificates`."""
        await trio.lowlevel.checkpoint()
        return [self._issuer.ca_certificate]

    async def probe(self) -> None:
        """Always there.  Collateral is looked for when a quote says of which platform."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """See `Appraiser.aclose`."""
        await self._collateral.aclose()

    def _check_challenge(self, claims: Mapping[str, Json]) -> None:
        """A challenge in the claims is one of ours; evidence in certificates answers none."""
        if CHALLENGE_CLAIM not in claims:
            return
        token = claims[CHALLENGE_CLAIM]
        if not isinstance(token, str):
            raise UntrustedPeerError(
                f"{CHALLENGE_CLAIM}: expected text", code=ErrorCode.EVIDENCE_MALFORMED
            )
        self._issuer.check_challenge(token, int(self._clock.now()))

    async def _judge(self, tee: str, evidence: bytes, expected: bytes | None) -> JudgedDevice:
        judge = self._judges.get(tee)
        if judge is None:
            raise UntrustedPeerError(
                f"evidence of TEE {tee[:40]!r} cannot be judged by the builtin attestation "
                f"service, it knows {', '.join(sorted(self._judges))}",
                code=ErrorCode.AS_REJECTED,
            )
        return await judge.judge(evidence, expected)

    async def _judge_further(self, additional: bytes | None, expected: bytes) -> list[JudgedDevice]:
        """GPUs and the like; each must be bound to the same claims as the machine itself."""
        appraise = functools.partial(
            judge_devices, additional, expected=expected, now=self._clock.now(), allow_sample=True
        )
        found = await trio.to_thread.run_sync(appraise)
        return [JudgedDevice(item.claims, False, item.device_class) for item in found]

    async def _token(self, judged: list[JudgedDevice], claims: Mapping[str, Json]) -> str:
        """Put every device before the policy, and sign what comes of it."""
        devices = []
        counts: Counter[str] = Counter()
        for device in judged:
            annotated = _annotated(device.claims, claims)
            appraisal = await trio.to_thread.run_sync(
                self._policy.evaluate, annotated, self._references
            )
            for rule in appraisal.rules:
                log.debug("%s=%s reason=%s", rule.claim, rule.value, rule.reason)
            name = f"{device.device_class}{counts[device.device_class]}"
            counts[device.device_class] += 1
            devices.append(Submodule(name, appraisal.policy_id, appraisal.vector, annotated))
        simulated = any(device.simulated for device in judged)
        return self._issuer.token(devices, int(self._clock.now()), simulated=simulated)


def _annotated(device: Mapping[str, object], runtime_data: Mapping[str, Json]) -> dict[str, object]:
    """The device's claims, and beside the register that held a hash the claims that were hashed."""
    annotated = dict(device)
    if "report_data" in annotated:
        annotated["runtime_data_claims"] = runtime_data
    if "init_data" in annotated:
        annotated["init_data_claims"] = None  # nobody says here what they must be
    return annotated


def _refused(error: UntrustedPeerError | RemoteProtocolError) -> UntrustedPeerError:
    """The refusal in the form of a service's: one check of ours, and those of the judge below."""
    findings = Findings(0)
    findings.failed(Step.APPRAISAL, f"the builtin attestation service refused: {error}")
    if isinstance(error, TdxRefused):
        findings.report(
            Check(check.number, f"service: {check.name}", check.outcome, check.detail)
            for check in error.checks
        )
    return findings.refused(error.code, f"the builtin attestation service refused: {error}")
