"""The release of a secret: from a token to a JWE, or to the reason why not.

    1  the token is ours: our signer's signature, and its time        401
    2  it was made under the appraisal policy of the key broker       403
    3  no simulated evidence, unless the operator wants that          403
    4  the resource policy says yes                                   403
    5  there is such a secret                                         404
    6  it is sealed for the key that the evidence was bound to

Invariant: a secret leaves only sealed for a key that judged evidence vouched for; who may not have
a secret does not learn whether it exists.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.ear import Appraisal, read_ear
from tng.attest.jws import parse_token, same_key
from tng.attest.kbs.binding import TEE_KEY_CLAIM
from tng.attest.kbs.jwe import seal
from tng.attest.kbs.tee_key import TeeKey, parse_tee_key
from tng.attest.strict_json import Json, parse_object
from tng.attest.token import SOFTWARE_TEES
from tng.trustee.decisions import Act, Decided, Decision
from tng.trustee.kbs.handshake import APPRAISAL_POLICY
from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from tng.attest.kbs.resource_id import ResourceId
    from tng.attest.signer_identity import SignerIdentity
    from tng.clock import Clock
    from tng.trustee.kbs.resource_policy import ResourcePolicy
    from tng.trustee.kbs.resources import Resources

log = logging.getLogger(__name__)

_EVIDENCE: Final = "ear.veraison.annotated-evidence"


@dataclass(frozen=True, slots=True)
class _Bearer:
    """Who a verified token speaks for."""

    key: TeeKey
    appraisal: Appraisal
    claims: dict[str, Json]
    simulated: bool


class Releaser:
    """Decides about secrets.

    Args:
        identity: whose tokens count.
        resources: the secrets.
        policy: the resource policy.
        clock: judges the life of tokens.
        decided: told of every decision.
        to_simulated: whether simulated and sample evidence gets secrets, too.
    """

    def __init__(
        self,
        identity: SignerIdentity,
        resources: Resources,
        policy: ResourcePolicy,
        clock: Clock,
        decided: Decided,
        *,
        to_simulated: bool = False,
    ) -> None:
        self._public_key = identity.key.public_key()
        self._resources = resources
        self._policy = policy
        self._clock = clock
        self._decided = decided
        self._to_simulated = to_simulated

    async def release(self, token: str, resource: ResourceId, client: str) -> bytes:
        """The secret, sealed for the token's key; JSON.

        Args:
            token: compact JWS.
            resource: what is asked for.
            client: address of who asks, for the record.

        Raises:
            TrusteeRequestError: no, and why (401, 403, 404).
            StartError, AppraiserError: the secret's home cannot be read.
        """
        bearer: _Bearer | None = None
        try:
            bearer = self._read(token)
            await self._check(bearer, resource)
            secret = await self._resources.get(resource)
        except TrusteeRequestError as exc:
            log.warning("resource refused resource=%s code=%s: %s", resource, exc.problem, exc)
            self._record(resource, bearer, exc.problem, client)
            raise
        sealed = seal(secret, bearer.key)
        log.info("resource released resource=%s key=%s", resource, bearer.key.thumbprint[:16])
        self._record(resource, bearer, "", client)
        return sealed

    def _read(self, text: str) -> _Bearer:
        """Everything a token says, once its signature and its time were checked."""
        try:
            token = parse_token(text)
            if not same_key(token.key, self._public_key):
                raise ValueError("another service signed it")  # noqa: TRY301 - one translation
            token.verify_signature()
            claims = parse_object(token.payload)
            _check_time(claims, self._clock.now())
            appraisal = read_ear(claims)
            key = parse_tee_key(appraisal.runtime_data.get(TEE_KEY_CLAIM))
        except (ValueError, KeyError) as exc:
            raise TrusteeRequestError(
                f"the token gives no access to resources: {str(exc)[:300]}", ProblemCode.KBS_TOKEN
            ) from exc
        submods = claims["submods"]
        assert isinstance(submods, dict)  # read_ear saw to it
        return _Bearer(key, appraisal, claims, appraisal.simulated or _in_software(submods))

    async def _check(self, bearer: _Bearer, resource: ResourceId) -> None:
        if bearer.appraisal.policy_ids != (APPRAISAL_POLICY,):
            raise _denied(
                f"the evidence was judged under the policy {bearer.appraisal.policy_ids[0]!r:.80},"
                f" expected {APPRAISAL_POLICY!r}"
            )
        if bearer.simulated and not self._to_simulated:
            raise _denied("the evidence is simulated: no hardware stands behind it")
        if objection := await self._policy.objection(bearer.claims, resource):
            raise _denied(f"the resource policy says no: {objection[:300]}")

    def _record(self, resource: ResourceId, bearer: _Bearer | None, code: str, client: str) -> None:
        self._decided(
            Decision(
                Act.RELEASE,
                granted=not code,
                at=self._clock.now(),
                subject=bearer.key.thumbprint if bearer else "",
                target=str(resource),
                code=code,
                simulated=bearer is not None and bearer.simulated,
                client=client,
            )
        )


def _check_time(claims: dict[str, Json], now: float) -> None:
    # Our own clock dated the token, so there is no difference of clocks to forgive.
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not now < expires:
        raise ValueError("it has expired")


def _in_software(submods: dict[str, Json]) -> bool:
    """Whether a device is one that says by its name that no hardware is behind it."""
    found: set[str] = set()
    for submod in submods.values():
        evidence = submod.get(_EVIDENCE) if isinstance(submod, dict) else None
        found.update(evidence if isinstance(evidence, dict) else ())
    return not found.isdisjoint(SOFTWARE_TEES)


def _denied(message: str) -> TrusteeRequestError:
    return TrusteeRequestError(message, ProblemCode.KBS_POLICY)
