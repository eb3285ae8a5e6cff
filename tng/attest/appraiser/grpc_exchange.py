"""One bounded gRPC call to an attestation service.

In: a method and the octets of a message.  Out: a `GrpcAnswer`: the octets of the answer, or the
status and the words of a refusal.  What an answer means is for the caller.

This is the one module of the room that imports grpcio, and it is imported when the first call is
made.  grpcio does its work in threads of its own; a call waits in trio for one of them to say that
it is done.  Its habits that have no place here are switched off: proxies from the environment,
retries, compressed answers.

Invariant: no message repeats a header's value, no answer is longer than asked for, and no call
outlasts its time.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
import trio

from tng.errors import AppraiserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_METADATA: Final = 64 * 1024
"""Octets of the metadata of one answer: a refusal's words, and our own service's checks."""

_RECONNECT_MS: Final = 250
"""Milliseconds between two attempts to connect; the caller decides how often it asks."""

_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""Names that OpenSSL looks for in a folder of root certificates."""


@dataclass(frozen=True, slots=True)
class GrpcAnswer:
    """What came back.

    Attributes:
        status: name of the gRPC status: "OK", "UNAVAILABLE", ...
        body: octets of the message; empty unless the status is OK.
        detail: the refusal's words; of a service, so not to be trusted.
        problem: octets of the trailing metadata that was asked for; empty for none.
    """

    status: str
    body: bytes = b""
    detail: str = ""
    problem: bytes = b""


class GrpcExchange:
    """A channel to one service, connected when it is first used.  Used in the trio thread only.

    Args:
        target: host and port, an IPv6 address in brackets.
        is_secure: speak TLS, and check the service's certificate against the system's roots.
        metadata: sent with every call, allowed in gRPC; the values are secrets.
        user_agent: what we call ourselves.
        max_answer: octets of one answer.

    Raises:
        AppraiserError: TLS is asked for, and the system has no root certificates.
    """

    def __init__(
        self,
        target: str,
        metadata: Sequence[tuple[str, str]],
        *,
        is_secure: bool,
        user_agent: str,
        max_answer: int,
    ) -> None:
        self._metadata = tuple(metadata)
        options = (
            ("grpc.enable_http_proxy", 0),  # only the command line reads the environment
            ("grpc.enable_retries", 0),
            ("grpc.primary_user_agent", user_agent),
            ("grpc.max_receive_message_length", max_answer),
            ("grpc.max_metadata_size", MAX_METADATA),
            ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS),
            ("grpc.min_reconnect_backoff_ms", _RECONNECT_MS),
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
        )
        if is_secure:
            credentials = grpc.ssl_channel_credentials(_system_roots())
            self._channel = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._calls: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def call(
        self, method: str, message: bytes, *, timeout_s: float, problem_key: str
    ) -> GrpcAnswer:
        """Send one message and wait for the answer.

        Args:
            method: `/<service>/<method>`.
            message: octets of the request.
            timeout_s: seconds until the call ends with DEADLINE_EXCEEDED.
            problem_key: name of trailing metadata that a refusal may carry.
        """
        future = self._method(method).future(message, timeout=timeout_s, metadata=self._metadata)
        done, token = trio.Event(), trio.lowlevel.current_trio_token()
        future.add_done_callback(_waker(token, done))
        try:
            await done.wait()
        finally:
            future.cancel()  # of no effect on a call that is done
        error = future.exception()
        if not isinstance(error, grpc.RpcError):
            return GrpcAnswer("OK", future.result())
        problem = b""
        for item in error.trailing_metadata() or ():
            if item.key == problem_key and isinstance(item.value, bytes):
                problem = item.value
        return GrpcAnswer(error.code().name, b"", error.details() or "", problem)

    def close(self) -> None:
        """Close the channel; calls under way end with CANCELLED."""
        self._channel.close()

    def _method(self, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._channel.unary_unary(
                method, request_serializer=_as_it_is, response_deserializer=_as_it_is
            )
        return call


def _waker(token: trio.lowlevel.TrioToken, done: trio.Event) -> Callable[[object], None]:
    """What grpcio calls, in a thread of its own, when a call is done."""

    def wake(_: object) -> None:
        # trio may have ended meanwhile, and then nobody waits.
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    return wake


def _as_it_is(octets: bytes) -> bytes:
    return octets


def _system_roots() -> bytes:
    """The system's root certificates in PEM; grpcio would take a list of its own instead."""
    paths = ssl.get_default_verify_paths()
    files = [pathlib.Path(paths.cafile)] if paths.cafile else []
    if not files and paths.capath:
        folder = pathlib.Path(paths.capath)
        files = sorted(file for file in folder.iterdir() if _HASHED_NAME.fullmatch(file.name))
    roots = b"\n".join(file.read_bytes() for file in files)
    if not roots:
        raise AppraiserError(
            "expected root certificates in the system's store, found none: install "
            "ca-certificates, or name a file in SSL_CERT_FILE"
        )
    return roots
