"""The key broker's paths, under `/kbs/v0`.

    POST /auth, /attest                                   the handshake
    GET  /resource/{repository}/{type}/{tag}              a secret, sealed
    POST, DELETE /resource/...;  GET /resources           administration of secrets
    GET, POST /resource-policy                            what a token must say
    GET, POST /attestation-policy[/{id}], DELETE; GET /attestation-policies
    POST /rvps/register;  GET /rvps/query;  DELETE, POST /rvps/delete/{name}

Source: the key broker's interface, openanolis/trustee 1.9.  Stricter on purpose: every path but
the handshake's and the reading of one secret is for administrators.

Invariant: a handler raises `TngError` only; the application turns it into the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from tng.attest.base64_text import dump_base64url
from tng.trustee.base64url import parse_base64url
from tng.trustee.json_body import invalid, parse_body, refuse_unknown, text_member
from tng.trustee.kbs.broker import KeyBroker, resource_of
from tng.trustee.kbs.resources import MAX_RESOURCE
from tng.trustee.kbs.sessions import LIFETIME_S
from tng.trustee.problems import ProblemCode, TrusteeRequestError
from tng.trustee.reading import (
    MAX_ATTESTATION_BODY,
    MAX_POLICY_BODY,
    MAX_SMALL_BODY,
    read_body,
    read_json_body,
)

if TYPE_CHECKING:
    from tng.trustee.policies import Policies

SESSION_COOKIE: Final = "kbs-session-id"
"""Name of the cookie that holds a session's name."""

TOKEN_HEADER: Final = "Attestation"  # noqa: S105 - not a password
"""Header that may hold a token, beside `Authorization: Bearer`."""

_RESOURCE: Final = "/resource/{repository}/{kind}/{tag}"


def add_broker(app: web.Application, prefix: str, broker: KeyBroker, policies: Policies) -> None:
    """Add the key broker's paths.

    Args:
        app: the application.
        prefix: stands before `/kbs/v0`; "" or begins with a slash.
        broker: answers.
        policies: appraisal policies.
    """
    handlers = _Handlers(broker, policies)
    base = f"{prefix}/kbs/v0"
    add = app.router.add_route
    add("POST", f"{base}/auth", handlers.auth)
    add("POST", f"{base}/attest", handlers.attest)
    add("GET", base + _RESOURCE, handlers.get_resource)
    add("POST", base + _RESOURCE, handlers.put_resource)
    add("DELETE", base + _RESOURCE, handlers.delete_resource)
    add("GET", f"{base}/resources", handlers.list_resources)
    add("GET", f"{base}/resource-policy", handlers.get_resource_policy)
    add("POST", f"{base}/resource-policy", handlers.set_resource_policy)
    add("POST", f"{base}/attestation-policy", handlers.put_policy)
    add("GET", f"{base}/attestation-policies", handlers.list_policies)
    add("GET", f"{base}/attestation-policy/{{policy_id}}", handlers.get_policy)
    add("DELETE", f"{base}/attestation-policy/{{policy_id}}", handlers.delete_policy)
    add("POST", f"{base}/rvps/register", handlers.register_values)
    add("GET", f"{base}/rvps/query", handlers.query_values)
    for method in ("POST", "DELETE"):
        add(method, f"{base}/rvps/delete/{{name}}", handlers.delete_value)
    app.router.add_route("*", f"{prefix}/kbs/{{rest:.*}}", handlers.other)


class _Handlers:
    """One method per path."""

    def __init__(self, broker: KeyBroker, policies: Policies) -> None:
        self._broker = broker
        self._policies = policies

    async def auth(self, request: web.Request) -> web.Response:
        answer, name = self._broker.auth(await read_json_body(request, MAX_SMALL_BODY))
        response = web.Response(body=answer, content_type="application/json")
        response.set_cookie(SESSION_COOKIE, name, max_age=LIFETIME_S, httponly=True)
        return response

    async def attest(self, request: web.Request) -> web.Response:
        body = await read_json_body(request, MAX_ATTESTATION_BODY)
        answer = await self._broker.attest(_session(request), body, request.remote or "")
        return web.Response(body=answer, content_type="application/json")

    async def get_resource(self, request: web.Request) -> web.Response:
        resource = resource_of(**request.match_info)
        session, client = _session(request), request.remote or ""
        sealed = await self._broker.resource(session, _token(request), resource, client)
        response = web.Response(body=sealed, content_type="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    async def put_resource(self, request: web.Request) -> web.Response:
        resource = resource_of(**request.match_info)
        self._require_admin(request, f"store {resource}")
        await self._broker.parts.resources.put(resource, await read_body(request, MAX_RESOURCE))
        return web.Response()

    async def delete_resource(self, request: web.Request) -> web.Response:
        resource = resource_of(**request.match_info)
        self._require_admin(request, f"delete {resource}")
        await self._broker.parts.resources.delete(resource)
        return web.Response()

    async def list_resources(self, request: web.Request) -> web.Response:
        self._require_admin(request, "list resources")
        names = await self._broker.parts.resources.names()
        return web.json_response([str(name) for name in names])

    async def get_resource_policy(self, request: web.Request) -> web.Response:
        self._require_admin(request, "read resource policy")
        text = dump_base64url(self._broker.parts.policy.text.encode())
        return web.json_response({"policy": text})

    async def set_resource_policy(self, request: web.Request) -> web.Response:
        self._require_admin(request, "set resource policy")
        members = parse_body(await read_json_body(request, MAX_POLICY_BODY))
        refuse_unknown(members, frozenset({"policy"}), "")
        await self._broker.parts.policy.set(policy_text(text_member(members, "policy")))
        return web.Response()

    async def put_policy(self, request: web.Request) -> web.Response:
        self._require_admin(request, "store attestation policy")
        await store_policy(self._policies, await read_json_body(request, MAX_POLICY_BODY))
        return web.Response()

    async def list_policies(self, request: web.Request) -> web.Response:
        self._require_admin(request, "list attestation policies")
        return web.json_response(policy_list(self._policies))

    async def get_policy(self, request: web.Request) -> web.Response:
        self._require_admin(request, "read attestation policy")
        policy = self._policies.get(request.match_info["policy_id"])
        return web.Response(text=dump_base64url(policy.text.encode()), content_type="text/plain")

    async def delete_policy(self, request: web.Request) -> web.Response:
        self._require_admin(request, "delete attestation policy")
        await self._policies.delete(request.match_info["policy_id"])
        return web.Response()

    async def register_values(self, request: web.Request) -> web.Response:
        self._require_admin(request, "register reference values")
        body = await read_json_body(request, MAX_POLICY_BODY)
        now = self._broker.parts.clock.now()
        return web.json_response(await self._broker.parts.reference_values.register(body, now))

    async def query_values(self, request: web.Request) -> web.Response:
        self._require_admin(request, "query reference values")
        now = self._broker.parts.clock.now()
        return web.json_response(await self._broker.parts.reference_values.query(now))

    async def delete_value(self, request: web.Request) -> web.Response:
        self._require_admin(request, "delete reference value")
        await self._broker.parts.reference_values.delete(request.match_info["name"])
        return web.Response()

    async def other(self, request: web.Request) -> web.Response:
        raise TrusteeRequestError(
            f"{request.method} {request.path[:200]} is not a path of this key broker",
            ProblemCode.NOT_FOUND,
        )

    def _require_admin(self, request: web.Request, target: str) -> None:
        authorization = request.headers.get("Authorization", "")
        self._broker.require_admin(authorization, target, request.remote or "")


def policy_text(text: str) -> str:
    """The Rego in the member `policy`, base64url.

    Raises:
        TrusteeRequestError: not base64url of UTF-8 (400).
    """
    octets = parse_base64url(text, "policy")
    try:
        return octets.decode()
    except UnicodeDecodeError as exc:
        raise invalid("expected UTF-8 text in base64url", "policy") from exc


async def store_policy(policies: Policies, body: bytes) -> None:
    """Store the appraisal policy in a body `{"policy_id", "policy", "type"?}`.

    Raises:
        TrusteeRequestError: not such a body, or see `Policies.put`.
        StartError: it cannot be stored.
    """
    members = parse_body(body)
    refuse_unknown(members, frozenset({"type", "policy_id", "policy"}), "")
    text = policy_text(text_member(members, "policy"))
    await policies.put(text_member(members, "policy_id"), text)


def policy_list(policies: Policies) -> list[dict[str, str]]:
    """Ids and hashes of all appraisal policies."""
    return [
        {"policy-id": item.policy_id, "policy-hash": dump_base64url(item.digest)}
        for item in policies.all()
    ]


def _session(request: web.Request) -> str:
    return request.cookies.get(SESSION_COOKIE, "")


def _token(request: web.Request) -> str:
    """The token that a request shows; "" if it shows none."""
    if token := request.headers.get(TOKEN_HEADER, ""):
        return token
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""
