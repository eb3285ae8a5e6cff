"""One worker: a gateway that is told by a supervisor what to serve, and when to stop.

In: a stream to the supervisor, inherited when the process was started; everything else comes over
it: the configuration, sockets and the table of requests seen by their descriptors, verdicts,
certificates, HPKE keys.  Out: served traffic.  Questions that it answers: `keys`, `models`
(`workers.news`), `start`, `report`, `drain` (`workers.slot`).

The end of the stream is the end of the worker: without a supervisor there is no judge.  Signals
are the supervisor's business, so that a signal to the whole process group does not cut what the
supervisor is about to drain.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

import trio

from tng.config.loader import prepare_config
from tng.endpoint import Endpoint
from tng.errors import LocalProtocolError, StartError
from tng.gateway.app import Gateway
from tng.gateway.entries import Trust
from tng.gateway.workers.link import Link
from tng.gateway.workers.messages import member
from tng.gateway.workers.remote import RemoteSource, RemoteVerifier
from tng.gateway.workers.remote_keys import RemoteKeys
from tng.gateway.workers.remote_statements import RemoteStatements
from tng.gateway.workers.replays import SharedReplays
from tng.gateway.workers.reports import dump_report
from tng.gateway.workers.sections import path_of

if TYPE_CHECKING:
    from tng.attest.strict_json import Json
    from tng.clock import Clock
    from tng.config.model import TngConfig, Verify
    from tng.gateway.workers.link import Object
    from tng.tunnel.ohttp.replay import Replays

log = logging.getLogger(__name__)


def run_worker(descriptor: int, clock: Clock) -> None:
    """Serve until the supervisor ends the stream.

    Args:
        descriptor: of the stream to the supervisor; owned by the worker from now on.
        clock: the time of day.

    Raises:
        StartError: the descriptor is no stream socket: nobody but a supervisor starts workers.
    """
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    stream = _inherited(descriptor)
    trio.run(_serve, stream, clock)


class Worker:
    """Answers a supervisor's questions with a gateway.

    Args:
        stream: to the supervisor; closed when `run` ends.
        clock: the time of day.
    """

    def __init__(self, stream: trio.abc.Stream, clock: Clock) -> None:
        self._link = Link(stream, self._answer)
        self._clock = clock
        self._gateway: Gateway | None = None
        self._nursery: trio.Nursery | None = None
        self._is_drained = False
        self._keys: dict[str, RemoteKeys] = {}
        self._verifiers: dict[str, RemoteVerifier] = {}
        self._models: dict[str, list[str]] = {}

    async def run(self) -> None:
        """Serve until the supervisor ends the stream.

        Raises:
            TngError: the gateway has failed by a bug of ours.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self._link.run()
            if not self._is_drained:
                log.warning("the supervisor has ended the stream: what is in flight is cut")
            nursery.cancel_scope.cancel()

    async def _answer(self, question: str, carried: Object) -> Object:
        match question:
            case "keys":
                self._keys_at(member(carried, "entry", str)).take(carried)
                return {}
            case "models":
                self._prefer(member(carried, "entry", str), member(carried, "models", list))
                return {}
            case "start":
                await self._start(carried)
                return {}
            case "report" if self._gateway is not None:
                return dump_report(self._gateway, servers=carried.get("servers") is True)
            case "drain":
                if self._gateway is not None:
                    await self._gateway.drain()
                self._is_drained = True
                return {}
        raise LocalProtocolError(f"a worker has no answer to {question!r} now")

    async def _start(self, carried: Object) -> None:
        if self._gateway is not None or self._nursery is None:
            raise LocalProtocolError("a worker is started once")
        # The control interface and reports are the supervisor's: it speaks for all of us.
        config = prepare_config(member(carried, "config", str))
        config = config.model_copy(update={"control_interface": None, "metric": None})
        sockets = _Inherited(member(carried, "sockets", dict))
        trust = self._trust(config, carried.get("table"))
        gateway = Gateway(config, self._clock, trust, sockets.take)
        await self._nursery.start(gateway.serve)
        self._gateway = gateway

    def _trust(self, config: TngConfig, table: Json) -> Trust:
        link = self._link
        return Trust(
            lambda attest, _clock: RemoteSource(link, path_of(config, attest)),
            lambda verifiers, clock: self._verifier(
                path_of(config, verifiers[0]), verifiers, clock
            ),
            lambda attest, _clock: RemoteStatements(
                link, path_of(config, attest), attest.model, attest.provider
            ),
            lambda where, _settings, _services: self._told_keys(where),
            functools.partial(_replays, table),
        )

    def _verifier(self, path: str, sections: tuple[Verify, ...], clock: Clock) -> RemoteVerifier:
        verifier = RemoteVerifier(self._link, path, [each.model for each in sections], clock)
        self._verifiers[path] = verifier
        verifier.prefer(self._models.get(path, ()))
        return verifier

    def _prefer(self, path: str, models: list[Json]) -> None:
        self._models[path] = [str(model) for model in models]
        if path in self._verifiers:
            self._verifiers[path].prefer(self._models[path])

    def _told_keys(self, path: str) -> RemoteKeys:
        if path not in self._keys:
            raise StartError(f"the supervisor gave this worker no keys for {path}")
        return self._keys[path]

    def _keys_at(self, path: str) -> RemoteKeys:
        if path not in self._keys:
            self._keys[path] = RemoteKeys(self._link, path, self._clock)
        return self._keys[path]


class _Inherited:
    """The listening sockets that the supervisor made for this worker."""

    def __init__(self, descriptors: Object) -> None:
        self._descriptors = {name: member(descriptors, name, list) for name in descriptors}

    def take(self, host: str, port: int) -> socket.socket:
        """The socket that listens there; with port 0, the next one."""
        name = str(Endpoint(host, port))
        descriptors = self._descriptors.get(name, [])
        descriptor = descriptors.pop(0) if descriptors else None
        if not isinstance(descriptor, int):
            raise StartError(f"the supervisor gave this worker no socket for {name}")
        return _inherited(descriptor)


def _replays(table: Json) -> Replays:
    """The memory of requests; one that is this worker's alone would let copies through."""
    if not isinstance(table, int):
        raise StartError("the supervisor gave this worker no table of requests seen")
    replays = SharedReplays(table)
    os.set_inheritable(table, False)
    return replays


async def _serve(stream: socket.socket, clock: Clock) -> None:
    await Worker(trio.SocketStream(trio.socket.from_stdlib_socket(stream)), clock).run()


def _inherited(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    except OSError as exc:
        raise StartError(
            f"descriptor {descriptor} is no socket ({exc.strerror}); workers are started by"
            " `tng launch --workers N`, not by hand"
        ) from exc
