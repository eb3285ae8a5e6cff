"""What every HTTP exchange between a client and an upstream connection needs besides messages.

The task that serves the client awaits the response.  The request body goes the other way in a task
of its own, when there is any left to wait for; and when there is none, the client's connection is
watched, so that a client that leaves ends the exchange at once.

Invariant: whatever fails first is `failure`; the upstream connection is reset with it, which wakes
whoever waits there.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.http_server import ClientLeftError
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Cancelled, Task, Wait
from tng.errors import NetError, TngError

SHARE: Final = 256 * 1024
"""Octets that an exchange moves before other connections have their turn."""

log = logging.getLogger(__name__)


class Exchange:
    """One request and its response.

    Args:
        reactor: where both connections live.
        client: the client's connection.
        upstream: where the response comes from; reset when the exchange fails.

    Attributes:
        failure: what ended the exchange in a place other than the task that owns it.
    """

    __slots__ = ("_client", "_ended", "_moved", "_reactor", "_task", "_upstream", "failure")

    def __init__(self, reactor: Reactor, client: End, upstream: End) -> None:
        self._reactor = reactor
        self._client = client
        self._upstream = upstream
        self._task: Task | None = None
        self._ended: Wait[None] | None = None
        self._moved = 0
        self.failure: TngError | None = None

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run the request direction beside the response; at its end, watch the client."""
        self._ended = Wait()
        self._task = self._reactor.spawn(self._run(work, self._ended), "http request body")

    def watch_client(self) -> None:
        """Have a client that leaves end the exchange; only while nobody reads from it."""
        self._client.notify_readable(self._client_spoke)

    async def send_to_client(self, data: bytes) -> None:
        """Return when the client's connection has taken `data`.

        Raises:
            ClientLeftError: it broke.
        """
        if not data:
            return
        try:
            await self._client.send(data)
        except NetError as exc:
            raise ClientLeftError(f"the client left: {exc}") from exc
        await self.share(len(data))

    async def share(self, octets: int) -> None:
        """Let others run when this exchange has moved its share; called by both directions."""
        self._moved += octets
        if self._moved >= SHARE:
            self._moved = 0
            turn: Wait[None] = Wait()
            self._reactor.next_turn(lambda: turn.set(None))
            await turn

    def fail(self, error: TngError) -> None:
        """End the exchange; the first error counts."""
        if self.failure is None:
            self.failure = error
            self._upstream.abort()

    async def stop(self) -> None:
        """Return when nothing of this exchange touches either connection any more."""
        if self._task is not None and self._ended is not None:
            self._task.cancel()
            await self._ended
            self._task = None
        if not self._client.is_closed:
            self._client.notify_readable(None)

    async def _run(self, work: Coroutine[None, None, None], ended: Wait[None]) -> None:
        try:
            await work
        except Cancelled:
            raise
        except TngError as error:
            self.fail(error)
        except Exception as error:
            log.exception("unexpected error while sending a request body")
            self.fail(TngError(f"internal error: {type(error).__name__}"))
        else:
            self.watch_client()
        finally:
            ended.set(None)

    def _client_spoke(self) -> None:
        try:
            data = self._client.receive_nowait(1)
        except TngError as exc:
            self.fail(ClientLeftError(f"the client left: {exc}"))
            return
        if data is None:
            return
        self._client.notify_readable(None)
        if data:
            self._client.unread(data)  # the beginning of its next request
        else:
            self.fail(ClientLeftError("the client closed before its response was complete"))
