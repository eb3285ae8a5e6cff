"""A client of HTTP/2 with prior knowledge, of which a test decides every frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import trio

from stage.conversation import PATIENCE_S

Fields = list[tuple[bytes, bytes]]


@dataclasses.dataclass
class Answer:
    """What has come on one stream."""

    status: int = 0
    interim: list[int] = dataclasses.field(default_factory=list)
    fields: Fields = dataclasses.field(default_factory=list)
    body: bytearray = dataclasses.field(default_factory=bytearray)
    trailers: Fields = dataclasses.field(default_factory=list)
    has_ended: bool = False
    reset: int | None = None


class Http2Client:
    """Octets of the server in, octets for it out.

    Args:
        reads: whether windows are opened again as octets come.
        window: octets of a new stream's window, once the server has confirmed it.
    """

    def __init__(self, *, reads: bool = True, window: int | None = None) -> None:
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.reads = reads
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.windows_opened = 0

    def ask(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        more: Fields | None = None,
        *,
        ends: bool = True,
        authority: bytes = b"model.example",
    ) -> int:
        """Begin a request; its stream."""
        fields = [
            (b":method", method),
            (b":scheme", b"http"),
            (b":authority", authority),
            (b":path", path),
        ]
        return self.say([*fields, *(more or [])], ends=ends)

    def say(self, fields: Fields, *, ends: bool = True) -> int:
        """Begin a request with exactly these fields; its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, fields, end_stream=ends)
        return stream

    def heard(self, data: bytes) -> None:
        """Take octets of the server."""
        for event in self.h2.receive_data(data):
            self._tell(event)

    def _tell(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code)
            return
        if isinstance(event, h2.events.WindowUpdated):
            self.windows_opened += 1
        stream = getattr(event, "stream_id", None)
        answer = self.answers.get(stream or 0)
        if answer is None or stream is None:
            return
        match event:
            case h2.events.InformationalResponseReceived():
                answer.interim.append(int(dict(event.headers)[b":status"]))
            case h2.events.ResponseReceived():
                answer.status = int(dict(event.headers)[b":status"])
                answer.fields = [(bytes(n), bytes(v)) for n, v in event.headers][1:]
            case h2.events.DataReceived():
                answer.body += event.data
                if self.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
            case h2.events.TrailersReceived():
                answer.trailers = [(bytes(n), bytes(v)) for n, v in event.headers]
            case h2.events.StreamEnded():
                answer.has_ended = True
            case h2.events.StreamReset():
                answer.reset = int(event.error_code)

    def is_over(self, stream: int) -> bool:
        """Whether nothing more will come on a stream."""
        answer = self.answers[stream]
        return answer.has_ended or answer.reset is not None


class Http2Line(Http2Client):
    """The same on a connection.

    Args:
        stream: owned from now on.
        options: see `Http2Client`.
    """

    def __init__(self, stream: trio.SocketStream, **options: bool | int | None) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.stream = stream
        self.has_ended = False

    async def flush(self) -> None:
        """Send what is queued."""
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Take what comes until `condition` holds, or the connection has ended."""
        await self.flush()
        with trio.fail_after(seconds):
            while not condition() and not self.has_ended:
                data = await self.stream.receive_some(1 << 16)
                self.has_ended = not data
                self.heard(data)
                await self.flush()

    async def answer(self, stream: int) -> Answer:
        """What came on a stream, once it is over."""
        await self.until(lambda: self.is_over(stream))
        return self.answers[stream]

    async def send_body(self, stream: int, data: bytes) -> None:
        """Send a body as the server's windows admit, and its end."""
        at = 0
        while at < len(data):
            room = self.h2.local_flow_control_window(stream)
            size = min(room, self.h2.max_outbound_frame_size, len(data) - at)
            if size <= 0:
                opened = self.windows_opened
                await self.until(lambda opened=opened: self.windows_opened > opened)  # type: ignore[misc]
                continue
            self.h2.send_data(stream, data[at : at + size])
            at += size
            await self.flush()
        self.h2.end_stream(stream)
        await self.flush()
