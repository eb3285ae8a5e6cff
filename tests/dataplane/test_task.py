"""Tasks, waits, cancellation and deadlines, in a running reactor."""

from __future__ import annotations

import concurrent.futures
import logging

import pytest

from tng.dataplane.task import Cancelled, Wait
from tng.errors import LocalProtocolError, NetError


async def pause(reactor, seconds=0.0):
    wait = Wait()
    timer = reactor.call_later(seconds, wait.set, None)
    try:
        await wait
    finally:
        timer.cancel()


def late():
    return NetError("late")


def test_a_task_gets_the_value_set_before_or_after_it_waits(reactor, run):
    async def talk():
        ready = Wait()
        ready.set("before")
        later = Wait()
        reactor.call_later(0, later.set, "after")
        return await ready, await later, await later

    assert run(reactor, talk) == ("before", "after", "after")


def test_the_first_outcome_of_a_wait_counts(reactor, run):
    async def talk():
        value, failure = Wait(), Wait()
        value.set(1)
        value.set(2)
        value.fail(ValueError())
        failure.fail(NetError("first"))
        failure.set(1)
        with pytest.raises(NetError, match="first"):
            await failure
        parked = Wait()
        reactor.soon(lambda: (parked.fail(NetError("parked")), parked.set(1)))
        with pytest.raises(NetError, match="parked"):
            await parked
        return await value, value.is_set

    assert run(reactor, talk) == (1, True)


def test_a_wait_belongs_to_one_task(reactor, run):
    async def talk():
        shared = Wait()

        async def other():
            await shared

        reactor.spawn(other(), "other")
        await pause(reactor)
        with pytest.raises(LocalProtocolError, match="'other' already"):
            await shared
        shared.set(None)

    run(reactor, talk)


def test_awaiting_what_the_reactor_does_not_know_is_an_error_of_ours(reactor, run):
    class Foreign:
        def __await__(self):
            yield "something"

    async def talk():
        await Foreign()

    with pytest.raises(LocalProtocolError, match="not a Wait"):
        run(reactor, talk)


def test_cancelling_runs_the_clean_up_and_a_second_time_is_harmless(reactor, run):
    seen = []

    async def victim():
        try:
            await Wait()
        except Cancelled:
            seen.append("cancelled")
            raise
        finally:
            await pause(reactor)  # clean-up may wait
            seen.append("cleaned")

    async def talk():
        task = reactor.spawn(victim(), "victim")
        await pause(reactor)
        assert not task.done
        assert "victim" in repr(task)
        task.cancel()
        await pause(reactor, 0.05)
        assert task.done
        task.cancel()
        assert "done" in repr(task)

    run(reactor, talk)
    assert seen == ["cancelled", "cleaned"]


def test_a_task_cancelled_before_it_began_runs_to_its_first_wait(reactor, run):
    seen = []

    async def victim():
        try:
            seen.append("began")
            await Wait()
        finally:
            seen.append("cleaned")

    async def talk():
        reactor.spawn(victim(), "victim").cancel()
        await pause(reactor)

    run(reactor, talk)
    assert seen == ["began", "cleaned"]


def test_a_task_may_cancel_itself_and_ends_at_its_next_wait(reactor, run):
    async def talk():
        reactor.current.cancel()
        await Wait()

    with pytest.raises(concurrent.futures.CancelledError):
        run(reactor, talk)


def test_cancellation_wins_over_a_value_of_the_same_turn(reactor, run):
    seen = []

    async def victim(wait):
        try:
            seen.append(await wait)
        except Cancelled:
            seen.append("cancelled")

    async def talk():
        wait = Wait()
        task = reactor.spawn(victim(wait), "victim")
        await pause(reactor)
        wait.set("value")
        task.cancel()
        await pause(reactor)

    run(reactor, talk)
    assert seen == ["cancelled"]


def test_a_deadline_strikes_where_the_task_waits(reactor, run):
    async def talk():
        with reactor.deadline(0.01, late):
            await Wait()

    with pytest.raises(NetError, match="late"):
        run(reactor, talk)


def test_a_deadline_that_was_kept_does_not_strike_afterwards(reactor, run):
    async def talk():
        with reactor.deadline(0.02, late):
            await pause(reactor)
        await pause(reactor, 0.05)
        return "kept"

    assert run(reactor, talk) == "kept"


def test_the_earlier_of_nested_deadlines_strikes_first(reactor, run):
    async def talk():
        with reactor.deadline(0.05, lambda: NetError("outer")):
            with (
                pytest.raises(NetError, match="inner"),
                reactor.deadline(0.01, lambda: NetError("inner")),
            ):
                await Wait()
            with reactor.deadline(10, lambda: NetError("inner")):
                await Wait()

    with pytest.raises(NetError, match="outer"):
        run(reactor, talk)


def test_a_value_that_arrived_in_time_is_not_lost_to_the_deadline(reactor, run):
    async def talk():
        wait = Wait()
        got = []
        with reactor.deadline(0.02, late):
            # Set in the same turn in which the deadline is due, and before it.
            reactor.call_later(0.02, wait.set, "value")
            deadline_turn = Wait()
            reactor.call_later(0.02, deadline_turn.set, None)
            got.append(await wait)
        return got

    async def value_first():
        wait = Wait()
        timer = reactor.call_later(0.01, wait.set, "value")
        with reactor.deadline(0.01, late):
            got = await wait
            with pytest.raises(NetError, match="late"):
                await Wait()
        timer.cancel()
        return got

    assert run(reactor, value_first) == "value"
    with pytest.raises(NetError, match="late"):
        run(reactor, talk)


def test_a_deadline_needs_a_task(reactor, run):
    async def talk():
        wait = Wait()

        def outside():
            try:
                with reactor.deadline(1, late):
                    pass
            except LocalProtocolError as error:
                wait.fail(error)

        reactor.soon(outside)
        await wait

    with pytest.raises(LocalProtocolError, match="needs a task"):
        run(reactor, talk)


def test_expected_errors_are_logged_at_debug_and_bugs_with_traceback(reactor, run, caplog):
    async def fail(error):
        raise error

    async def talk():
        for error in (NetError("expected"), OSError("also"), ZeroDivisionError("bug")):
            reactor.spawn(fail(error), f"task {error}")
        await pause(reactor)

    with caplog.at_level(logging.DEBUG, "tng.dataplane"):
        run(reactor, talk)
    levels = {record.args[0]: record.levelno for record in caplog.records}
    assert levels == {
        "task expected": logging.DEBUG,
        "task also": logging.DEBUG,
        "task bug": logging.ERROR,
    }
    assert "ZeroDivisionError" in caplog.text


def test_a_spawner_may_hear_of_errors_itself(reactor, run):
    heard = []

    async def fail():
        raise NetError("told")

    async def talk():
        reactor.spawn(fail(), "child", lambda task, error: heard.append((task.name, str(error))))
        await pause(reactor)

    run(reactor, talk)
    assert heard == [("child", "told")]
