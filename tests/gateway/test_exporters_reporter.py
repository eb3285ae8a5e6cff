"""When reports are sent, tried again, dropped, and what is said about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from tng.clock import FixedClock
from tng.errors import NetError
from tng.gateway.exporters.reporter import LAST_REPORT_S, Reporter
from tng.observe.metrics import EntryMeter
from tng.observe.snapshot import Snapshot


class Numbers:
    """Something watched, with one entry."""

    def __init__(self) -> None:
        self.meter = EntryMeter({"ingress_id": "0"})
        self.entries = [SimpleNamespace(meter=self.meter)]
        self.refreshed = 0

    async def refresh(self) -> None:
        await trio.lowlevel.checkpoint()
        self.refreshed += 1


class Server:
    """An exporter whose other side is a script."""

    where = "http://collector:4318"
    began = 0.0

    def __init__(self, attempts: int = 1) -> None:
        self.attempts = attempts
        self.failures: list[Exception] = []
        self.takes_s = 0.0
        self.asked_at: list[float] = []
        self.taken: list[Snapshot] = []
        self.is_closed = False

    async def send(self, snapshot: Snapshot) -> None:
        self.asked_at.append(round(trio.current_time() - self.began, 3))
        await trio.sleep(self.takes_s)
        if self.failures:
            raise self.failures.pop(0)
        self.taken.append(snapshot)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_closed = True


@asynccontextmanager
async def reporting(
    server: Server, step: float = 10, numbers: Numbers | None = None
) -> AsyncIterator[Reporter]:
    reporter = Reporter(numbers or Numbers(), server, step, FixedClock(1000.0))
    server.began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reporter.run)
        await trio.testing.wait_all_tasks_blocked()
        yield reporter
        nursery.cancel_scope.cancel()
    assert server.is_closed


def values(taken: Sequence[Snapshot]) -> list[int]:
    return [snapshot.series[0].points[0].value for snapshot in taken]


async def test_the_first_report_comes_after_a_step_and_then_one_each_step(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server, numbers = Server(), Numbers()
    async with reporting(server, numbers=numbers):
        await trio.sleep(9.9)
        assert server.taken == []
        numbers.meter.cx_total = 5
        await trio.sleep(25.2)
    assert server.asked_at == [10, 20, 30]
    assert values(server.taken) == [5, 5, 5]
    assert numbers.refreshed == 3  # of workers, the sums are asked for


async def test_a_slow_server_misses_steps_and_nothing_piles_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    server.takes_s = 25
    async with reporting(server):
        await trio.sleep(99)
    assert server.asked_at == [10, 40, 70]


async def test_the_last_report_is_sent_at_the_end(autojump_clock: trio.testing.MockClock) -> None:
    server, numbers = Server(), Numbers()
    async with reporting(server, numbers=numbers) as reporter:
        await trio.sleep(12)
        numbers.meter.cx_total = 7
        await reporter.finish()
        assert values(server.taken) == [0, 7]
        await trio.sleep(100)
    assert len(server.taken) == 2
    assert server.taken[1].started_at == 1000.0


async def test_the_last_report_holds_nobody_up_for_long(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.takes_s = 1000
    async with reporting(server) as reporter:
        await trio.sleep(11)  # the first one is under way, and is given up
        before = trio.current_time()
        await reporter.finish()
        assert trio.current_time() - before == pytest.approx(LAST_REPORT_S)
    assert server.taken == []
    assert "the last metric report did not arrive within 2 s" in caplog.text


async def test_the_last_report_is_tried_once(autojump_clock: trio.testing.MockClock) -> None:
    server = Server(attempts=5)
    server.failures = [NetError("away") for _ in range(9)]
    async with reporting(server) as reporter:
        await reporter.finish()
    assert server.asked_at == [0]
    assert reporter.dropped == 1


async def test_finishing_what_has_not_begun_waits_for_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server()
    with trio.fail_after(1):
        await Reporter(Numbers(), server, 10, FixedClock(0)).finish()
    assert server.asked_at == []


async def test_a_report_is_tried_again_as_often_as_the_exporter_says(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(attempts=5)
    server.failures = [NetError("away") for _ in range(4)]
    async with reporting(server) as reporter:
        await trio.sleep(19)
        assert server.asked_at == [10, 11, 12, 13, 14]
        assert len(server.taken) == 1
        assert reporter.dropped == 0
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


async def test_after_the_last_attempt_a_report_is_dropped_and_the_next_carries_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server(attempts=5)
    server.failures = [NetError("away") for _ in range(5)]
    async with reporting(server) as reporter:
        await trio.sleep(21)
        assert server.asked_at == [10, 11, 12, 13, 14, 20]
        assert (len(server.taken), reporter.dropped) == (1, 1)


async def test_the_next_report_takes_the_place_of_further_attempts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server(attempts=5)
    server.failures = [NetError("away") for _ in range(100)]
    async with reporting(server, step=3) as reporter:
        await trio.sleep(8.9)
    assert server.asked_at == [3, 4, 5, 6, 7, 8]
    assert reporter.dropped == 2


async def test_an_outage_is_told_once_and_so_is_its_end(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = Server()
    server.failures = [NetError("no route") for _ in range(3)]
    async with reporting(server):
        await trio.sleep(61)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "metric reports do not arrive and are dropped where=http://collector:4318"
            " error=no route",
        ),
        ("INFO", "metric reports arrive again where=http://collector:4318 dropped=3"),
    ]


async def test_an_error_that_nobody_expected_ends_neither_reports_nor_the_gateway(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    server.failures = [ValueError("a bug")]
    async with reporting(server):
        await trio.sleep(21)
    assert len(server.taken) == 1
    assert "unexpected error in a metric report" in caplog.text
