"""Unanswered requests: each is told when its own time is over, and one timer serves all."""

from __future__ import annotations

from tng.dataplane.mux_openings import Openings
from tng.dataplane.task import Wait


class Stream:
    """Notes when its time was over."""

    def __init__(self, log: list[str], name: str) -> None:
        self._log = log
        self._name = name

    def time_is_over(self) -> None:
        self._log.append(self._name)


async def pause(reactor, seconds: float) -> None:
    wait: Wait[None] = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


def test_each_has_its_own_time_whatever_the_order(reactor, run) -> None:
    async def go() -> list[str]:
        log: list[str] = []
        openings = Openings(reactor)
        openings.add(Stream(log, "third"), 0.09)
        openings.add(Stream(log, "first"), 0.02)
        openings.add(Stream(log, "second"), 0.05)
        openings.add(Stream(log, "never"), 60)
        await pause(reactor, 0.15)
        openings.close()
        return log

    assert run(reactor, go) == ["first", "second", "third"]


def test_who_was_answered_is_left_alone(reactor, run) -> None:
    async def go() -> list[str]:
        log: list[str] = []
        openings = Openings(reactor)
        stream = Stream(log, "answered")
        openings.add(stream, 0.02)
        openings.remove(stream)
        openings.remove(stream)
        await pause(reactor, 0.05)
        openings.add(Stream(log, "later"), 0.02)
        await pause(reactor, 0.05)
        openings.close()
        openings.close()
        return log

    assert run(reactor, go) == ["later"]
