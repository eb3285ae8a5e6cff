"""Questions and answers over one stream between two processes that trust each other.

In: a stream, and what answers the other side's questions.  Out: `ask`.  Both sides may ask at
any time; answers come in any order.  Messages on the wire (`workers.frames`):

    {"id": 7, "ask": "judge", "with": {...}}      a question
    {"id": 7, "answer": {...}}                    its answer
    {"id": 7, "error": {...}}                     or what went wrong (`workers.messages`)

Invariants: a frame is written whole or not at all, because one task writes and nobody cancels it
but the end of the link; after the end of the link every question fails, none waits.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from tng.errors import ErrorCode, RemoteProtocolError, TngError
from tng.gateway.workers.frames import FrameReader, dump_frame
from tng.gateway.workers.messages import dump_error, parse_error

if TYPE_CHECKING:
    from tng.attest.strict_json import Json

log = logging.getLogger(__name__)

MAX_QUESTIONS: Final = 256
"""Questions under way at a time in one direction; further ones wait for their turn."""

_WAITING_FRAMES: Final = 16
"""Frames between askers and the writer; each may be large."""

_CHUNK: Final = 1 << 18
"""Octets read at a time."""

Object = dict[str, "Json"]
"""What a question or an answer carries."""

Answerer = Callable[[str, Object], Awaitable[Object]]
"""Answers a question, given its name and what it carries; a TngError goes back to the asker."""


class Link:
    """One end.

    Args:
        stream: connected to the other process; closed when `run` ends.
        answerer: what answers the other side's questions.
    """

    def __init__(self, stream: trio.abc.Stream, answerer: Answerer) -> None:
        self._stream = stream
        self._answerer = answerer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Question] = {}
        self._asking = trio.Semaphore(MAX_QUESTIONS)
        self._answering = trio.Semaphore(MAX_QUESTIONS)
        self._frames, self._to_write = trio.open_memory_channel[bytes](_WAITING_FRAMES)
        self._has_ended = False

    async def ask(self, name: str, **carried: Json) -> Object:
        """The other side's answer.

        Raises:
            TngError: what the other side raised, of the same class and code; or code
                `shutting_down`: the link has ended.
        """
        question = _Question()
        async with self._asking:
            if self._has_ended:
                raise _ended()
            number = next(self._numbers)
            self._waiting[number] = question
            try:
                await self._send(dump_frame({"id": number, "ask": name, "with": carried}))
                await question.answered.wait()
            finally:
                self._waiting.pop(number, None)
        if isinstance(question.result, TngError):
            raise question.result
        return question.result

    async def run(self) -> None:
        """Carry questions and answers until the other side closes its end.

        Raises:
            RemoteProtocolError: the other side broke this protocol.
        """
        failure: RemoteProtocolError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                try:
                    await self._read(nursery)
                except RemoteProtocolError as exc:
                    failure = exc  # raised below, outside the group that a nursery makes
                nursery.cancel_scope.cancel()
        finally:
            self._end()
            await trio.aclose_forcefully(self._stream)
        if failure is not None:
            raise failure

    # -- reading ---------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        reader = FrameReader()
        while True:
            try:
                data = await self._stream.receive_some(_CHUNK)
            except trio.BrokenResourceError:
                return  # the other process has died; what it meant to say is lost
            if not data:
                if not reader.is_between_frames:
                    log.debug("the other process ended within a message")
                return
            reader.receive_data(bytes(data))
            while (message := reader.next_message()) is not None:
                await self._take(message, nursery)

    async def _take(self, message: Object, nursery: trio.Nursery) -> None:
        match message:
            case {"id": int(number), "ask": str(name), "with": dict(carried), **rest} if not rest:
                await self._answering.acquire()
                nursery.start_soon(self._answer, number, name, carried)
            case {"id": int(number), "answer": dict(answer), **rest} if not rest:
                self._settle(number, answer)
            case {"id": int(number), "error": dict(error), **rest} if not rest:
                self._settle(number, parse_error(error))
            case _:
                keys = ", ".join(sorted(message)) or "nothing"
                raise RemoteProtocolError(f"message between processes of unknown shape: {keys}")

    def _settle(self, number: int, result: Object | TngError) -> None:
        question = self._waiting.pop(number, None)
        if question is not None:  # otherwise its asker has given up
            question.settle(result)

    async def _answer(self, number: int, name: str, carried: Object) -> None:
        try:
            frame = dump_frame({"id": number, "answer": await self._answerer(name, carried)})
        except TngError as error:
            frame = dump_frame({"id": number, "error": dump_error(error)})
        except Exception as bug:
            log.exception("unexpected error in the answer to %r", name)
            internal = TngError(f"internal error: {type(bug).__name__}")
            frame = dump_frame({"id": number, "error": dump_error(internal)})
        finally:
            self._answering.release()
        with contextlib.suppress(TngError):  # the link has ended, and so has the question
            await self._send(frame)

    # -- writing ---------------------------------------------------------------------

    async def _send(self, frame: bytes) -> None:
        try:
            await self._frames.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise _ended() from exc

    async def _write(self) -> None:
        async for frame in self._to_write:
            try:
                await self._stream.send_all(frame)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the reader sees the end too, and ends the link

    def _end(self) -> None:
        self._has_ended = True
        self._frames.close()
        self._to_write.close()
        for question in self._waiting.values():
            question.settle(_ended())
        self._waiting.clear()


class _Question:
    """One question under way, and what came back."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.result: Object | TngError = {}

    def settle(self, result: Object | TngError) -> None:
        self.result = result
        self.answered.set()


def _ended() -> TngError:
    return TngError("the other process of this gateway has ended", code=ErrorCode.SHUTTING_DOWN)
