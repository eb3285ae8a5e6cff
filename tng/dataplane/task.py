"""Coroutines in the reactor thread: what drives them, what they wait for, what ends them early.

In: a coroutine that awaits only `Wait` objects (directly or through the ends).  Out: its steps,
run between two polls.  Semantics, in the order of precedence when several things happen in one
turn: cancellation, then a value or failure that has arrived, then a deadline.

Invariant: a task is stepped by the reactor's ready queue alone, never from inside another task or
handler, so that no code finds its objects changed under its hands.  The one exception is the first
step of a task begun by `Reactor.spawn_now`, whose objects nobody else has in hands yet.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from tng.errors import LocalProtocolError

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor
    from tng.dataplane.timers import Timer

T = TypeVar("T")


class Cancelled(BaseException):
    """Thrown into a task that shall end: clean up and let it pass."""


class Wait(Generic[T]):
    """A value that will be there later; one task may await it.

    The first `set` or `fail` counts, later ones are ignored, so that a result may lose a race
    against a timeout without anybody taking notice.
    """

    __slots__ = ("_error", "_task", "_value", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        """Whether awaiting would not wait."""
        self._value: T | None = None
        self._error: BaseException | None = None
        self._task: Task | None = None

    def set(self, value: T) -> None:
        """Give the value; the task that awaits it goes on later in this turn."""
        if not self.is_set:
            self.is_set = True
            self._value = value
            if self._task is not None:
                self._task.schedule()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the task that awaits, instead of giving a value."""
        if not self.is_set:
            self.is_set = True
            self._error = error
            if self._task is not None:
                self._task.schedule()

    def __await__(self) -> Generator[Wait[T], None, T]:
        if not self.is_set:
            if self._task is not None:
                raise LocalProtocolError(f"a Wait is awaited by {self._task.name!r} already")
            yield self
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # else the error's traceback leads back to the error
        return self._value  # type: ignore[return-value]  # set() gave a T, which may be None


class Task:
    """One coroutine on its way.  Made by `Reactor.spawn`.

    Attributes:
        name: for logs.
        done: whether the coroutine has returned or raised.
    """

    __slots__ = (
        "_cancel_at_park",
        "_coroutine",
        "_error",
        "_on_error",
        "_reactor",
        "_scheduled",
        "_wait",
        "done",
        "name",
    )

    def __init__(
        self,
        reactor: Reactor,
        coroutine: Coroutine[object, None, object],
        name: str,
        on_error: Callable[[Task, BaseException], object],
    ) -> None:
        self._reactor = reactor
        self._coroutine = coroutine
        self._on_error = on_error
        self._wait: Wait[object] | None = None
        self._error: BaseException | None = None
        self._scheduled = False
        self._cancel_at_park = False
        self.name = name
        self.done = False

    def __repr__(self) -> str:
        return f"<Task {self.name!r}{' done' if self.done else ''}>"

    def schedule(self) -> None:
        """Run the next step in this turn.  For `Wait` and the reactor only."""
        if not self._scheduled:
            self._scheduled = True
            self._reactor.soon(self.step)

    def cancel(self) -> None:
        """Throw `Cancelled` into the task where it waits, or where it will wait next.

        A task that has not begun yet runs up to its first wait, so that what it was given is in
        the hands of its own `finally`.
        """
        if self.done:
            return
        if self._wait is None:
            self._cancel_at_park = True
        else:
            self._error = Cancelled()
            self.schedule()

    def expire(self, error: BaseException) -> bool:
        """Throw `error` if the task is waiting in vain; False when it is about to run anyway."""
        if self._wait is None or self._scheduled:
            return False
        self._error = error
        self.schedule()
        return True

    def step(self) -> None:
        """Run up to the next wait.  For the reactor only."""
        self._scheduled = False
        if self._wait is not None:
            self._wait._task = None  # noqa: SLF001 - Wait and Task are one mechanism
            self._wait = None
        error, self._error = self._error, None
        self._reactor.current = self
        try:
            wait = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._finish(None)
        except BaseException as failure:  # noqa: BLE001 - whatever ends a task ends only that task
            self._finish(failure)
        else:
            self._park(wait)
        finally:
            self._reactor.current = None

    def abandon(self) -> None:
        """End the coroutine at once, for a reactor that cannot wait for it any longer."""
        try:
            self._coroutine.close()
        except RuntimeError as failure:  # it awaited again while being closed
            self._finish(failure)
        else:
            self._finish(None)

    def _park(self, wait: object) -> None:
        if not isinstance(wait, Wait):
            self._error = LocalProtocolError(f"task {self.name!r} awaited {wait!r}, not a Wait")
            self.schedule()
            return
        wait._task = self  # noqa: SLF001 - Wait and Task are one mechanism
        self._wait = wait
        if self._cancel_at_park:
            self._cancel_at_park = False
            self._error = Cancelled()
            self.schedule()

    def _finish(self, failure: BaseException | None) -> None:
        self.done = True
        self._reactor.discard(self)
        if failure is not None and not isinstance(failure, Cancelled):
            self._on_error(self, failure)


class Deadline:
    """A time limit around awaits, as a context manager.  Made by `Reactor.deadline`.

    When the time is over while the task waits, the error is thrown into the task at its await.
    A value that has arrived by then is not lost: the limit strikes at the next wait.
    """

    __slots__ = ("_make_error", "_reactor", "_seconds", "_task", "_timer")

    def __init__(
        self, reactor: Reactor, seconds: float, make_error: Callable[[], BaseException]
    ) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._make_error = make_error
        self._timer: Timer | None = None
        self._task: Task | None = None

    def __enter__(self) -> None:
        self._task = self._reactor.current
        if self._task is None:
            raise LocalProtocolError("a deadline needs a task to interrupt")
        self._timer = self._reactor.call_later(self._seconds, self._strike)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _strike(self) -> None:
        if self._task is not None and not self._task.expire(self._make_error()):
            self._timer = self._reactor.call_later(0, self._strike)
