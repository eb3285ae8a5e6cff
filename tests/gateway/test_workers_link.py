"""Questions and answers between two processes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tng.errors import ErrorCode, LocalProtocolError, NetError, RemoteProtocolError, TngError
from tng.gateway.workers.frames import MAX_FRAME, dump_frame
from tng.gateway.workers.link import Link


async def answer(question: str, carried: dict[str, object]) -> dict[str, object]:
    match question:
        case "echo":
            return carried
        case "slow":
            await trio.sleep_forever()
        case "refuse":
            raise NetError("nobody there")
        case "large":
            return {"a": "x" * MAX_FRAME}
    raise ZeroDivisionError


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Link, trio.Nursery]]:
    one, other = trio.testing.memory_stream_pair()
    links = Link(one, answer), Link(other, answer)
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(link.run)
        yield *links, nursery
        nursery.cancel_scope.cancel()


async def test_both_sides_may_ask_at_the_same_time() -> None:
    async with linked() as (one, other, _):
        assert await one.ask("echo", a=1) == {"a": 1}
        assert await other.ask("echo", b=[None]) == {"b": [None]}


async def test_a_slow_answer_holds_up_no_other() -> None:
    async with linked() as (one, _, nursery):
        nursery.start_soon(one.ask, "slow")
        await trio.testing.wait_all_tasks_blocked()
        assert await one.ask("echo") == {}


async def test_an_error_comes_back_as_the_same_class() -> None:
    async with linked() as (one, _, _):
        with pytest.raises(NetError, match="nobody there"):
            await one.ask("refuse")


async def test_a_bug_in_an_answer_is_an_internal_error_and_ends_nothing() -> None:
    async with linked() as (one, _, _):
        with pytest.raises(TngError, match="ZeroDivisionError"):
            await one.ask("bug")
        assert await one.ask("echo") == {}


async def test_what_is_too_large_is_an_error_on_both_ways() -> None:
    async with linked() as (one, _, _):
        with pytest.raises(LocalProtocolError, match="limit"):
            await one.ask("echo", a="x" * MAX_FRAME)
        with pytest.raises(TngError, match="limit"):
            await one.ask("large")


async def test_an_asker_that_gives_up_leaves_the_link_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with linked() as (one, _, _):
        with trio.move_on_after(1):
            await one.ask("slow")
        assert await one.ask("echo", a=2) == {"a": 2}


async def test_the_end_of_the_link_fails_every_question() -> None:
    one, other = trio.testing.memory_stream_pair()
    link, failures = Link(one, answer), []

    async def ask() -> None:
        with pytest.raises(TngError) as caught:
            await link.ask("slow")
        failures.append(caught.value.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await other.aclose()
    await ask()
    assert failures == [ErrorCode.SHUTTING_DOWN] * 3


async def test_a_process_that_dies_ends_the_link() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"\0")
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), answer)

    async def ask() -> None:
        with pytest.raises(TngError):
            await link.ask("echo", a="x" * (1 << 22))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        theirs.close()  # with octets unread: a reset, not an end


async def test_an_answer_after_the_end_is_dropped() -> None:
    one, other = trio.testing.memory_stream_pair()
    go = trio.Event()

    async def late(_question: str, _carried: object) -> dict[str, object]:
        with trio.CancelScope(shield=True):
            await go.wait()
        return {}

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Link(one, late).run)
        await other.send_all(dump_frame({"id": 1, "ask": "late", "with": {}}))
        await trio.testing.wait_all_tasks_blocked()
        await other.aclose()
        await trio.testing.wait_all_tasks_blocked()
        go.set()


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 1},
        {"id": "1", "answer": {}},
        {"id": 1, "answer": []},
        {"id": 1, "answer": {}, "more": 1},
        {"id": 1, "ask": "echo", "with": {}, "more": 1},
        {"id": 1, "error": {}},
    ],
)
async def test_a_message_of_another_shape_ends_the_link(message: dict[str, object]) -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.send_all(dump_frame(message))
    with pytest.raises(RemoteProtocolError):
        await Link(one, answer).run()


async def test_an_answer_nobody_waits_for_is_ignored() -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.send_all(dump_frame({"id": 77, "answer": {}}))
    await other.aclose()
    await Link(one, answer).run()


async def test_an_end_within_a_message_ends_the_link() -> None:
    one, other = trio.testing.memory_stream_pair()
    await other.send_all(b"\0\0")
    await other.aclose()
    await Link(one, answer).run()
