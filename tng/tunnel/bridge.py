"""The one door between the reactor's coroutines and trio.

A coroutine in the reactor thread may not block, and some questions take long: a verdict that
is not cached, a name to resolve, a fresh certificate.  It asks them here:

    verdict = await bridge.ask(verifier.judge, certificate, label)

The function runs as a trio task; its result, or its error, wakes the coroutine up.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Wait
from tng.errors import ErrorCode, LocalProtocolError, TngError

log = logging.getLogger(__name__)

T = TypeVar("T")
V = TypeVar("V")
Ts = TypeVarTuple("Ts")


class Bridge:
    """Runs trio functions for coroutines of one reactor.

    Args:
        reactor: whose coroutines ask.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve questions until cancelled (trio side)."""
        async with trio.open_nursery() as nursery:
            self._nursery, self._token = nursery, trio.lowlevel.current_trio_token()
            task_status.started()
            await trio.sleep_forever()

    async def ask(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """The result of `await function(*args)` in trio (reactor side).

        Raises:
            TngError: what the function raised; code `shutting_down` when trio has ended.
        """
        answer: Wait[T] = Wait()
        if self._token is None:
            raise _ending()
        try:
            self._token.run_sync_soon(self._start, function, args, answer)
        except trio.RunFinishedError as exc:
            raise _ending() from exc
        return await answer

    def _start(
        self, function: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts], answer: Wait[T]
    ) -> None:
        try:
            if self._nursery is None or self._nursery.cancel_scope.cancel_called:
                raise _ending()
            self._nursery.start_soon(self._answer, function, args, answer)
        except (TngError, RuntimeError):  # RuntimeError: the nursery has closed meanwhile
            self._reactor.call(answer.fail, _ending())

    async def _answer(
        self, function: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts], answer: Wait[T]
    ) -> None:
        try:
            result = await function(*args)
        except TngError as error:
            self._tell(answer.fail, error)
        except trio.Cancelled:
            self._tell(answer.fail, _ending())
            raise
        except Exception as error:
            log.exception("unexpected error in %s", getattr(function, "__qualname__", function))
            self._tell(answer.fail, TngError(f"internal error: {type(error).__name__}"))
        else:
            self._tell(answer.set, result)

    def _tell(self, tell: Callable[[V], None], value: V) -> None:
        """Wake the coroutine that asked, unless its reactor has ended, and it with that."""
        with contextlib.suppress(LocalProtocolError):
            self._reactor.call(tell, value)


def _ending() -> TngError:
    return TngError("the gateway is shutting down", code=ErrorCode.SHUTTING_DOWN)
