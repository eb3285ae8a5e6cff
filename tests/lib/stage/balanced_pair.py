"""An ingress, nginx, and two egresses with a shared OHTTP key, while keys change and egresses die.

In: how many requests, where keys come from, how often an egress is killed.  Out: a `Report`.  Keys
are those of a file that is replaced, or are shared among the egresses, which rotate them.
Everything is on loopback; what passes on the balancer's and the egresses' ports is captured.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stage.balancer import balancing
from stage.capture import Capture, capturing
from stage.gateways import free_port, listen, mapping
from stage.numbered_requests import NumberedRequests, Tally
from stage.processes import Process, get, launched

CLIENTS: Final = 16

ROTATION_S: Final = 2
"""Seconds for which a key is offered."""

KILL_GRACE_S: Final = 0.25
"""Seconds after its death in which the balancer may still choose a dead egress's connection."""

WATCHED: Final = ("balancer", "egress 1", "egress 2")
"""Ports on which there must be ciphertext alone."""

CIPHERTEXT: Final = "ciphertext"
"""Name of what shows, on each of these ports, that the search works there."""

_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Report:
    """What happened.

    Attributes:
        tally: of the clients and of the service.
        seconds: from the first request to the last.
        kills: (from, to) in monotonic seconds, of each time an egress was killed.
        keys: that were active at the egresses meanwhile, public, in hex.
        used: keys that the ingress encrypted to, public, in hex.
        capture: what passed.
        returned: octets at each killed egress after it was back.
        log: of the ingress.
    """

    tally: Tally
    seconds: float
    kills: list[tuple[float, float]]
    keys: set[str]
    used: set[str]
    capture: Capture
    returned: list[int]
    log: str

    def lost(self) -> list[str]:
        """Requests that were not served although nobody killed what served them."""
        return [
            f"{failure.number} after {failure.ended - failure.began:.3f} s: {failure.what}"
            for failure in self.tally.failures
            if not any(
                failure.began < end + KILL_GRACE_S and failure.ended > begin
                for begin, end in self.kills
            )
        ]

    def repeated(self) -> list[int]:
        """Requests that may not be repeated, and were served more than once."""
        delivered = self.tally.delivered.items()
        return [number for number, times in delivered if times > 1 and number % 2]

    def plaintext(self) -> list[str]:
        """What could be read where there must be ciphertext alone."""
        return [
            f"{name} on the port of {where}: {count} times"
            for (where, name), count in self.capture.found.items()
            if where in WATCHED and name != CIPHERTEXT
        ]

    def describe(self) -> str:
        """The figures, one a line."""
        tally, seen = self.tally, self.capture
        excused = len(tally.failures) - len(self.lost())
        repeated = sum(times > 1 for times in tally.delivered.values())
        octets = ", ".join(f"{name} {seen.octets[name]}" for name in WATCHED)
        return "\n".join(
            (
                f"requests answered:   {tally.answered} in {self.seconds:.1f} s, {CLIENTS} clients",
                f"lost:                {len(self.lost())}",
                f"under way at a kill: {excused} of {len(self.kills)} kills",
                f"slowest:             {tally.slowest_s:.3f} s",
                f"safe ones repeated:  {repeated}",
                f"keys offered, used:  {len(self.keys)}, {len(self.used)}",
                f"octets captured:     {octets}; packets missed: {seen.dropped}",
                f"plaintext found:     {len(self.plaintext())}",
            )
        )


class BalancedPair:
    """Everything that runs, except for the clients and the service.

    Args:
        folder: for files and logs.
        service: port of the service.
        is_shared: whether the egresses share keys among themselves; otherwise they have a file.
    """

    def __init__(self, folder: pathlib.Path, service: int, *, is_shared: bool) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("ingress", *WATCHED)} | {"service": service}
        self._controls = {name: free_port() for name in ("ingress", "egress 1", "egress 2")}
        self._peers = (free_port(), free_port())
        self._is_shared = is_shared
        self._running: dict[str, tuple[contextlib.ExitStack, Process]] = {}
        self.keys: set[str] = set()
        self.used: set[str] = set()
        if not is_shared:
            self.replace_key()

    def replace_key(self) -> None:
        """Put a new key where the egresses look for it."""
        pem = X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        fresh = self.folder / "key.new"
        fresh.touch(0o600)
        fresh.write_bytes(pem)
        fresh.replace(self.folder / "key.pem")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Everything, for the block."""
        ends = (self.ports["egress 1"], self.ports["egress 2"])
        with contextlib.ExitStack() as stack:
            for name in ("egress 2", "egress 1"):
                stack.callback(self._end, name)
            self._start_egresses()
            stack.enter_context(balancing(self.folder, self.ports["balancer"], ends))
            stack.callback(self._end, "ingress")
            entry = {**mapping(self.ports["ingress"], self.ports["balancer"]), "ohttp": {}}
            self._start("ingress", {"add_ingress": [{**entry, "no_ra": True}]})
            yield

    def kill_and_restart(self, name: str) -> tuple[float, float]:
        """SIGKILL an egress, start it again; when it was killed, and when it was gone."""
        process = self._running[name][1]
        begin = time.monotonic()
        process.popen.kill()
        process.popen.wait()
        end = time.monotonic()
        self._end(name)
        self._start(name, self._egress(name))
        return begin, end

    def look_at_keys(self) -> None:
        """Note which keys are active, and which the ingress uses."""
        for name in ("egress 1", "egress 2"):
            state = self._status(name, "egress/0/ohttp/keys")
            keys = state["keys"] if "keys" in state else [state["key"]] if state else []
            self.keys.update(key["public_key"] for key in keys if key["status"] == "Active")
        servers = self._status("ingress", "ingress/0/ohttp/keys").get("servers", ())
        self.used.update(server["server_public_key"] for server in servers)

    def ingress_log(self) -> str:
        """What the ingress has said so far."""
        return self._running["ingress"][1].log

    def _status(self, name: str, path: str) -> dict[str, list[dict[str, str]]]:
        status, body = get(self._controls[name], f"/status/{path}")
        return json.loads(body) if status == 200 else {}

    def _start_egresses(self) -> None:
        """Both at the same time: those that share keys wait for each other."""
        stacks = {name: contextlib.ExitStack() for name in ("egress 1", "egress 2")}
        for name, stack in stacks.items():
            opened = launched(
                self.folder, name, self._egress(name), self._controls[name], ready=False
            )
            self._running[name] = (stack, stack.enter_context(opened))
        for name in stacks:
            self._running[name][1].await_http(self._controls[name], "/readyz")

    def _start(self, name: str, config: dict[str, object]) -> None:
        stack = contextlib.ExitStack()
        process = stack.enter_context(launched(self.folder, name, config, self._controls[name]))
        self._running[name] = (stack, process)

    def _end(self, name: str) -> None:
        if name in self._running:
            self._running.pop(name)[0].close()

    def _egress(self, name: str) -> dict[str, object]:
        own, other = self._peers if name == "egress 1" else reversed(self._peers)
        key: dict[str, object] = {"source": "file", "path": str(self.folder / "key.pem")}
        if self._is_shared:
            key = {
                "source": "peer_shared",
                "rotation_interval": ROTATION_S,
                **listen(own),
                "peers": [f"127.0.0.1:{other}"],
                "no_ra": True,
            }
        entry = mapping(self.ports[name], self.ports["service"])
        return {"add_egress": [{**entry, "ohttp": {"key": key}, "no_ra": True}]}


async def run_balanced(
    folder: pathlib.Path, *, is_shared: bool, requests: int, kills: int
) -> Report:
    """Send at least `requests`, while keys rotate and an egress is killed `kills` times."""
    load = NumberedRequests()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, load.serve, listeners)
        service = int(listeners[0].socket.getsockname()[1])
        pair = BalancedPair(folder, service, is_shared=is_shared)
        with contextlib.ExitStack() as stack:
            await trio.to_thread.run_sync(stack.enter_context, pair.serving())
            names = {**load.secrets, CIPHERTEXT: b"message/ohttp-chunked-req"}
            capture = stack.enter_context(capturing(names, pair.ports))
            course = _Course(pair, capture, load.tally, requests, kills)
            began = time.monotonic()
            async with trio.open_nursery() as inner:
                inner.start_soon(course.watch)
                await load.run(pair.ports["ingress"], CLIENTS, course.has_ended)
                inner.cancel_scope.cancel()
            seconds, log = time.monotonic() - began, pair.ingress_log()
        nursery.cancel_scope.cancel()
    return Report(
        *(load.tally, seconds, course.kills, pair.keys, pair.used, capture, course.returned, log)
    )


class _Course:
    """What is done to the pair while the requests run."""

    def __init__(
        self, pair: BalancedPair, capture: Capture, tally: Tally, requests: int, kills: int
    ) -> None:
        self.kills: list[tuple[float, float]] = []
        self.returned: list[int] = []
        self._pair = pair
        self._capture = capture
        self._tally = tally
        self._requests = requests
        self._planned = kills
        self._is_over = False

    def has_ended(self) -> bool:
        """Whether clients may stop: all was done, and enough requests were served."""
        return self._is_over and self._tally.answered >= self._requests

    async def watch(self) -> None:
        """Replace keys, kill egresses in turn, and look, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rotate)
            for turn in range(self._planned):
                await self._until(
                    lambda turn=turn: (
                        len(self._pair.keys) > len(self.kills) + 1
                        and self._tally.answered
                        >= self._requests * (turn + 1) // (self._planned + 1)
                    )
                )
                await self._kill(f"egress {2 - turn % 2}")
            keys = len(self._pair.keys)
            await self._until(lambda: len(self._pair.keys) > keys)
            self._is_over = True

    async def _kill(self, name: str) -> None:
        self.kills.append(await trio.to_thread.run_sync(self._pair.kill_and_restart, name))
        before = self._capture.octets[name]
        await self._until(lambda: self._capture.octets[name] > before)
        self.returned.append(self._capture.octets[name] - before)

    async def _rotate(self) -> None:
        while True:
            await trio.sleep(ROTATION_S)
            self._pair.replace_key()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds; keys are looked at meanwhile."""
        while not condition():
            await trio.to_thread.run_sync(self._pair.look_at_keys)
            await trio.sleep(_POLL_S)
