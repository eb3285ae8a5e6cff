"""The Attestation Agent of Confidential Containers as a source of evidence (`aa_type: uds`).

Report data goes to the agent over ttrpc on a unix socket, evidence comes back.  Three calls over
one connection, in the reference's order: GetEvidence, GetTeeType, GetAdditionalEvidence.

Invariant: every call ends within `DEADLINE`, whatever the agent does, and with evidence or
`EvidenceError`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from tng.attest.attester.base import DEADLINE, TeeEvidence, make_evidence
from tng.errors import EvidenceError, RemoteProtocolError
from tng.wire.protobuf import dump_fields, last_bytes, parse_fields
from tng.wire.ttrpc import (
    Frame,
    FrameReader,
    FrameType,
    Request,
    Response,
    dump_frame,
    dump_request,
    parse_response,
)

_T = TypeVar("_T")

log = logging.getLogger(__name__)

SERVICE: Final = "attestation_agent.AttestationAgentService"
"""Name of the agent's service."""
CONNECT_TIMEOUT: Final = 5.0
"""Seconds for connecting; a unix socket whose owner lives takes none."""

_CHUNK: Final = 64 << 10
_NANOSECONDS: Final = 1_000_000_000


class AgentAttester:
    """Asks an Attestation Agent.

    Args:
        socket_path: path of the agent's unix socket.
        deadline: seconds that all three calls together may take.
        connect_timeout: seconds that connecting may take.
    """

    def __init__(
        self,
        socket_path: str,
        *,
        deadline: float = DEADLINE,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._path = socket_path
        self._source = f"attestation agent at unix://{socket_path}"
        self._deadline = deadline
        self._connect_timeout = connect_timeout
        self._warned = False

    async def get_evidence(self, report_data: bytes) -> TeeEvidence:
        """Ask the agent to vouch for `report_data` (see `Attester`)."""

        async def ask(calls: _Calls) -> TeeEvidence:
            primary = await self._primary(calls, report_data)
            # Over the same data, so that a GPU's nonce answers for them (TNG 2.12 sends none).
            additional = await self._additional(calls, report_data)
            return make_evidence(self._source, primary.tee, primary.evidence, additional)

        return await self._within_deadline(ask)

    async def get_primary(self, report_data: bytes) -> TeeEvidence:
        """The same without further devices (see `ita.DeviceAttester`)."""
        return await self._within_deadline(lambda calls: self._primary(calls, report_data))

    async def get_additional(self, runtime_data: bytes) -> bytes:
        """Evidence of further devices over `runtime_data` (see `ita.DeviceAttester`)."""
        return await self._within_deadline(lambda calls: self._additional(calls, runtime_data))

    async def _within_deadline(self, ask: Callable[[_Calls], Awaitable[_T]]) -> _T:
        try:
            with trio.fail_after(self._deadline):
                async with await self._connect() as stream:
                    return await ask(_Calls(stream, self._deadline))
        except trio.TooSlowError as exc:
            raise EvidenceError(
                f"{self._source} gave no evidence within {self._deadline:g} s; "
                "check the agent and the quoting service behind it"
            ) from exc
        except RemoteProtocolError as exc:
            raise EvidenceError(
                f"{self._source} does not speak ttrpc as expected: {exc}; "
                "check that attest.aa_addr names the agent's socket"
            ) from exc
        except (OSError, trio.BrokenResourceError) as exc:
            raise EvidenceError(f"{self._source} broke the connection: {exc}") from exc

    async def _primary(self, calls: _Calls, report_data: bytes) -> TeeEvidence:
        argument = dump_fields([(1, report_data)])
        evidence = self._result(await calls.call("GetEvidence", argument), "GetEvidence")
        tee = self._result(await calls.call("GetTeeType", b""), "GetTeeType")
        return make_evidence(self._source, tee.decode(errors="replace"), evidence, b"")

    async def _connect(self) -> trio.SocketStream:
        try:
            with trio.fail_after(self._connect_timeout):
                return await trio.open_unix_socket(self._path)
        except (OSError, trio.TooSlowError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "timed out"
            raise EvidenceError(
                f"cannot connect to the {self._source}: {reason}; "
                "start the agent, or correct attest.aa_addr"
            ) from exc

    def _result(self, response: Response, method: str) -> bytes:
        if response.code:
            raise EvidenceError(
                f"{self._source} refused {method} with status {response.code}: "
                f"{response.message[:512]!r}"
            )
        return last_bytes(parse_fields(response.payload), 1)

    async def _additional(self, calls: _Calls, runtime_data: bytes) -> bytes:
        argument = dump_fields([(1, runtime_data)]) if runtime_data else b""
        response = await calls.call("GetAdditionalEvidence", argument)
        if not response.code:
            return last_bytes(parse_fields(response.payload), 1)
        if not self._warned:  # agents without further devices answer so every time
            self._warned = True
            log.warning(
                "no additional evidence source=%s status=%d message=%r",
                self._source,
                response.code,
                response.message[:512],
            )
        return b""


class _Calls:
    """Unary calls over one connection, one after the other."""

    def __init__(self, stream: trio.SocketStream, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout
        self._frames = FrameReader()
        self._next_stream = 1  # clients use odd numbers

    async def call(self, method: str, argument: bytes) -> Response:
        number = self._next_stream
        self._next_stream += 2
        request = Request(SERVICE, method, argument, int(self._timeout * _NANOSECONDS))
        frame = Frame(number, FrameType.REQUEST, dump_request(request))
        await self._stream.send_all(dump_frame(frame))
        while (answer := self._frames.next_frame()) is None:
            self._frames.receive_data(await self._stream.receive_some(_CHUNK))
        if answer.stream != number or answer.type is not FrameType.RESPONSE:
            raise RemoteProtocolError(
                f"expected a response on stream {number}, got {answer.type.name.lower()} "
                f"on stream {answer.stream}"
            )
        return parse_response(answer.payload)
