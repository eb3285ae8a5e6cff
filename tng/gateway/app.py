"""A running gateway: from a checked configuration to the last byte.

Start: listeners are bound first, so that a port in use is an error at once; then everything that
keeps itself up to date runs beside the traffic.  An attestation service or an attester that is
away does not keep the gateway from starting: requests are refused, with the reason, until it is
there.  Stop: listeners close, streams drain until a deadline, what is left is cut.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from typing import Final

import trio

from tng.clock import Clock
from tng.config.dangers import dangers
from tng.config.model import TngConfig
from tng.dataplane.listener import Listener, make_bound_socket, start_listening
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.gateway.control import ControlInterface
from tng.gateway.entries import Entry, Serve, Services, Trust
from tng.gateway.exporters.factory import make_reporter
from tng.gateway.lifetime import run_until_signalled
from tng.gateway.netfilter.factory import make_captures
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S: Final = 5.0
"""Seconds for the reactor to cancel what is left; cancelling runs no foreign code."""

_FIRST_CERTIFICATES_S: Final = 2.0
"""Seconds that listening waits for the first attempt to make our certificates; an attester that is
away must not keep the gateway from starting."""

_DRAIN_POLL_S: Final = 0.05

_LAST_WORDS_S: Final = 1.0
"""Seconds, once all streams have ended, for peers to take our last octets."""


class Gateway:
    """All entries of one configuration.

    Args:
        config: checked, and available in this version.
        clock: the time of day.
        trust: who makes certificates, and who judges them.
        make_socket: makes a listening socket for a host and a port.
    """

    def __init__(
        self,
        config: TngConfig,
        clock: Clock,
        trust: Trust | None = None,
        make_socket: Callable[[str, int], socket.socket] = make_bound_socket,
    ) -> None:
        self._config = config
        self._make_socket = make_socket
        self._reactor = Reactor()
        bridge = Bridge(self._reactor)
        self._captures = make_captures(config)
        dialer = Dialer(self._reactor, bridge, self._captures.own_mark)
        services = Services(self._reactor, bridge, dialer, clock, trust or Trust())
        self._bridge = bridge
        self.entries = _entries(config, services)
        self.dangers = dangers(config)
        self._reporter = make_reporter(config, self, clock)
        self._datagrams = [entry.datagrams for entry in self.entries if entry.datagrams]
        self._listeners: list[Listener] = []
        self._started = False
        self._stopping = False

    def not_ready(self) -> list[str]:
        """Why traffic cannot be served, one reason per entry; empty when it can."""
        if not self._started:
            return ["starting"]
        if self._stopping:
            return ["stopping"]
        return [
            f"{entry.path}: {reason}"
            for entry in self.entries
            for part in entry.background
            if (reason := part.not_ready) is not None
        ]

    def pool_status(self, entry: Entry) -> dict[str, object] | None:
        """The tunnels that the connections of an ingress share; None where there is no pool."""
        return None if entry.pool_status is None else entry.pool_status()

    def keys_status(self, entry: Entry) -> dict[str, object] | None:
        """The HPKE keys of an entry whose transport is OHTTP; None for the others."""
        return None if entry.keys_status is None else entry.keys_status()

    def prepare_capturing(self) -> None:
        """See that this process may capture, and that what it asks for is not captured itself.

        Raises:
            StartError: a netfilter mode is configured, and its capability is missing.
        """
        self._captures.check()
        if (mark := self._captures.own_mark) is not None:
            from tng.gateway.netfilter.sockets import MarkedSockets  # starting costs what is used

            trio.socket.set_custom_socket_factory(MarkedSockets(mark))

    async def refresh(self) -> None:
        """Nothing to ask for: what this gateway tells is always up to date."""
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Serve until a signal says stop; then drain.

        Raises:
            StartError: a listener cannot be bound.
        """
        await run_until_signalled(self)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; what is then in flight is cut.

        Raises:
            StartError: a listener cannot be bound.
            TngError: the reactor ended by a bug of ours; running on would help nobody.
        """
        self.prepare_capturing()
        sockets = self._bind()
        crashed, token = trio.Event(), trio.lowlevel.current_trio_token()
        self._reactor.on_crash = lambda: token.run_sync_soon(crashed.set)
        try:
            control = ControlInterface(self._config.control_interface, self)
            async with trio.open_nursery() as nursery:
                await nursery.start(self._bridge.run)
                await nursery.start(control.run)
                for entry in self.entries:
                    for part in entry.background:
                        nursery.start_soon(part.run)
                await self._first_certificates()
                self._reactor.start()
                for entry in self.entries:
                    if entry.keys is not None:
                        await nursery.start(entry.keys.run)
                self._listen(sockets)
                for datagrams in self._datagrams:
                    await nursery.start(datagrams.run)
                await self._captures.apply()
                if self._reporter is not None:
                    nursery.start_soon(self._reporter.run)
                self._started = True
                task_status.started()
                await crashed.wait()
                raise TngError("the data plane has failed; the log says why")
        finally:
            self._reactor.stop(_STOP_TIMEOUT_S)
            self._unbind([listening for listening, _, _ in sockets])
            await self._captures.remove()  # now that no captured connection is left

    async def drain(self) -> None:
        """Take nothing new, and wait for what is in flight, up to the configured deadline."""
        log.info("Shutting down the instance")
        self._stopping = True
        self._reactor.call(self._let_go)
        with trio.move_on_after(self._config.drain_timeout_secs) as limit:
            async with trio.open_nursery() as nursery:
                for datagrams in self._datagrams:
                    nursery.start_soon(datagrams.drain)
            while True:
                await trio.sleep(_DRAIN_POLL_S)
                if not self._reactor.tasks:
                    break
            with trio.move_on_after(_LAST_WORDS_S):
                while True:
                    if not self._reactor.at_stop:
                        break  # no connection is closing any more
                    await trio.sleep(_DRAIN_POLL_S)
        if limit.cancelled_caught:
            log.warning(
                "%d connections cut after %g s of draining",
                len(self._reactor.tasks),
                self._config.drain_timeout_secs,
            )
        if self._reporter is not None:
            await self._reporter.finish()

    # -- start -----------------------------------------------------------------------

    def _bind(self) -> list[tuple[socket.socket, Endpoint, Serve]]:
        bound: list[tuple[socket.socket, Endpoint, Serve]] = []
        try:
            for entry in self.entries:
                for endpoint, serve in entry.listeners:
                    listening = self._make_socket(endpoint.host, endpoint.port)
                    bound.append((listening, endpoint, serve))
                    self._captures.led_to(f"{entry.path}.{entry.mode}", listening)
            for entry in self.entries:
                if entry.datagrams is not None:
                    self._captures.led_to(f"{entry.path}.{entry.mode}", entry.datagrams.bind())
        except BaseException:
            self._unbind([listening for listening, _, _ in bound])
            raise
        return bound

    def _unbind(self, sockets: Iterable[socket.socket]) -> None:
        """Close what was bound, whether or not anybody has come to serve it.  Idempotent."""
        for listening in sockets:
            listening.close()
        for datagrams in self._datagrams:
            datagrams.unbind()

    async def _first_certificates(self) -> None:
        """Give attesters a moment: whoever connects first should find a certificate."""
        with trio.move_on_after(_FIRST_CERTIFICATES_S):
            for entry in self.entries:
                if entry.identity is not None:
                    await entry.identity.wait_attempted()

    def _listen(self, sockets: list[tuple[socket.socket, Endpoint, Serve]]) -> None:
        for listening, endpoint, _ in sockets:
            start_listening(listening)
            log.info("listening on %s", endpoint)
        self._reactor.call(self._accept_from, sockets)

    def _accept_from(self, sockets: list[tuple[socket.socket, Endpoint, Serve]]) -> None:
        self._listeners = [
            Listener(self._reactor, listening, serve, name=str(endpoint))
            for listening, endpoint, serve in sockets
        ]

    # -- stop ------------------------------------------------------------------------

    def _let_go(self) -> None:
        for listener in self._listeners:
            listener.close()
        for entry in self.entries:
            if entry.tunnel is not None:
                entry.tunnel.drain()
            entry.let_idle_go()


def _entries(config: TngConfig, services: Services) -> list[Entry]:
    """The entries of both sides; the modules of a side that is not there are not loaded."""
    entries: list[Entry] = []
    if config.add_ingress:
        from tng.gateway.ingress.entry import build_ingress

        entries += [build_ingress(i, entry, services) for i, entry in enumerate(config.add_ingress)]
    if config.add_egress:
        from tng.gateway.egress.entry import build_egress

        entries += [build_egress(i, entry, services) for i, entry in enumerate(config.add_egress)]
    return entries
