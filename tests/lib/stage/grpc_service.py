"""Attestation services over gRPC whose answers a test makes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field

import grpc

from tng.attest.appraiser.grpc_messages import SERVICE
from tng.errors import RemoteProtocolError
from tng.wire.protobuf import dump_fields, last_text, parse_fields

Respond = Callable[[str, bytes, grpc.ServicerContext], bytes]
"""Method, message and context to the answer; it may abort."""


@dataclass
class Call:
    """One call as the service saw it."""

    method: str
    message: bytes
    metadata: dict[str, str | bytes]


@dataclass
class GrpcService:
    """A running service."""

    port: int
    calls: list[Call] = field(default_factory=list)
    flat: list[dict[int, bytes | int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask_as_we_do(self, evidence: object) -> str:
        """What our client gets."""
        from tng.attest.appraiser.trustee_grpc import TrusteeGrpcAppraiser, parse_address

        appraiser = TrusteeGrpcAppraiser(parse_address(self.url, "x"), (), user_agent="test")
        try:
            return await appraiser.appraise(evidence, ["trust_all"])
        finally:
            await appraiser.aclose()


@contextlib.contextmanager
def grpc_service(
    respond: Respond,
    methods: tuple[str, ...] = ("AttestationEvaluate", "GetAttestationChallenge"),
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[GrpcService]:
    """A service that answers these methods; every other is unimplemented."""
    service = GrpcService(0)

    def handler(method: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = {item.key: item.value for item in context.invocation_metadata()}
            service.calls.append(Call(method, message, metadata))
            return respond(method, message, context)

        return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {method: handler(method) for method in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if credentials is None:
        service.port = server.add_insecure_port("127.0.0.1:0")
    else:
        service.port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield service
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def old_service(token: str) -> Iterator[GrpcService]:
    """A Trustee 1.5.2: reads the flat message, and fails to decode the newer one."""

    def respond(method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            fields = dict(parse_fields(message))
            for number in (1, 2, 4, 7):
                last_text(list(fields.items()), number)
            if not fields[1].isalnum():
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown tee")
        except (RemoteProtocolError, KeyError):
            context.abort(grpc.StatusCode.INTERNAL, "failed to decode Protobuf message")
        service.flat.append(fields)
        return dump_fields([(1, token.encode())])

    with grpc_service(respond) as service:
        yield service
