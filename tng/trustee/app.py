"""HTTP interface of the attestation service: paths, and how each is answered.

    POST   /attestation       evidence -> token
    POST   /challenge         -> nonce and challenge token
    GET    /certificate       chain of the token signer, PEM
    GET    /policy            list;  POST stores one
    GET    /policy/{id}       text;  DELETE forgets one
    GET    /status            what the service depends on
    GET    /jwks              the token signer's key; also /.well-known/jwks.json
           /kbs/v0/...        the key broker, see `kbs.routes`

The same paths exist under `/as`.  Source: RESTful interface of the Trustee attestation service
1.6 to 1.9.  Every refusal is problem details (`problems`).

Invariant: a handler raises `TngError` only; the middleware turns it into the answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from tng.attest.base64_text import dump_base64url
from tng.errors import ErrorCode, TngError
from tng.trustee.dialects import parse_tee
from tng.trustee.json_body import parse_body, refuse_unknown, text_member
from tng.trustee.jwks import jwk_set
from tng.trustee.kbs.errors import as_broker_error, is_broker_path
from tng.trustee.kbs.routes import add_broker, policy_list, store_policy
from tng.trustee.problems import (
    CONTENT_TYPE,
    Problem,
    ProblemCode,
    TrusteeRequestError,
    problem_of,
)
from tng.trustee.reading import (
    MAX_ATTESTATION_BODY,
    MAX_POLICY_BODY,
    MAX_SMALL_BODY,
    read_json_body,
)

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

    from tng.attest.signer_identity import SignerIdentity
    from tng.clock import Clock
    from tng.trustee.attestation import AttestationService
    from tng.trustee.challenge import Challenger
    from tng.trustee.kbs.broker import KeyBroker
    from tng.trustee.policies import Policies

log = logging.getLogger(__name__)

REQUEST_DEADLINE_S: Final = 30.0
"""Seconds for reading and answering one request."""

_PREFIXES: Final = ("", "/as")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the handlers work with.

    Attributes:
        attestation: appraises.
        challenger: issues challenges.
        policies: by id.
        identity: whose chain is shown.
        status: makes the body of `/status`.
        clock: dates challenges.
        broker: the key broker.
        deadline_s: seconds for one request.
    """

    attestation: AttestationService
    challenger: Challenger
    policies: Policies
    identity: SignerIdentity
    status: Callable[[], dict[str, object]]
    clock: Clock
    broker: KeyBroker
    deadline_s: float = REQUEST_DEADLINE_S


def make_app(parts: Parts) -> web.Application:
    """The application; its runner belongs to the caller."""
    app = web.Application(middlewares=[_problem_middleware(parts.deadline_s)])
    handlers = _Handlers(parts)
    for prefix in _PREFIXES:
        app.router.add_post(f"{prefix}/attestation", handlers.attestation)
        app.router.add_post(f"{prefix}/challenge", handlers.challenge)
        app.router.add_get(f"{prefix}/certificate", handlers.certificate)
        app.router.add_get(f"{prefix}/policy", handlers.list_policies)
        app.router.add_post(f"{prefix}/policy", handlers.put_policy)
        app.router.add_get(f"{prefix}/policy/{{policy_id}}", handlers.get_policy)
        app.router.add_delete(f"{prefix}/policy/{{policy_id}}", handlers.delete_policy)
        app.router.add_get(f"{prefix}/status", handlers.status)
        app.router.add_get(f"{prefix}/jwks", handlers.jwks)
        app.router.add_get(f"{prefix}/.well-known/jwks.json", handlers.jwks)
        add_broker(app, prefix, parts.broker, parts.policies)
    return app


class _Handlers:
    """One method per path."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def attestation(self, request: web.Request) -> web.Response:
        body = await read_json_body(request, MAX_ATTESTATION_BODY)
        token = await self._parts.attestation.attest(body, client=request.remote or "")
        return web.Response(text=token, content_type="text/plain")

    async def challenge(self, request: web.Request) -> web.Response:
        members = parse_body(await read_json_body(request, MAX_SMALL_BODY))
        refuse_unknown(members, frozenset({"tee", "tee_params"}), "")
        if "tee" in members:
            # A supplemental challenge of the TEE's verifier; TDX and sample need none.
            parse_tee(text_member(members, "tee"), "tee")
            return web.Response(text="", content_type="text/plain")
        challenge = self._parts.challenger.issue(int(self._parts.clock.now()))
        return web.Response(body=challenge.dump(), content_type="application/json")

    async def certificate(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._parts.identity.chain_pem, content_type="application/x-pem-file"
        )

    async def list_policies(self, request: web.Request) -> web.Response:
        return web.json_response(policy_list(self._parts.policies))

    async def get_policy(self, request: web.Request) -> web.Response:
        policy = self._parts.policies.get(request.match_info["policy_id"])
        return web.Response(text=dump_base64url(policy.text.encode()), content_type="text/plain")

    async def put_policy(self, request: web.Request) -> web.Response:
        self._require_administrator(request, "store attestation policy")
        await store_policy(self._parts.policies, await read_json_body(request, MAX_POLICY_BODY))
        return web.Response()

    async def delete_policy(self, request: web.Request) -> web.Response:
        self._require_administrator(request, "delete attestation policy")
        await self._parts.policies.delete(request.match_info["policy_id"])
        return web.Response()

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(self._parts.status())

    async def jwks(self, request: web.Request) -> web.Response:
        return web.json_response(jwk_set(self._parts.identity))

    def _require_administrator(self, request: web.Request, target: str) -> None:
        _require_local(request)
        broker = self._parts.broker
        if broker.parts.gate.is_open:
            # Policies decide who gets secrets, too: being on this machine is not enough then.
            authorization = request.headers.get("Authorization", "")
            broker.require_admin(authorization, target, request.remote or "")


def _require_local(request: web.Request) -> None:
    """Policies decide what is affirmed: only programs on this machine may change them."""
    if "Origin" in request.headers:
        # Browsers send it with every POST and DELETE, also for a page that names us by a trick
        # of name resolution.
        raise TrusteeRequestError(
            "policies cannot be changed from a web page", ProblemCode.NOT_ALLOWED
        )
    if not ipaddress.ip_address(request.remote or "::").is_loopback:
        raise TrusteeRequestError(
            "policies can be changed from the machine of the service only (loopback)",
            ProblemCode.NOT_ALLOWED,
        )


def _problem_middleware(deadline_s: float) -> Middleware:
    @web.middleware
    async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(deadline_s):
                return await handler(request)
        except TngError as exc:
            problem = problem_of(exc)
            if problem.status == 500:
                log.exception("request failed path=%s", request.path[:200])
        except TimeoutError:
            problem = Problem(
                ProblemCode.TIMEOUT,
                f"the request was not read and answered within {deadline_s:g} s",
                ErrorCode.REQUEST_REJECTED,
                retryable=True,
            )
        except web.HTTPNotFound:
            problem = _routing_problem(ProblemCode.NOT_FOUND, request)
        except web.HTTPMethodNotAllowed:
            problem = _routing_problem(ProblemCode.METHOD_NOT_ALLOWED, request)
        return _respond(problem, is_broker=is_broker_path(request.path))

    return answer_problems


def _routing_problem(code: ProblemCode, request: web.Request) -> Problem:
    detail = f"{request.method} {request.path[:200]} is not a path of this service"
    return Problem(code, detail, ErrorCode.REQUEST_REJECTED)


def _respond(problem: Problem, *, is_broker: bool) -> web.Response:
    status, members = problem.status, problem.as_json()
    if is_broker:
        status, members = as_broker_error(problem)
    response = web.Response(
        status=status, body=json.dumps(members).encode("ascii"), content_type=CONTENT_TYPE
    )
    if problem.code in (ProblemCode.TOO_LARGE, ProblemCode.TIMEOUT):
        # What is left of the body is not worth reading.
        response.force_close()
    return response
