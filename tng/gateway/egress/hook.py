"""The `hook` way out: ports of one program, which really listens on loopback.

Source: spec of the RATS-TLS transport, section 6.3 (TNG 2.12).  The gateway listens where the
program meant to; the library that `tng exec` preloads has moved the program to another port of
127.0.0.1.  Connections from this machine (unless `capture_local_traffic`) and those to an address
that the configuration does not name are passed on as they are; all others are tunnels.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Final, NamedTuple

from tng.config.capture import EgressHook, HookListen
from tng.dataplane.ends import End
from tng.dataplane.mux import MuxStream
from tng.dataplane.plain import PlainEnd
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import relay
from tng.dataplane.socket_end import to_endpoint
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.gateway.egress.own_addresses import interface_addresses, is_own_address
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Opened
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls.server import RatsTlsServer
from tng.verdict import NoRa

log = logging.getLogger(__name__)

MODE: Final = "hook"

Serve = Callable[[socket.socket, Endpoint], Coroutine[None, None, None]]
"""Serves one accepted TCP connection, given the client's address."""

_LOOPBACK: Final = ("127.0.0.1", "::1")
"""Where the library moves a socket to; the second one where the socket takes IPv6 alone."""


class Moved(NamedTuple):
    """One port of the program.

    Attributes:
        rule: the line of the configuration, with one port and where it is moved.
        listen: where the gateway listens instead of the program.
        target: where the program listens.
    """

    rule: HookListen
    listen: Endpoint
    target: Endpoint


def moved_port(rule: HookListen) -> Moved:
    """The port of a line that `tng exec` has completed."""
    if rule.port is None or rule.redirect_to_port is None:
        raise AssertionError("tng exec names every port before the gateway is built")
    host = "::" if rule.host is not None and ":" in rule.host else "0.0.0.0"  # noqa: S104 - as TNG
    return Moved(rule, Endpoint(host, rule.port), Endpoint(_LOOPBACK[0], rule.redirect_to_port))


def hook_listeners(
    hook: EgressHook, reactor: Reactor, server: RatsTlsServer, dialer: Dialer, meter: EntryMeter
) -> list[tuple[Endpoint, Serve]]:
    """Where the gateway listens for the program, and who serves each port.

    Args:
        hook: as `tng exec` has completed it.
        reactor: where connections live.
        server: takes the tunnels and judges their clients.
        dialer: connects to the program.
        meter: counts.
    """
    local = hook.capture_local_traffic
    return [
        (
            moved.listen,
            HookEgress(reactor, server, dialer, moved, captures_local=local, meter=meter).serve,
        )
        for moved in map(moved_port, hook.capture_listen)
    ]


class HookEgress:
    """Serves one port of the program.

    Args:
        reactor: where connections live.
        server: takes the tunnels and judges their clients.
        dialer: connects to the program.
        moved: the port.
        captures_local: whether connections from this machine have to be tunnels too.
        meter: counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        server: RatsTlsServer,
        dialer: Dialer,
        moved: Moved,
        *,
        captures_local: bool,
        meter: EntryMeter,
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._dialer = dialer
        self._moved = moved
        self._captures_local = captures_local
        self._meter = meter

    async def serve(self, accepted: socket.socket, client: Endpoint) -> None:
        """Serve one TCP connection."""

        def serve(opened: Opened, stream: MuxStream | None) -> Coroutine[None, None, None]:
            return self._deliver(client, opened, stream, encrypted=True)

        if not self.is_captured(client.host, _local_host(accepted)):
            end = PlainEnd(self._reactor, accepted, str(client))
            opened = Opened(end, NoRa.NO_RA, self._moved.listen, None)
            await self._deliver(client, opened, None, encrypted=False)
            return
        try:
            await self._server.accept(accepted, str(client), serve)
        except TngError as error:
            self._meter.cx_failed += 1
            log_access(AccessRecord(client, self._moved.listen, MODE))
            log.warning("tunnel refused client=%s code=%s: %s", client, error.code, error)

    def is_captured(self, client: str, local: str) -> bool:
        """Whether a connection from `client` to our address `local` has to be a tunnel."""
        rule = self._moved.rule
        if not self._captures_local and is_own_address(client):
            return False
        if rule.host is not None and not _is_same(rule.host, local):
            return False
        return rule.ifname is None or local in interface_addresses(rule.ifname)

    async def _deliver(
        self, client: Endpoint, opened: Opened, stream: MuxStream | None, *, encrypted: bool
    ) -> None:
        """Connect one stream to the program and relay until both ends are done."""
        meter = self._meter
        meter.cx_total += 1
        meter.cx_active += 1
        try:
            program = await self._reach(client, opened, stream, encrypted=encrypted)
            if program is None:
                return
            if stream is not None:
                stream.accept()
            result = await relay(
                self._reactor, opened.end, program, total_timeout_s=opened.lifetime_s
            )
            meter.tx_bytes_total += result.left_to_right
            meter.rx_bytes_total += result.right_to_left
        finally:
            meter.cx_active -= 1

    async def _reach(
        self, client: Endpoint, opened: Opened, stream: MuxStream | None, *, encrypted: bool
    ) -> End | None:
        listen, target = self._moved.listen, self._moved.target
        try:
            program = await self._connect()
        except NetError as error:
            self._meter.cx_failed += 1
            log_access(AccessRecord(client, listen, MODE, target, encrypted=encrypted))
            log.warning("service not reached dst=%s: %s", target, error)
            if stream is not None:
                stream.refuse(502, str(error.code))
            else:
                opened.end.abort()
            return None
        except BaseException:
            opened.end.abort()
            raise
        log_access(
            AccessRecord(client, listen, MODE, target, program.local, encrypted, opened.attested)
        )
        return program

    async def _connect(self) -> PlainEnd:
        first, second = _LOOPBACK
        port = self._moved.target.port
        try:
            return await self._dialer.connect(Endpoint(first, port))
        except NetError as error:
            try:
                return await self._dialer.connect(Endpoint(second, port))
            except NetError:
                raise error from None


def _local_host(accepted: socket.socket) -> str:
    """The address that a client came to; IPv4 as such, also on a socket for both families."""
    return to_endpoint(accepted.getsockname()).host.removeprefix("::ffff:")


def _is_same(one: str, other: str) -> bool:
    configured = ipaddress.ip_address(one)
    return configured.is_unspecified or configured == ipaddress.ip_address(other.partition("%")[0])
