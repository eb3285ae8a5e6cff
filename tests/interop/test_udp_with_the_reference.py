"""UDP with a gateway of ours at one end and the reference at the other; many clients at once."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import trio

from stage.datagrams import Client, address_of, echo, udp_port
from stage.gateways import listen
from stage.processes import Process, running

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / ".reference" / "bin" / "tng"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

DIRECTIONS = ("ours->ref", "ref->ours", "ours->ours")
"""Ingress -> egress."""

IDLE_S = 10

STAYS = 0.75
"""Share of the memory of a busy hour that may stay: arenas with few pieces in use (docs/UDP.md)."""


def launched(
    folder: pathlib.Path, who: str, side: str, port: int, target: int
) -> AbstractContextManager[Process]:
    """One end of a `mapping_udp`."""
    mode = {"in": listen(port), "out": listen(target), "idle_timeout_secs": IDLE_S}
    config = json.dumps({f"add_{side}": [{"mapping_udp": mode, "no_ra": True}]})
    arguments = ("launch", "--config-content", config)
    if who == "ref":
        return running(folder, side, *arguments, program=str(REFERENCE))
    return running(folder, side, "-m", "tng", *arguments, program=sys.executable)


@contextmanager
def pair(folder: pathlib.Path, direction: str, service: int) -> Iterator[tuple[int, list[Process]]]:
    """The port of an ingress whose egress leads to `service`; both processes."""
    near, far = direction.split("->")
    entrance, middle = udp_port(), udp_port()
    with (
        launched(folder, far, "egress", middle, service) as egress,
        launched(folder, near, "ingress", entrance, middle) as ingress,
    ):
        yield entrance, [ingress, egress]


async def first_answer(port: int) -> None:
    """Return once the whole way is up."""
    with trio.fail_after(20):
        while True:
            async with Client(port) as client:
                try:
                    await client.send(b"is anybody there")
                    if not await client.hears_nothing(0.3):
                        return
                except OSError:
                    await trio.sleep(0.05)


def resident_kib(process: Process) -> int:
    status = pathlib.Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_datagrams_below_the_path_limit_pass_and_larger_ones_end_nothing(
    direction: str, tmp_path: pathlib.Path
) -> None:
    async with echo() as service:
        with pair(tmp_path, direction, service.port) as (port, processes):
            await first_answer(port)
            async with Client(port) as client:
                for size in (1, 100, 1000, 1150, 1, 0):
                    assert await client.ask(b"x" * size) == b"x" * size
                await client.send(b"x" * 3000)
                assert await client.ask(b"after") == b"after"
            assert all(process.popen.poll() is None for process in processes)


@pytest.mark.parametrize("direction", DIRECTIONS)
async def test_a_thousand_clients_lose_no_datagram_and_their_memory_is_given_back(
    direction: str, tmp_path: pathlib.Path
) -> None:
    """The same with 100 datagrams for each client: tools/udp_load."""
    clients, datagrams, at_a_time = 1000, 10, 64
    finished = 0

    async def work(port: int, number: int, turns: trio.CapacityLimiter) -> None:
        nonlocal finished
        async with turns, Client(port, address_of(number)) as client:
            for step in range(datagrams):
                datagram = b"%d %d" % (number, step)
                assert await client.ask(datagram) == datagram
            finished += 1

    async with echo() as service:
        with pair(tmp_path, direction, service.port) as (port, processes):
            await first_answer(port)
            ours = [
                p for p, who in zip(processes, direction.split("->"), strict=True) if who == "ours"
            ]
            before = [resident_kib(process) for process in ours]
            turns = trio.CapacityLimiter(at_a_time)
            async with trio.open_nursery() as nursery:
                for number in range(clients):
                    nursery.start_soon(work, port, number, turns)
            assert finished == clients
            busy = [resident_kib(process) for process in ours]
            with trio.fail_after(IDLE_S + 20):
                while any(
                    resident_kib(process) > start + (peak - start) * STAYS
                    for process, start, peak in zip(ours, before, busy, strict=True)
                ):
                    await trio.sleep(0.2)
