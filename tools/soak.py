"""Our pair under random load for some time, and what must hold afterwards.

In: how long.  Out: a table of counts, and exit status 1 unless nothing was corrupted, nothing was
lost but what was killed on purpose, and both gateways have let go of descriptors, memory and
processor.  An ingress and an egress run as processes, attested by the software platform, with one
entry for each transport; clients and the checking service behind the egress live in this process.

    python tools/soak.py --minutes 10 --kill-egress-every 20

Invariant: it ends by itself, `SETTLE_S` after the given time at the latest, and uses loopback only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

import trio

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/lib"))

from stage.gateways import free_port, mapping
from stage.processes import Process, running
from stage.random_load import STEPS, Clients, Service, Tally
from stage.vitals import busy_share, is_alive, open_descriptors, resident_octets
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import SystemClock

TRANSPORTS: Final = {"default": None, "raw": False, "multiplexed": True}
CLIENTS_PER_TRANSPORT: Final = 8

SETTLE_S: Final = 30.0
"""What the gateways get to let go of everything: they wait 5 s for peers that do not end."""

DESCRIPTOR_SLACK: Final = 4
"""Descriptors above the base line: a shared connection that has not been idle for its minute, on
each of two transports, and its successor."""

RSS_GROWTH_BOUND: Final = 64 << 20
"""Octets that resident memory may be above the base line: buffers that the allocator keeps."""

IDLE_SHARE: Final = 0.1
"""Share of a core that an idle gateway may use."""


# -- the gateways ------------------------------------------------------------------------------


class Gateway:
    """One `tng launch`, which may be killed and started again.

    Args:
        folder: for its logs.
        name: of the side.
        config: without the control interface.
    """

    def __init__(self, folder: pathlib.Path, name: str, config: dict[str, object]) -> None:
        self.name = name
        self._folder = folder
        self._control = free_port()
        interface = {"restful": {"host": "127.0.0.1", "port": self._control}}
        self._config = json.dumps({**config, "control_interface": interface})
        self._starts = 0
        self.process = self._start()

    @property
    def pid(self) -> int:
        """Of the process that serves now."""
        return self.process.popen.pid

    def _start(self) -> Process:
        self._starts += 1
        arguments = ("-m", "tng", "launch", "--config-content", self._config)
        return Process(self._folder, f"{self.name}-{self._starts}", *arguments)

    def wait_ready(self) -> None:
        """Return when it serves."""
        self.process.await_http(self._control, "/readyz")

    def kill_and_restart(self) -> None:
        """SIGKILL, then a new process with the same configuration; ready when this returns."""
        self.end()
        self.process = self._start()
        self.wait_ready()

    def end(self) -> None:
        """SIGKILL."""
        self.process.popen.kill()
        self.process.popen.wait()

    def vitals(self) -> tuple[int, int]:
        """Open descriptors, and resident octets."""
        return open_descriptors(self.pid), resident_octets(self.pid)


@contextlib.contextmanager
def gateways(
    folder: pathlib.Path, service: int
) -> Iterator[tuple[Gateway, Gateway, dict[str, int]]]:
    """Judge, egress and ingress for the block; the ports of the ingress by transport."""
    platform = folder / "platform"
    SimulatedPlatform.create(platform, now=int(SystemClock().now()))
    judge = free_port()
    arguments = ["--listen", f"127.0.0.1:{judge}", "--state", str(folder / "trustee")]
    simulated = ["--allow-simulated", str(platform)]
    attest = {"aa_type": "simulated", "simulated_platform": str(platform)}
    verify = {
        "as_addr": f"http://127.0.0.1:{judge}/as/",
        "policy_ids": ["default"],
        "allow_simulated": True,
    }
    exits, ports, entries = [], {}, []
    for transport, multiplex in TRANSPORTS.items():
        options = {"rats_tls": {"multiplex": multiplex}}
        tunnel = free_port()
        ports[transport] = free_port()
        exits.append({**mapping(tunnel, service), **options, "attest": attest})
        entries.append({**mapping(ports[transport], tunnel), **options, "verify": verify})
    with (
        running(folder, "trustee", "-m", "tng", "trustee", *arguments, *simulated) as trustee,
        contextlib.ExitStack() as stack,
    ):
        trustee.await_http(judge, "/as/certificate")
        pair = []
        for name, side in (
            ("egress", {"add_egress": exits}),
            ("ingress", {"add_ingress": entries}),
        ):
            gateway = Gateway(folder, name, dict(side))
            stack.callback(gateway.end)
            gateway.wait_ready()
            pair.append(gateway)
        yield pair[0], pair[1], ports


# -- the run -----------------------------------------------------------------------------------


async def load(clients: Clients, egress: Gateway, seconds: float, kill_every: float | None) -> None:
    """Everything at random, for so long."""
    ends_at = trio.current_time() + seconds
    async with trio.open_nursery() as nursery:
        for transport in clients.ports:
            for _ in range(CLIENTS_PER_TRANSPORT):
                nursery.start_soon(clients.run, transport, ends_at)
        while kill_every is not None and trio.current_time() + kill_every < ends_at:
            await trio.sleep(kill_every)
            clients.outages.append((time.monotonic(), math.inf))
            await trio.to_thread.run_sync(egress.kill_and_restart)
            clients.outages[-1] = (clients.outages[-1][0], time.monotonic())


async def settle(pair: tuple[Gateway, ...], service: Service, base: list[tuple[int, int]]) -> None:
    """Wait until everything is let go of, or `SETTLE_S` are over."""
    with trio.move_on_after(SETTLE_S):
        while service.active or any(  # noqa: ASYNC110 - processes outside set no event
            gateway.vitals()[0] > before[0] + DESCRIPTOR_SLACK
            for gateway, before in zip(pair, base, strict=True)
        ):
            await trio.sleep(0.1)


@contextlib.asynccontextmanager
async def serving(service: Service) -> AsyncIterator[int]:
    """The service for the block; its port."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, service.serve, listeners)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def soak(folder: pathlib.Path, seconds: float, kill_every: float | None) -> list[str]:
    """Run everything and print what came of it; what should not be, in words."""
    service, tally = Service(), Tally()
    async with serving(service) as port:
        with gateways(folder, port) as (egress, ingress, ports):
            pair = (egress, ingress)
            clients = Clients(ports, tally)
            for transport in ports:
                for step in STEPS:
                    await clients.ask(transport, step)
            await trio.sleep(0.5)
            base = [gateway.vitals() for gateway in pair]
            await load(clients, egress, seconds, kill_every)
            await settle(pair, service, base)
            return report(clients, service, pair, base)


def report(
    clients: Clients, service: Service, pair: tuple[Gateway, ...], base: list[tuple[int, int]]
) -> list[str]:
    """Print the counts; what should not be, in words."""
    tally = clients.tally
    say(f"requests  {sum(tally.requests.values())} {json.dumps(tally.requests)}")
    say(f"octets    {tally.octets}")
    say(f"slowest   {tally.slowest_s:.2f} s for a trickle that takes up to 0.7 s by itself")
    say(f"killed    egress {len(clients.outages)} times, {tally.excused} requests with it")
    say(f"corrupted {len(tally.corrupted)}")
    say(f"lost      {len(tally.lost)}")
    wrong = tally.corrupted + tally.lost
    if service.active:
        wrong.append(f"the service still has {service.active} connections")
    for gateway, before in zip(pair, base, strict=True):
        if not is_alive(gateway.pid):
            wrong.append(f"{gateway.name} has ended:\n{gateway.process.log[-2000:]}")
            continue
        after, share = gateway.vitals(), busy_share(0.5, gateway.pid)
        grown = after[1] - before[1]
        say(
            f"{gateway.name:9} descriptors {before[0]} -> {after[0]}, memory {before[1] >> 20} -> "
            f"{after[1] >> 20} MiB (bound {RSS_GROWTH_BOUND >> 20} more), idle at {share:.0%}"
        )
        if after[0] > before[0] + DESCRIPTOR_SLACK:
            wrong.append(f"{gateway.name} holds {after[0]} descriptors, {before[0]} before")
        if grown > RSS_GROWTH_BOUND:
            wrong.append(f"{gateway.name} grew by {grown} octets")
        if share > IDLE_SHARE:
            wrong.append(f"{gateway.name} uses {share:.0%} of a core for nothing")
        if "Traceback" in gateway.process.log:
            wrong.append(f"{gateway.name} logged a failure of its own")
    return wrong


def say(line: str) -> None:
    """Print, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Exit status 0 when everything held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--kill-egress-every", type=float, metavar="SECONDS", default=None)
    parser.add_argument("--logs", type=pathlib.Path, help="folder to keep the gateways' logs in")
    given = parser.parse_args()
    seconds = given.minutes * 60 + given.seconds or 60.0
    with contextlib.ExitStack() as stack:
        if given.logs is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        else:
            given.logs.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix="soak-", dir=given.logs)
        wrong = trio.run(soak, pathlib.Path(folder), seconds, given.kill_egress_every)
    for what in wrong[:20]:
        say(f"WRONG {what}")
    say("soak failed" if wrong else "soak passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
