"""The attestation service over gRPC, beside its REST interface.

Octets of messages in, tokens and challenges out; refusals carry a gRPC status, words, and in the
trailing metadata `tng-problem-bin` the problem document of the REST interface, so that a verifying
gateway can repeat the verdict.  Source: the package `attestation` of Trustee 1.6.0 and 1.5.2
(`grpc_requests`); the methods are AttestationEvaluate, GetAttestationChallenge and
GetAttestationServiceStatus.  Policies are for the REST interface: there is no authentication here.

grpcio is imported when an endpoint is made, so that a service without one needs none of it.

Invariant: every call is judged by the same `AttestationService` as over REST, and none outlasts
its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.appraiser.grpc_messages import CHALLENGE, EVALUATE, PROBLEM_KEY, SERVICE, STATUS
from tng.errors import ConfigError, StartError, TngError
from tng.trustee.grpc_requests import body_of
from tng.trustee.problems import Problem, ProblemCode, TrusteeRequestError, problem_of
from tng.trustee.reading import MAX_ATTESTATION_BODY
from tng.wire.protobuf import dump_fields

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from tng.clock import Clock
    from tng.endpoint import Endpoint
    from tng.trustee.attestation import AttestationService
    from tng.trustee.challenge import Challenger

    Answer = Callable[[bytes], Awaitable[bytes]]

MAX_CALLS: Final = 64
"""Calls at once; further ones end with RESOURCE_EXHAUSTED."""

_MAX_PROBLEM: Final = 6 * 1024  # octets in metadata; clients allow 8 KiB for all of it
_MAX_DETAIL: Final = 1000  # characters of the words beside the status
_GRACE_S: Final = 5.0  # for calls that are under way when the service stops
_ANSWER: Final = 1  # attestation_token, attestation_challenge, service
_STATUS_TEXT: Final = 2

_STATUS_NAMES: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    422: "ABORTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}
"""gRPC status for a refusal's HTTP status; what is not listed is INTERNAL."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrpcParts:
    """What answers.

    Attributes:
        attestation: judges.
        challenger: gives out challenges.
        status: how the service stands, as the body of `GET /status`.
        clock: dates challenges.
        deadline_s: seconds for one call.
    """

    attestation: AttestationService
    challenger: Challenger
    status: Callable[[], Mapping[str, object]]
    clock: Clock
    deadline_s: float

    async def evaluate(self, message: bytes) -> bytes:
        """Answer AttestationEvaluate."""
        token = await self.attestation.attest(body_of(message))
        return dump_fields([(_ANSWER, token.encode())])

    async def challenge(self, message: bytes) -> bytes:
        """Answer GetAttestationChallenge."""
        if message:
            raise TrusteeRequestError(
                "expected a question without parameters: TDX and sample need no challenge of "
                "their own",
                ProblemCode.INVALID_ARGUMENT,
                field="inner",
            )
        challenge = self.challenger.issue(int(self.clock.now()))
        return dump_fields([(_ANSWER, challenge.dump())])

    async def tell_status(self, message: bytes) -> bytes:
        """Answer GetAttestationServiceStatus; whatever is asked, the answer is the same."""
        del message
        body = self.status()
        return dump_fields(
            [
                (_ANSWER, str(body["service"]).encode()),
                (_STATUS_TEXT, str(body["status"]).encode()),
            ]
        )


@contextlib.asynccontextmanager
async def grpc_endpoint(listen: Endpoint, parts: GrpcParts) -> AsyncIterator[int]:
    """Answer calls for the block; calls under way at its end get 5 seconds.

    Args:
        listen: address and port; port 0 for any free one.
        parts: what answers.

    Yields:
        The port.

    Raises:
        ConfigError: grpcio is not installed.
        StartError: the address cannot be used.
    """
    if importlib.util.find_spec("grpc") is None:
        raise ConfigError(["--grpc needs the extra: pip install 'tng-gateway[grpc]'"])
    from grpc import aio

    server = aio.server(
        options=(
            ("grpc.max_receive_message_length", MAX_ATTESTATION_BODY),
            ("grpc.so_reuseport", 0),  # a port in use is an error
        ),
        maximum_concurrent_rpcs=MAX_CALLS,
    )
    server.add_generic_rpc_handlers((_handler(parts),))
    try:
        port = server.add_insecure_port(str(listen))
    except RuntimeError as exc:
        raise StartError(f"cannot listen on {listen} for gRPC") from exc
    await server.start()
    log.info("trustee listening grpc=%s:%d", listen.host, port)
    try:
        yield port
    finally:
        await server.stop(_GRACE_S)


def _handler(parts: GrpcParts) -> grpc.GenericRpcHandler:
    import grpc

    answers: dict[str, Answer] = {
        EVALUATE: parts.evaluate,
        CHALLENGE: parts.challenge,
        STATUS: parts.tell_status,
    }
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        method.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(
            _answering(answer, parts.deadline_s)
        )
        for method, answer in answers.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _answering(
    answer: Answer, deadline_s: float
) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    async def respond(message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            async with asyncio.timeout(deadline_s):
                return await answer(message)
        except TimeoutError:
            late = f"not answered within {deadline_s:g} s"
            problem = problem_of(TrusteeRequestError(late, ProblemCode.TIMEOUT))
        except TngError as exc:
            problem = problem_of(exc)
        import grpc

        status = grpc.StatusCode[_STATUS_NAMES.get(problem.status, "INTERNAL")]
        metadata = ((PROBLEM_KEY, _dump_problem(problem)),)
        return await context.abort(status, problem.detail[:_MAX_DETAIL], metadata)

    return respond


def _dump_problem(problem: Problem) -> bytes:
    """The problem document; without its checks where they would not fit into metadata."""
    members = problem.as_json()
    whole = json.dumps(members).encode()
    if len(whole) <= _MAX_PROBLEM:
        return whole
    members.pop("checks", None)
    short = json.dumps(members).encode()
    return short if len(short) <= _MAX_PROBLEM else b""
