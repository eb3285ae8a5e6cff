"""The loop: descriptors, calls from other threads, stopping."""

from __future__ import annotations

import concurrent.futures
import pathlib
import socket
import threading
import time

import pytest

from tng.dataplane.poller import READ, WRITE, EpollPoller
from tng.dataplane.reactor import SCRATCH_SIZE, Reactor
from tng.dataplane.task import Cancelled, Wait
from tng.errors import LocalProtocolError


async def pause(reactor, seconds=0.0):
    wait = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


def test_calls_from_many_threads_all_arrive_in_the_reactors_thread(reactor, run):
    seen = []

    def shout(number):
        for index in range(500):
            reactor.call(lambda item: seen.append((item, threading.get_ident())), (number, index))

    threads = [threading.Thread(target=shout, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def rendezvous():
        return threading.get_ident()

    ident = run(reactor, rendezvous)
    assert {item for item, _ in seen} == {(a, b) for a in range(4) for b in range(500)}
    assert {thread for _, thread in seen} == {ident}
    for number in range(4):
        mine = [item[1] for item, _ in seen if item[0] == number]
        assert mine == sorted(mine)


def test_a_result_and_an_error_come_back_to_the_calling_thread(reactor):
    async def give(value):
        return value

    async def fail():
        raise ZeroDivisionError

    assert reactor.spawn_threadsafe(give(7), "give").result(5) == 7
    with pytest.raises(ZeroDivisionError):
        reactor.spawn_threadsafe(fail(), "fail").result(5)


def test_a_future_cancelled_before_its_turn_never_runs(reactor):
    blocked = threading.Event()
    reactor.call(blocked.wait, 5)
    ran = []

    async def talk():
        ran.append(1)

    future = reactor.spawn_threadsafe(talk(), "talk")
    assert future.cancel()
    blocked.set()
    assert reactor.spawn_threadsafe(_nothing(), "after").result(5) is None
    assert not ran


async def _nothing():
    return None


def descriptors():
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def test_a_failing_handler_loses_its_descriptor_and_nothing_else(reactor, run, caplog):
    async def talk():
        bad, bad_peer = socket.socketpair()
        good, good_peer = socket.socketpair()
        with bad, bad_peer, good, good_peer:
            seen = Wait()

            def fail(events):
                raise ZeroDivisionError

            reactor.add(bad.fileno(), READ, fail)
            reactor.add(good.fileno(), READ, seen.set)
            bad_peer.send(b"x")
            await pause(reactor, 0.02)
            good_peer.send(b"x")
            events = await seen
            reactor.remove(good.fileno())
            return events

    assert run(reactor, talk) == READ
    assert caplog.text.count("handler failed") == 1


def test_failing_timers_flushes_and_queued_calls_leave_the_loop_alive(reactor, run, caplog):
    def fail():
        raise ZeroDivisionError

    async def talk():
        reactor.call_later(0, fail)
        reactor.at_turn_end(fail)
        reactor.soon(fail)
        reactor.call(fail)
        await pause(reactor, 0.02)
        return "alive"

    assert run(reactor, talk) == "alive"
    assert caplog.text.count("a queued call failed") == 4


def test_an_event_fetched_for_a_closed_descriptor_never_reaches_the_next_owner(reactor, run):
    """Two descriptors are ready in one batch; the first handler closes and reuses the other."""
    wrong = []

    async def talk():
        pairs = [socket.socketpair() for _ in range(2)]
        fresh = []
        done = Wait()

        def handle(mine, other):
            if fresh:
                return
            fd = pairs[other][0].fileno()
            reactor.remove(fd)
            pairs[other][0].close()
            near, far = socket.socketpair()
            fresh.extend((near, far))
            assert fd in (near.fileno(), far.fileno())
            reused = near if near.fileno() == fd else far
            reactor.add(fd, READ, lambda events: wrong.append(events))
            assert reused.fileno() == fd
            reactor.remove(pairs[mine][0].fileno())
            reactor.at_turn_end(lambda: done.set(fd))

        for mine, other in ((0, 1), (1, 0)):
            reactor.add(
                pairs[mine][0].fileno(),
                READ,
                lambda events, mine=mine, other=other: handle(mine, other),
            )
        for _, far in pairs:
            far.send(b"x")
        reactor.remove(await done)
        for sock in (*fresh, *(sock for pair in pairs for sock in pair)):
            sock.close()

    run(reactor, talk)
    assert not wrong


def test_removed_in_the_same_batch_means_not_called(reactor, run):
    calls = []

    async def talk():
        pairs = [socket.socketpair() for _ in range(2)]

        def handle(events):
            calls.append(events)
            for near, _ in pairs:
                reactor.remove(near.fileno())
                reactor.remove(near.fileno())

        for near, far in pairs:
            reactor.add(near.fileno(), READ, handle)
            far.send(b"x")
        await pause(reactor, 0.02)
        for pair in pairs:
            for sock in pair:
                sock.close()

    run(reactor, talk)
    assert len(calls) == 1


def test_events_can_be_modified(reactor, run):
    async def talk():
        near, far = socket.socketpair()
        with near, far:
            seen = Wait()
            reactor.add(near.fileno(), 0, seen.set)
            await pause(reactor, 0.01)
            assert not seen.is_set
            reactor.modify(near.fileno(), WRITE)
            events = await seen
            reactor.remove(near.fileno())
            return events

    assert run(reactor, talk) == WRITE


def test_flushes_run_once_after_everything_else_of_the_turn(reactor, run):
    order = []

    async def talk():
        reactor.at_turn_end(lambda: order.append("flush"))
        reactor.soon(lambda: order.append("soon"))
        reactor.next_turn(lambda: order.append("next"))
        await pause(reactor, 0.02)

    run(reactor, talk)
    assert order == ["soon", "flush", "next"]


def test_tasks_that_wake_each_other_for_ever_do_not_starve_sockets(reactor, run):
    async def talk():
        near, far = socket.socketpair()
        with near, far:
            seen = Wait()
            stop = []

            def again():
                if not stop:
                    reactor.soon(again)

            again()
            reactor.add(near.fileno(), READ, seen.set)
            far.send(b"x")
            events = await seen
            stop.append(1)
            reactor.remove(near.fileno())
            return events

    assert run(reactor, talk) == READ


def test_being_idle_is_told_once_when_the_last_task_ends(reactor, run):
    idle = threading.Event()
    reactor.call(reactor.wait_idle, idle.set)
    assert idle.wait(5)
    calls = []
    told = threading.Event()

    async def talk():
        reactor.wait_idle(lambda: (calls.append(len(reactor.tasks)), told.set()))
        await pause(reactor, 0.02)
        assert not calls

    run(reactor, talk)
    assert told.wait(5)
    run(reactor, _nothing)
    assert calls == [0]


def test_stopping_cancels_tasks_and_waits_for_their_clean_up(poller):
    reactor = Reactor(poller)
    reactor.start()
    seen = []

    async def victim():
        try:
            await Wait()
        finally:
            await pause(reactor, 0.02)
            seen.append(reactor.is_stopping)

    future = reactor.spawn_threadsafe(victim(), "victim")
    closed = []
    reactor.at_stop.add(lambda: closed.append(1))
    reactor.spawn_threadsafe(_nothing(), "sync").result(5)
    reactor.stop(5)
    reactor.stop(5)
    assert seen == [True]
    assert closed == [1]
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)


def test_a_task_that_does_not_end_when_cancelled_is_closed_at_the_time_limit(poller, caplog):
    reactor = Reactor(poller)
    reactor.start()

    async def stubborn():
        while True:
            try:
                await Wait()
            except Cancelled:  # wrong on purpose
                continue

    async def worse():
        try:
            await Wait()
        finally:
            await Wait()

    reactor.spawn_threadsafe(stubborn(), "stubborn")
    reactor.spawn_threadsafe(worse(), "worse")
    began = time.monotonic()
    reactor.stop(0.1)
    assert time.monotonic() - began < 2
    assert not reactor.tasks
    assert caplog.text.count("did not end when cancelled") == 2


def test_a_task_spawned_while_stopping_is_cancelled_at_its_first_wait(poller):
    reactor = Reactor(poller)
    reactor.start()
    seen = []

    async def child():
        try:
            await Wait()
        finally:
            seen.append("child cancelled")

    async def parent():
        try:
            await Wait()
        finally:
            reactor.spawn(child(), "child")

    reactor.spawn_threadsafe(parent(), "parent")
    reactor.stop(5)
    assert seen == ["child cancelled"]


def test_nothing_can_be_asked_of_a_stopped_reactor(poller):
    reactor = Reactor(poller)
    reactor.start()
    reactor.stop(5)
    with pytest.raises(LocalProtocolError, match="has stopped"):
        reactor.call(print)
    with pytest.raises(LocalProtocolError, match="has stopped"):
        reactor.spawn_threadsafe(_nothing(), "late")
    with pytest.raises(LocalProtocolError, match="has stopped"):
        reactor.spawn(_nothing(), "late")


def test_a_reactor_that_never_started_can_be_stopped(poller):
    reactor = Reactor(poller)
    future = reactor.spawn_threadsafe(_nothing(), "never")
    reactor.stop(1)
    assert future.cancelled()


def test_a_stuck_handler_is_named_when_stopping(poller, monkeypatch):
    monkeypatch.setattr("tng.dataplane.reactor.JOIN_GRACE_S", 0.0)
    reactor = Reactor(poller)
    reactor.start()
    release = threading.Event()
    reactor.call(release.wait, 10)
    with pytest.raises(LocalProtocolError, match="did not stop"):
        reactor.stop(0.05)
    release.set()
    reactor._thread.join(5)


def test_starting_and_stopping_leaks_no_descriptor():
    before = descriptors()
    for _ in range(20):
        reactor = Reactor(EpollPoller())
        reactor.start()
        reactor.stop(5)
    assert descriptors() == before


def test_an_idle_reactor_does_not_spin(reactor, run):
    async def spent():
        return time.thread_time()

    before = run(reactor, spent)
    time.sleep(0.1)  # the one place where doing nothing is what is tested
    assert run(reactor, spent) - before < 0.02


def test_the_scratch_buffer_has_its_documented_size(reactor):
    assert len(reactor.scratch) == SCRATCH_SIZE == 256 * 1024


def test_a_task_that_begins_at_once_has_done_its_first_step_and_leaves_its_maker_running(
    reactor, run
):
    async def go():
        maker = reactor.current
        log = []
        wait = Wait()

        async def child():
            assert reactor.current is not maker
            log.append("begun")
            await wait
            log.append("done")

        reactor.spawn_now(child(), "child")
        assert log == ["begun"]
        assert reactor.current is maker
        assert len(reactor.tasks) == 2
        wait.set(None)
        assert log == ["begun"], "later steps are the ready queue's"
        reactor.spawn_now(_nothing(), "over at once")
        assert len(reactor.tasks) == 2
        return log

    log = run(reactor, go)
    run(reactor, _nothing)
    assert log == ["begun", "done"]


def test_what_begins_at_once_while_stopping_is_cancelled_where_it_waits(reactor, run):
    ended = []

    async def child():
        try:
            await Wait()
        finally:
            ended.append("cancelled")

    async def go():
        reactor.is_stopping = True
        reactor.spawn_now(child(), "child")
        reactor.is_stopping = False

    run(reactor, go)
    run(reactor, _nothing)
    assert ended == ["cancelled"]


def test_nothing_begins_at_once_in_a_stopped_reactor(poller):
    reactor = Reactor(poller)
    reactor.start()
    reactor.stop(timeout_s=5)
    with pytest.raises(LocalProtocolError):
        reactor.spawn_now(_nothing(), "late")


class Adopted:
    """Work without a task."""

    name = "adopted"

    def __init__(self, reactor):
        self.reactor = reactor
        self.log = []

    def cancel(self):
        self.log.append("cancel")

    def abandon(self):
        self.log.append("abandon")
        self.reactor.discard(self)


def test_adopted_work_counts_as_a_task_and_is_cancelled_at_the_end(poller, run):
    reactor = Reactor(poller)
    reactor.start()
    work, late = Adopted(reactor), Adopted(reactor)

    async def go():
        reactor.adopt(work)
        assert work in reactor.tasks
        reactor.is_stopping = True
        reactor.adopt(late)
        reactor.discard(late)
        reactor.is_stopping = False

    run(reactor, go)
    assert late.log == ["cancel"]
    reactor.stop(timeout_s=0.05)
    assert work.log == ["cancel", "abandon"]
