"""Random requests, and the service that helps to check them octet by octet.

In: a port that leads to a `Service`.  Out: a `Tally`.  Every transfer is a part of one pattern, so
that both sides know each octet of it.  Invariant: what is cut short never counts as complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Final

import trio

LARGEST: Final = 4 << 20
"""Octets of one transfer at most: more than all buffers and windows on the way."""

STEP_TIMEOUT_S: Final = 30.0
"""What one request may take, also beside all others and on a slow machine."""

KILL_GRACE_S: Final = 1.0
"""What a request may still suffer after the egress is back: its connection may be the old one."""

_PATTERN: Final = hashlib.shake_256(b"soak").digest(LARGEST)
_DOUBLE: Final = memoryview(_PATTERN + _PATTERN)
_RESET: Final = struct.pack("ii", 1, 0)


class Corrupted(Exception):  # noqa: N818 - it names what was seen
    """Octets that nobody sent, or an end that nobody said."""


class Lost(Exception):  # noqa: N818 - it names what was seen
    """A request that was not served to its end."""


@dataclasses.dataclass(slots=True)
class Tally:
    """What happened.

    Attributes:
        requests: by name, those that were served as they should.
        octets: moved through both gateways, both directions.
        corrupted: in words.
        lost: in words.
        excused: requests that were under way when the egress was killed.
        slowest_s: the longest that a small request took.
    """

    requests: dict[str, int] = dataclasses.field(default_factory=dict)
    octets: int = 0
    corrupted: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    excused: int = 0
    slowest_s: float = 0.0


def part_of_pattern(offset: int, size: int) -> memoryview:
    """The octets that belong at `offset` of every transfer; sizes up to `LARGEST`."""
    return _DOUBLE[offset % LARGEST :][:size]


# -- the service -------------------------------------------------------------------------------


class Service:
    """Answers what the first line of a connection asks for.

    Attributes:
        active: connections being served.
    """

    def __init__(self) -> None:
        self.active = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, to its end."""
        self.active += 1
        try:
            async with stream:
                line, rest = await _first_line(stream)
                await self._act(stream, line.decode("ascii", "replace").split(), rest)
        except trio.BrokenResourceError:
            return  # the client broke off, which is often the point
        finally:
            self.active -= 1

    async def _act(self, stream: trio.SocketStream, words: list[str], rest: bytes) -> None:
        match words:
            case ["up", pause]:
                digest, count = hashlib.sha256(rest), len(rest)
                await trio.sleep(float(pause))
                async for data in stream:
                    digest.update(data)
                    count += len(data)
                await stream.send_all(f"{count} {digest.hexdigest()}\n".encode())
            case ["down", offset, size]:
                await stream.send_all(part_of_pattern(int(offset), int(size)))
            case ["break", offset, size]:
                await stream.send_all(part_of_pattern(int(offset), int(size)))
                reset(stream)
            case ["echo"]:
                await stream.send_all(rest)
                async for data in stream:
                    await stream.send_all(data)
            case ["events", count]:
                for number in range(int(count)):
                    await stream.send_all(b"data: %d\n\n" % number)
                    await trio.sleep(0.02)


async def _first_line(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """The first line without its end, and what came with it; an empty line if none comes."""
    held = b""
    while b"\n" not in held:
        more = await stream.receive_some(65536)
        if not more:
            return b"", b""
        held += more
    line, _, rest = held.partition(b"\n")
    return line, rest


def reset(stream: trio.SocketStream) -> None:
    """Have the connection reset when it is closed."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


# -- the clients -------------------------------------------------------------------------------


def size_of_transfer() -> int:
    """Octets, 1 to LARGEST, as often between 1 and 2 as between 1 Mi and 2 Mi."""
    magnitude = secrets.randbelow(LARGEST.bit_length())
    return min(LARGEST, (1 << magnitude) + secrets.randbelow(1 << magnitude))


async def expect_pattern(stream: trio.SocketStream, offset: int, size: int) -> None:
    """Read exactly `size` octets of the pattern."""
    count = 0
    while count < size:
        data = await stream.receive_some(65536)
        if not data:
            raise Lost(f"ended after {count} of {size} octets")
        if data != part_of_pattern(offset + count, min(len(data), size - count)):
            raise Corrupted(f"octets {count} to {count + len(data)} are not those that were sent")
        count += len(data)


async def expect_end(stream: trio.SocketStream) -> None:
    """Read nothing but the orderly end."""
    if data := await stream.receive_some(100):
        raise Corrupted(f"{data!r} after the last octet")


async def upload(stream: trio.SocketStream) -> int:
    """Send, end our half, and compare the service's digest; the service may be slow to begin."""
    offset, size = secrets.randbelow(LARGEST), size_of_transfer()
    pause = secrets.choice([0, 0, 0, 0.3])
    await stream.send_all(b"up %.1f\n" % pause)
    await stream.send_all(part_of_pattern(offset, size))
    await stream.send_eof()
    answer = b"".join([data async for data in stream])
    digest = hashlib.sha256(part_of_pattern(offset, size)).hexdigest()
    if not answer.endswith(b"\n"):
        raise Lost(f"the answer to an upload is {answer!r}")
    if answer != f"{size} {digest}\n".encode():
        raise Corrupted(f"the service got {answer!r}, not {size} octets of digest {digest}")
    return size


async def download(stream: trio.SocketStream) -> int:
    """Read and compare, some of the time with a stall at the beginning."""
    offset, size = secrets.randbelow(LARGEST), size_of_transfer()
    await stream.send_all(b"down %d %d\n" % (offset, size))
    await trio.sleep(secrets.choice([0, 0, 0, 0.5]))
    await expect_pattern(stream, offset, size)
    await expect_end(stream)
    return size


async def echo(stream: trio.SocketStream) -> int:
    """Both directions at the same time, and both ends."""
    offset, size = secrets.randbelow(LARGEST), size_of_transfer()

    async def send() -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # whoever reads hears of it
            await stream.send_all(part_of_pattern(offset, size))
            await stream.send_eof()

    failure: Exception | None = None
    await stream.send_all(b"echo\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            await expect_pattern(stream, offset, size)
        except (Corrupted, Lost, trio.BrokenResourceError) as error:
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    await expect_end(stream)
    return 2 * size


async def events(stream: trio.SocketStream) -> int:
    """A trickle, as a model's tokens come."""
    count = 5 + secrets.randbelow(30)
    await stream.send_all(b"events %d\n" % count)
    answer = b"".join([data async for data in stream])
    expected = b"".join(b"data: %d\n\n" % number for number in range(count))
    if answer != expected:
        if expected.startswith(answer):
            raise Lost(f"{len(answer)} of {len(expected)} octets of events")
        raise Corrupted("events that were not sent")
    return len(answer)


async def leave_early(stream: trio.SocketStream) -> int:
    """Go in the middle of a transfer, with or without a word."""
    if secrets.randbelow(2):
        await stream.send_all(b"down 0 %d\n" % LARGEST)
        data = await stream.receive_some(65536)
        if data != part_of_pattern(0, len(data)):
            raise Corrupted("the first octets are not those that were sent")
    else:
        await stream.send_all(b"up 0.3\n")
        with trio.move_on_after(0.1):
            await stream.send_all(part_of_pattern(0, LARGEST))
    if secrets.randbelow(2):
        reset(stream)
    return 0


async def be_left(stream: trio.SocketStream) -> int:
    """The service breaks off: that must not look like an end."""
    offset, size = secrets.randbelow(LARGEST), size_of_transfer()
    await stream.send_all(b"break %d %d\n" % (offset, size))
    try:
        await expect_pattern(stream, offset, size)
        await expect_end(stream)
    except trio.BrokenResourceError:
        return size
    except Lost as error:
        raise Corrupted(f"a broken stream {error} as if it were complete") from error
    raise Corrupted("a broken stream ended as if it were complete")


async def idle(stream: trio.SocketStream) -> int:
    """Say nothing for a while, then leave."""
    await trio.sleep(0.5)
    return 0


Step = Callable[[trio.SocketStream], Awaitable[int]]

STEPS: Final[tuple[Step, ...]] = (upload, download, echo, events, leave_early, be_left, idle)


@dataclasses.dataclass(slots=True)
class Clients:
    """Everything that asks.

    Attributes:
        ports: of the ingress, by transport.
        tally: counts.
        outages: when the egress was away: monotonic begin and end, infinite while it is.
    """

    ports: dict[str, int]
    tally: Tally
    outages: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    async def run(self, transport: str, ends_at: float) -> None:
        """Ask for one thing after the other."""
        while trio.current_time() < ends_at:
            await self.ask(transport, secrets.choice(STEPS))

    async def ask(self, transport: str, step: Step) -> None:
        """Ask for one thing, and count what comes of it."""
        tally = self.tally
        name = getattr(step, "__name__", "?")
        began = time.monotonic()
        try:
            with trio.fail_after(STEP_TIMEOUT_S):
                async with await trio.open_tcp_stream("127.0.0.1", self.ports[transport]) as stream:
                    moved = await step(stream)
        except Corrupted as error:
            tally.corrupted.append(f"{transport} {name}: {error}")
        except (Lost, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            if self._was_killed(began):
                tally.excused += 1
                await trio.sleep(0.1)  # the egress needs the processor to come back
            else:
                tally.lost.append(f"{transport} {name}: {type(error).__name__} {error}")
        else:
            tally.octets += moved
            tally.requests[name] = tally.requests.get(name, 0) + 1
            if step is events:
                tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)

    def _was_killed(self, began: float) -> bool:
        return any(end + KILL_GRACE_S >= began for _, end in self.outages)
