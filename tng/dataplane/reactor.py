"""The reactor: one thread, one poller, and everything that moves bytes.

In: file descriptors with handlers, coroutines, timers, and calls from other threads.  Out:
nothing; it runs until it is stopped.  One turn: poll, handlers of ready descriptors, calls from
other threads, timers that are due, tasks that can go on, and at last the flushes queued with
`at_turn_end`.

Invariants: only `start`, `stop`, `call` and `spawn_threadsafe` may be used from other threads; an
exception in one handler or task ends that one alone; an event fetched for a descriptor never
reaches a later owner of the same number.

    reactor = Reactor()
    reactor.start()
    future = reactor.spawn_threadsafe(talk(), "talk")
    future.result()
    reactor.stop(timeout_s=5)
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Final, Protocol, TypeVar, TypeVarTuple, Unpack

from tng.dataplane.poller import READ, Poller, make_poller
from tng.dataplane.task import Cancelled, Deadline, Task
from tng.dataplane.timers import TICKS_PER_SECOND, Timer, TimerWheel
from tng.errors import LocalProtocolError, TngError

T = TypeVar("T")
Args = TypeVarTuple("Args")

log = logging.getLogger("tng.dataplane")

SCRATCH_SIZE: Final = 256 * 1024
"""Octets of the shared buffer: sixteen TLS records; larger gained under 5 % when measured."""

READY_PER_TURN: Final = 4096
"""So many task steps before sockets are looked at again, however many tasks wake each other."""

LONGEST_POLL_S: Final = 3600.0
"""epoll takes milliseconds in 32 bits; a verdict may be valid for longer than those hold."""

JOIN_GRACE_S: Final = 2.0
"""What `stop` allows on top of its time limit for the thread to close what is left."""


class Work(Protocol):
    """What a reactor waits for before it ends: a task, or something that works without one.

    It calls `Reactor.discard` itself when it has ended, whatever ended it.
    """

    @property
    def name(self) -> str:
        """For logs."""
        ...

    def cancel(self) -> None:
        """End soon, with the clean-up that needs the reactor."""
        ...

    def abandon(self) -> None:
        """End at once."""
        ...


class Reactor:
    """A thread that owns sockets and the coroutines that use them.

    Args:
        poller: where readiness comes from; None for the platform's best.

    Attributes:
        tasks: every task that has not ended, and whatever else was adopted.
        current: the task that is running just now, None in handlers and timers.
        scratch: buffer of SCRATCH_SIZE octets that whoever runs may use until it calls or
            awaits something else that reads.
        now: monotonic clock at the start of this turn, seconds.
        at_stop: called once each when the thread ends; for things that outlive their task.
        soon: call with a function to have it called later in this turn, or early in the next.
        at_turn_end: call with a function to have it called once, when everything else of this
            turn is done, before polling.
        is_stopping: whether `stop` has begun; nothing new should be accepted.
        on_crash: called from the reactor's thread if it ends by a bug of ours.
    """

    def __init__(self, poller: Poller | None = None) -> None:
        self.tasks: set[Work] = set()
        self.current: Task | None = None
        self.scratch = memoryview(bytearray(SCRATCH_SIZE))
        self.now = time.monotonic()
        self.at_stop: set[Callable[[], object]] = set()
        self.is_stopping = False
        self.on_crash: Callable[[], object] | None = None
        self._poller = poller or make_poller()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._added_this_turn: set[int] = set()
        self._wheel = TimerWheel()
        self._ready: collections.deque[Callable[[], object]] = collections.deque()
        self.soon: Callable[[Callable[[], object]], None] = self._ready.append
        self._next_turn: list[Callable[[], object]] = []
        self._turn_end: list[Callable[[], object]] = []
        self.at_turn_end: Callable[[Callable[[], object]], None] = self._turn_end.append
        self._idle_calls: list[Callable[[], object]] = []
        self._calls: collections.deque[Callable[[], object]] = collections.deque()
        self._calls_lock = threading.Lock()
        self._is_woken = False
        self._has_ended = False
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.add(self._wake_read, READ, self._on_wake)

    # --- from any thread ---

    def start(self) -> None:
        """Run the loop in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="tng-reactor", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Cancel every task, wait for their clean-up, close everything and join the thread.

        Args:
            timeout_s: what the tasks get together; those still running then are closed hard.

        Raises:
            LocalProtocolError: the thread is stuck in a handler that does not return.
        """
        if self._thread is None:
            self._end()
            return
        try:
            self.call(self._begin_stop, timeout_s)
        except LocalProtocolError:
            return  # stopped before
        self._thread.join(timeout_s + JOIN_GRACE_S)
        if self._thread.is_alive():
            raise LocalProtocolError(f"the reactor did not stop within {timeout_s} s")

    def call(self, fn: Callable[[Unpack[Args]], object], *args: *Args) -> None:
        """Have the reactor's thread call `fn` soon.

        Raises:
            LocalProtocolError: the reactor has stopped.
        """
        with self._calls_lock:
            if self._has_ended:
                raise LocalProtocolError("the reactor has stopped")
            self._calls.append(functools.partial(fn, *args))
            wake = not self._is_woken
            self._is_woken = True
        if wake:
            try:
                os.write(self._wake_write, b"\0")
            except OSError:
                return  # full, so it wakes anyway; or closed just now by the end of the loop

    def spawn_threadsafe(
        self, coroutine: Coroutine[object, None, T], name: str
    ) -> concurrent.futures.Future[T]:
        """Run a coroutine as a task; its result or error arrives in the future.

        Raises:
            LocalProtocolError: the reactor has stopped; the coroutine is closed.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            self.call(self._spawn_for, coroutine, name, future)
        except LocalProtocolError:
            coroutine.close()
            raise
        return future

    # --- in the reactor's thread ---

    def spawn(
        self,
        coroutine: Coroutine[object, None, object],
        name: str,
        on_error: Callable[[Task, BaseException], object] | None = None,
    ) -> Task:
        """Run a coroutine as a task, beginning later in this turn.

        Args:
            coroutine: awaits only what this package makes.
            name: for logs.
            on_error: told what escaped the task, except cancellation; by default the
                expected errors (TngError, OSError) are logged at debug, others with traceback.
        """
        if self._has_ended:
            coroutine.close()
            raise LocalProtocolError("the reactor has stopped")
        task = Task(self, coroutine, name, on_error or log_task_error)
        self.tasks.add(task)
        task.schedule()
        if self.is_stopping:
            task.cancel()
        return task

    def spawn_now(self, coroutine: Coroutine[object, None, object], name: str) -> None:
        """Run a coroutine as a task whose first steps are done when this returns.

        For handlers that have nothing left to do, with objects that nobody else is using.
        """
        if self._has_ended:
            coroutine.close()
            raise LocalProtocolError("the reactor has stopped")
        task = Task(self, coroutine, name, log_task_error)
        self.tasks.add(task)
        outer = self.current
        task.step()
        self.current = outer
        if self.is_stopping:
            task.cancel()

    def next_turn(self, fn: Callable[[], object]) -> None:
        """Call `fn` once sockets have been looked at again: for work done in fair shares."""
        self._next_turn.append(fn)

    def call_later(
        self, delay_s: float, fn: Callable[[Unpack[Args]], object], *args: *Args
    ) -> Timer:
        """Call `fn` after `delay_s` seconds; never early, and up to a tick late."""
        call = functools.partial(fn, *args) if args else fn
        # The clock itself, not `now`: a long turn must not make a time limit shorter.
        return self._wheel.add(time.monotonic(), delay_s, call)

    def deadline(self, seconds: float, make_error: Callable[[], BaseException]) -> Deadline:
        """Limit the awaits inside a `with` block of the current task; may be nested."""
        return Deadline(self, seconds, make_error)

    def wait_idle(self, fn: Callable[[], object]) -> None:
        """Call `fn` once, when no task is left; soon, if there is none now."""
        if self.tasks:
            self._idle_calls.append(fn)
        else:
            self.soon(fn)

    def add(self, fd: int, events: int, handler: Callable[[int], object]) -> None:
        """Call `handler(events)` whenever `fd` is ready; ERROR is reported unasked.

        Raises:
            OSError: the descriptor is closed, or watched already.
        """
        self._poller.register(fd, events)
        self._handlers[fd] = handler
        self._added_this_turn.add(fd)

    def modify(self, fd: int, events: int) -> None:
        """Change the events that `fd` is watched for."""
        self._poller.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching `fd`; nothing fetched for it is delivered any more.  Idempotent."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def forget(self, fd: int) -> None:
        """As `remove`, for a descriptor that the caller closes at once."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.forget(fd)

    def adopt(self, work: Work) -> None:
        """Count `work` among the tasks until `discard`: waited for, and cancelled at the end."""
        self.tasks.add(work)
        if self.is_stopping:
            work.cancel()

    def discard(self, task: Work) -> None:
        """Forget a task that has ended, or what was adopted."""
        self.tasks.discard(task)
        if not self.tasks and self._idle_calls:
            self._ready.extend(self._idle_calls)
            self._idle_calls.clear()

    # --- the loop ---

    def _run(self) -> None:
        try:
            while not (self.is_stopping and not self.tasks):
                self._turn()
        except BaseException:
            log.critical("the reactor has failed", exc_info=True)
            if self.on_crash is not None:
                self.on_crash()
            raise
        finally:
            self._end()

    def _turn(self) -> None:
        if self._ready or self._next_turn or self._turn_end:
            timeout_s = 0.0
        elif ticks := self._wheel.ticks:
            # The earliest tick may hold nothing but cancelled timers: a turn in vain now and then
            # costs less than a look into its bucket on every turn.
            until_timer = ticks[0] / TICKS_PER_SECOND - self.now
            timeout_s = 0.0 if until_timer < 0 else until_timer
            if timeout_s > LONGEST_POLL_S:
                timeout_s = LONGEST_POLL_S
        else:
            timeout_s = -1.0
        events = self._poller.poll(timeout_s)
        self.now = now = time.monotonic()
        handlers = self._handlers
        added = self._added_this_turn
        if added:
            added.clear()
        for fd, mask in events:
            handler = handlers.get(fd)
            # A number added during this turn has a new owner: the event is the old one's.
            if handler is None or fd in added:
                continue
            try:
                handler(mask)
            except Exception:
                log.exception("handler failed, its descriptor is dropped fd=%d", fd)
                self.remove(fd)
        if self._next_turn:
            self._ready.extend(self._next_turn)
            self._next_turn.clear()
        if self._calls:
            self._run_calls()
        ticks = self._wheel.ticks
        if ticks and ticks[0] <= now * TICKS_PER_SECOND:
            for timer in self._wheel.take_due(now):
                self._guard(functools.partial(TimerWheel.fire, timer))
        if self._ready:
            self._run_ready()
        if self._turn_end:
            flushes = self._turn_end[:]
            self._turn_end.clear()
            for flush in flushes:
                try:
                    flush()
                except Exception:
                    log.exception("a queued call failed fn=%r", flush)

    def _run_ready(self) -> None:
        ready = self._ready
        budget = READY_PER_TURN
        while ready and budget:
            budget -= 1
            fn = ready.popleft()
            try:
                fn()
            except Exception:
                log.exception("a queued call failed fn=%r", fn)

    def _run_calls(self) -> None:
        calls = self._calls
        while calls:
            self._guard(calls.popleft())

    @staticmethod
    def _guard(fn: Callable[[], object]) -> None:
        try:
            fn()
        except Exception:
            log.exception("a queued call failed fn=%r", fn)

    def _on_wake(self, events: int) -> None:
        # In this order, and before the queue is drained: who appends from now on writes again,
        # and no octet written for the new state is taken away with the old ones.
        os.read(self._wake_read, 4096)
        self._is_woken = False

    def _spawn_for(
        self,
        coroutine: Coroutine[object, None, T],
        name: str,
        future: concurrent.futures.Future[T],
    ) -> None:
        if self._has_ended or not future.set_running_or_notify_cancel():
            coroutine.close()
            future.cancel()
            return
        self.spawn(_deliver(coroutine, future), name)

    def _begin_stop(self, timeout_s: float) -> None:
        if self.is_stopping:
            return
        self.is_stopping = True
        for task in list(self.tasks):
            task.cancel()
        self.call_later(timeout_s, self._abandon_tasks)

    def _abandon_tasks(self) -> None:
        for task in list(self.tasks):
            log.error("task did not end when cancelled task=%s", task.name)
            task.abandon()

    def _end(self) -> None:
        with self._calls_lock:
            if self._has_ended:
                return
            self._has_ended = True
        self._run_calls()
        self._run_ready()
        while self.at_stop:  # closing one thing may leave another that wants to be told
            self._guard(self.at_stop.pop())
        self._handlers.clear()
        self._poller.close()
        os.close(self._wake_read)
        with self._calls_lock:
            os.close(self._wake_write)


def log_task_error(task: Task, error: BaseException) -> None:
    """Log what escaped a task: the expected at debug, a bug of ours with its traceback."""
    if isinstance(error, (TngError, OSError)):
        log.debug("task ended task=%s error=%s", task.name, error)
    else:
        log.error("task failed task=%s", task.name, exc_info=error)


async def _deliver(
    coroutine: Coroutine[object, None, T], future: concurrent.futures.Future[T]
) -> None:
    try:
        result = await coroutine
    except Cancelled:
        future.set_exception(concurrent.futures.CancelledError())
        raise
    except BaseException as error:  # noqa: BLE001 - it is for the caller's thread to judge
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        del future  # else the error's traceback leads back to the error
