"""Waves of UDP clients through a pair of gateways: what is lost, and what memory it takes.

In: how many clients, and which program is at which end.  Out: a table, and exit status 1 unless
every datagram was answered.  Clients ask one datagram at a time and wait for its echo; a client
whose answer does not come counts one loss and goes on with its next datagram.  Each has an address
of its own, so that none meets the session of an earlier one.  Each wave ends when all sessions have
been idle for long enough to be closed.

    python tools/udp_load.py --clients 1000 --datagrams 100 --waves 3 --near reference

Invariant: it uses loopback only, and ends by itself.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/lib"))

from stage.datagrams import Client, address_of, echo, udp_port
from stage.gateways import listen
from stage.processes import Process, running
from stage.vitals import resident_octets

ROOT: Final = pathlib.Path(__file__).resolve().parents[1]
REFERENCE: Final = ROOT / ".reference/bin/tng"

START_TIMEOUT_S: Final = 20.0

ANSWER_TIMEOUT_S: Final = 8.0
"""Seconds after which a datagram counts as lost: an answer takes milliseconds, and a session that
has to be opened first some more."""

_MIB: Final = 1 << 20


@dataclass(slots=True)
class Wave:
    """What one wave has come to.

    Attributes:
        answered: datagrams.
        lost: datagrams, by client and number.
        took_s: seconds until the last client was done.
        slowest_s: seconds that the slowest answer took.
        memory: octets of each gateway of ours: at the busiest, and after idle.
    """

    answered: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    took_s: float = 0.0
    slowest_s: float = 0.0
    memory: list[tuple[int, int]] = field(default_factory=list)


class Load:
    """Clients of one port.

    Args:
        port: of the ingress.
        datagrams: that each client sends.
        at_a_time: clients that are under way at once.
    """

    def __init__(self, port: int, datagrams: int, at_a_time: int) -> None:
        self._port = port
        self._datagrams = datagrams
        self._at_a_time = at_a_time

    async def wave(self, clients: int) -> Wave:
        """Let that many clients do all that they do."""
        wave, began = Wave(), time.monotonic()
        turns = trio.CapacityLimiter(self._at_a_time)
        async with trio.open_nursery() as nursery:
            for number in range(clients):
                nursery.start_soon(self._client, number, wave, turns)
        wave.took_s = time.monotonic() - began
        return wave

    async def _client(self, number: int, wave: Wave, turns: trio.CapacityLimiter) -> None:
        async with turns, Client(self._port, address_of(number)) as client:
            for step in range(self._datagrams):
                began = time.monotonic()
                if await _is_answered(client, b"%d %d" % (number, step)):
                    wave.answered += 1
                    wave.slowest_s = max(wave.slowest_s, time.monotonic() - began)
                else:
                    wave.lost.append((number, step))


async def _is_answered(client: Client, datagram: bytes) -> bool:
    with trio.move_on_after(ANSWER_TIMEOUT_S):
        await client.send(datagram)
        while await client.receive() != datagram:
            pass  # an earlier one, which came late
        return True
    return False


@contextmanager
def gateway(
    folder: pathlib.Path, program: str, side: str, port: int, target: int, idle_s: int
) -> Iterator[Process]:
    """One end of a `mapping_udp`."""
    mode = {"in": listen(port), "out": listen(target), "idle_timeout_secs": idle_s}
    config = json.dumps({f"add_{side}": [{"mapping_udp": mode, "no_ra": True}]})
    arguments = ["launch", "--config-content", config]
    if program == "ours":
        arguments = ["-m", "tng", *arguments]
    path = sys.executable if program == "ours" else str(REFERENCE)
    with running(folder, side, *arguments, program=path) as process:
        yield process


async def first_answer(port: int) -> None:
    """Return once the whole way is up."""
    with trio.fail_after(START_TIMEOUT_S):
        while True:
            async with Client(port) as client:
                try:
                    await client.send(b"is anybody there")
                    if not await client.hears_nothing(0.3):
                        return
                except OSError:  # nobody listens yet
                    await trio.sleep(0.05)


async def watch_memory(processes: Sequence[Process], peaks: collections.Counter[int]) -> None:
    """Keep the highest resident memory of each process, by its number."""
    while True:
        for number, process in enumerate(processes):
            peaks[number] = max(peaks[number], resident_octets(process.popen.pid))
        await trio.sleep(0.1)


async def measure(options: argparse.Namespace, folder: pathlib.Path) -> list[Wave]:
    """All waves, printed one by one."""
    entrance, middle = udp_port(), udp_port()
    async with echo() as service:
        with ExitStack() as stack:
            egress = stack.enter_context(
                gateway(folder, options.far, "egress", middle, service.port, options.idle)
            )
            ingress = stack.enter_context(
                gateway(folder, options.near, "ingress", entrance, middle, options.idle)
            )
            await first_answer(entrance)
            before = [resident_octets(process.popen.pid) for process in (ingress, egress)]
            _print_row("start", "", "", "", *(f"{octets // _MIB}" for octets in before))
            load = Load(entrance, options.datagrams, options.at_a_time)
            waves = []
            for number in range(1, options.waves + 1):
                wave = await _one(load, options, [ingress, egress])
                _print_row(
                    f"wave {number}",
                    f"{len(wave.lost)} of {options.clients * options.datagrams}",
                    f"{wave.took_s:.1f}",
                    f"{wave.slowest_s * 1000:.0f}",
                    *(f"{peak // _MIB} -> {after // _MIB}" for peak, after in wave.memory),
                )
                waves.append(wave)
                service.seen.clear()
            return waves


async def _one(load: Load, options: argparse.Namespace, processes: list[Process]) -> Wave:
    peaks: collections.Counter[int] = collections.Counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_memory, processes, peaks)
        wave = await load.wave(options.clients)
        await trio.sleep(options.idle + options.settle)
        nursery.cancel_scope.cancel()
    after = [resident_octets(process.popen.pid) for process in processes]
    wave.memory = [(peaks[number], octets) for number, octets in enumerate(after)]
    return wave


def _print_row(*cells: str) -> None:
    _print("".join(f"{cell:<16}" for cell in cells).rstrip())


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Send datagrams of many clients through a pair.")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--datagrams", type=int, default=100, help="of each client")
    parser.add_argument("--at-a-time", type=int, default=64, help="clients under way at once")
    parser.add_argument("--idle", type=int, default=5, help="idle_timeout_secs of both ends")
    parser.add_argument("--waves", type=int, default=2)
    parser.add_argument(
        "--settle", type=float, default=15.0, help="seconds after idle until memory is read again"
    )
    for end in ("near", "far"):
        parser.add_argument(f"--{end}", choices=("ours", "reference"), default="ours")
    parser.add_argument("--logs", type=pathlib.Path, help="folder in which logs stay")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and say whether anything was lost."""
    options = parse(arguments)
    if "reference" in {options.near, options.far} and not REFERENCE.exists():
        _print("the reference is not there: tools/reference")
        return 2
    _print_row("", "lost", "seconds", "slowest ms", "ingress MiB", "egress MiB")
    with tempfile.TemporaryDirectory() as folder:
        waves = trio.run(measure, options, options.logs or pathlib.Path(folder))
    lost = [loss for wave in waves for loss in wave.lost]
    for client, number in lost[:10]:
        _print(f"lost: datagram {number} of client {client}")
    _print("failed" if lost else "nothing lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
