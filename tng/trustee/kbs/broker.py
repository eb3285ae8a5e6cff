"""The key broker: what its paths do, without HTTP.

Bodies, names and times go in; answers come out, or the `TngError` that says why there is none.
Made once per service; everything that it works with is handed in.

Invariant: a session's token was made from evidence bound to that session's nonce.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tng.attest.kbs.resource_id import ResourceId, make_resource_id
from tng.trustee.decisions import Act, Decided, Decision
from tng.trustee.kbs.handshake import auth_answer, parse_attest, parse_auth
from tng.trustee.kbs.sessions import Session, Sessions, take_nonce
from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.trustee.attestation import AttestationService
    from tng.trustee.kbs.admin_gate import AdminGate
    from tng.trustee.kbs.reference_values import ReferenceValues
    from tng.trustee.kbs.release import Releaser
    from tng.trustee.kbs.resource_policy import ResourcePolicy
    from tng.trustee.kbs.resources import Resources

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the broker works with.

    Attributes:
        attestation: judges evidence.
        releaser: decides about secrets.
        resources: the secrets, for administration.
        policy: the resource policy.
        reference_values: taken in from administrators.
        gate: knows administrators.
        clock: ends sessions.
        decided: told of every decision.
    """

    attestation: AttestationService
    releaser: Releaser
    resources: Resources
    policy: ResourcePolicy
    reference_values: ReferenceValues
    gate: AdminGate
    clock: Clock
    decided: Decided


class KeyBroker:
    """The handshake and the release of secrets.

    Args:
        parts: see there.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._sessions = Sessions()

    def auth(self, body: bytes) -> tuple[bytes, str]:
        """Answer of `POST /auth`, and the new session's name.

        Raises:
            TrusteeRequestError: not such a request (400), or too many sessions (503).
        """
        request = parse_auth(body)
        name, session = self._sessions.open(request.tee, request.version, self._now())
        return auth_answer(session.nonce), name

    async def attest(self, name: str, body: bytes, client: str) -> bytes:
        """Answer of `POST /attest`: the token, JSON.  A session keeps the token it got.

        Args:
            name: of the session; "" for none.
            body: JSON.
            client: address of who asks, for the record.

        Raises:
            TrusteeRequestError: no such session (401), or not such a request (400).
            UntrustedPeerError: the evidence is refused.
            AppraiserError: it cannot be judged now.
        """
        session = self._sessions.find(name, self._now())
        if session.token is None:
            session.token = await self._judge(session, body, client)
        return json.dumps({"token": session.token}, separators=(",", ":")).encode("ascii")

    async def resource(self, name: str, token: str, path: ResourceId, client: str) -> bytes:
        """Answer of `GET /resource/...`: a JWE.

        Args:
            name: of the session; "" for none.
            token: instead of a session; "" for none.
            path: what is asked for.
            client: address of who asks, for the record.

        Raises:
            TrusteeRequestError: not for this machine, and why (401, 403, 404).
        """
        try:
            token = self._token(name, token)
        except TrusteeRequestError as exc:
            self._record(Act.RELEASE, "", str(path), exc.problem, client)
            raise
        return await self.parts.releaser.release(token, path, client)

    def require_admin(self, authorization: str, target: str, client: str) -> None:
        """Return if an administrator asks; the decision is recorded.

        Args:
            authorization: header of the request, "" for none.
            target: what is to be read or changed, for the record.
            client: address of who asks, for the record.

        Raises:
            TrusteeRequestError: administration is off (403), or no valid token (401).
        """
        try:
            self.parts.gate.check(authorization, self._now())
        except TrusteeRequestError as exc:
            self._record(Act.ADMINISTER, "", target, exc.problem, client)
            raise
        log.info("administration target=%s client=%s", target, client)
        self._record(Act.ADMINISTER, "admin", target, "", client)

    async def _judge(self, session: Session, body: bytes, client: str) -> str:
        request = parse_attest(body, session.nonce, session.tee, session.version)
        subject = request.tee_key.thumbprint
        try:
            # The old form does not repeat the nonce; the evidence is bound to it all the same.
            take_nonce(session, session.nonce if request.nonce is None else request.nonce)
        except TrusteeRequestError as exc:
            self._record(Act.APPRAISE, subject, f"evidence of {session.tee}", exc.problem, client)
            raise
        return await self.parts.attestation.appraise(
            request.appraisal, subject=subject, client=client
        )

    def _token(self, name: str, token: str) -> str:
        """The token that speaks for who asks: the one shown, or the session's."""
        if not self.parts.gate.is_open:
            # Without an administrator, whoever is on this machine may set appraisal policies.
            raise TrusteeRequestError(
                "resources are off: the service was started without --admin-key",
                ProblemCode.KBS_POLICY,
            )
        if token:
            return token
        session = self._sessions.find(name, self._now())
        if session.token is None:
            raise TrusteeRequestError(
                "nothing was attested in this session; post evidence to /attest first",
                ProblemCode.KBS_SESSION,
            )
        return session.token

    def _record(self, act: Act, subject: str, target: str, code: str, client: str) -> None:
        now = self._now()
        self.parts.decided(Decision(act, not code, now, subject, target, code, client=client))

    def _now(self) -> float:
        return self.parts.clock.now()


def resource_of(repository: str, kind: str, tag: str) -> ResourceId:
    """The name in a path's segments.

    Raises:
        TrusteeRequestError: no name (400).
    """
    try:
        return make_resource_id(repository, kind, tag)
    except ValueError as exc:
        raise TrusteeRequestError(f"resource: {exc}", ProblemCode.INVALID_ARGUMENT) from exc
