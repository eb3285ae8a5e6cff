"""HTTP interface of the attestation service: paths, and how each is answered.

    POST   /attestation       evidence -> token
    POST   /challenge         -> nonce and challenge token
    GET    /certificate       chain of the token signer, PEM
    GET    /policy            list;  POST stores one
    GET    /policy/{id}       text;  DELETE forgets one
    GET    /status            what the service depends on
    POST   /kbs/v0/auth       first step of the key broker's handshake, as a probe

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
from tng.trustee.base64url import parse_base64url
from tng.trustee.dialects import parse_tee
from tng.trustee.json_body import invalid, parse_body, refuse_unknown, text_member
from tng.trustee.kbs import SESSION_COOKIE, SESSION_LIFETIME_S, answer_auth
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

    from tng.clock import Clock
    from tng.trustee.attestation import AttestationService
    from tng.trustee.challenge import Challenger
    from tng.trustee.identity import SignerIdentity
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
        deadline_s: seconds for one request.
    """

    attestation: AttestationService
    challenger: Challenger
    policies: Policies
    identity: SignerIdentity
    status: Callable[[], dict[str, object]]
    clock: Clock
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
        app.router.add_post(f"{prefix}/kbs/v0/auth", handlers.kbs_auth)
        app.router.add_route("*", f"{prefix}/kbs/{{rest:.*}}", handlers.kbs_other)
    return app


class _Handlers:
    """One method per path."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def attestation(self, request: web.Request) -> web.Response:
        body = await read_json_body(request, MAX_ATTESTATION_BODY)
        token = await self._parts.attestation.attest(body)
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
        return web.json_response(
            [
                {"policy-id": item.policy_id, "policy-hash": dump_base64url(item.digest)}
                for item in self._parts.policies.all()
            ]
        )

    async def get_policy(self, request: web.Request) -> web.Response:
        policy = self._parts.policies.get(request.match_info["policy_id"])
        return web.Response(text=dump_base64url(policy.text.encode()), content_type="text/plain")

    async def put_policy(self, request: web.Request) -> web.Response:
        _require_local(request)
        members = parse_body(await read_json_body(request, MAX_POLICY_BODY))
        refuse_unknown(members, frozenset({"type", "policy_id", "policy"}), "")
        policy_id = text_member(members, "policy_id")
        octets = parse_base64url(text_member(members, "policy"), "policy")
        try:
            text = octets.decode()
        except UnicodeDecodeError as exc:
            raise invalid("expected UTF-8 text in base64url", "policy") from exc
        self._parts.policies.put(policy_id, text)
        return web.Response()

    async def delete_policy(self, request: web.Request) -> web.Response:
        _require_local(request)
        self._parts.policies.delete(request.match_info["policy_id"])
        return web.Response()

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(self._parts.status())

    async def kbs_auth(self, request: web.Request) -> web.Response:
        answer = answer_auth(await read_json_body(request, MAX_SMALL_BODY))
        response = web.Response(body=answer.body, content_type="application/json")
        response.set_cookie(
            SESSION_COOKIE, answer.session_id, max_age=SESSION_LIFETIME_S, httponly=True
        )
        return response

    async def kbs_other(self, request: web.Request) -> web.Response:
        raise TrusteeRequestError(
            f"{request.path[:200]}: not available in this version; the key broker answers"
            " /kbs/v0/auth only",
            ProblemCode.NOT_FOUND,
        )


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
        return _respond(problem)

    return answer_problems


def _routing_problem(code: ProblemCode, request: web.Request) -> Problem:
    detail = f"{request.method} {request.path[:200]} is not a path of this service"
    return Problem(code, detail, ErrorCode.REQUEST_REJECTED)


def _respond(problem: Problem) -> web.Response:
    response = web.Response(
        status=problem.status,
        body=json.dumps(problem.as_json()).encode("ascii"),
        content_type=CONTENT_TYPE,
    )
    if problem.code in (ProblemCode.TOO_LARGE, ProblemCode.TIMEOUT):
        # What is left of the body is not worth reading.
        response.force_close()
    return response
