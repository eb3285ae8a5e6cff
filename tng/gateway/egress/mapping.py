"""The `mapping` way out: every stream of one listening port goes to one service.

Source: spec of the RATS-TLS transport, sections 4.3 and 6.1.  No destination crosses the tunnel:
the configuration alone says where a stream may go.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Coroutine

from tng.dataplane.mux import MuxStream
from tng.dataplane.reactor import Reactor
from tng.dataplane.relay import Relay, RelayResult
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.observe.access_log import AccessRecord, log_access
from tng.observe.metrics import EntryMeter
from tng.tunnel.base import Opened
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls.server import RatsTlsServer

log = logging.getLogger(__name__)


class MappingEgress:
    """Serves the tunnels of one listening port.

    Args:
        reactor: where connections live.
        server: takes the tunnels and judges their clients.
        dialer: connects to the service.
        listen: the port's own address, for the access log.
        target: the service.
        meter: counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        server: RatsTlsServer,
        dialer: Dialer,
        listen: Endpoint,
        target: Endpoint,
        meter: EntryMeter,
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._dialer = dialer
        self._listen = listen
        self._target = target
        self._meter = meter

    async def serve(self, accepted: socket.socket, client: Endpoint) -> None:
        """Serve one TCP connection."""

        def serve(opened: Opened, stream: MuxStream | None) -> Coroutine[None, None, None]:
            return self._deliver(client, opened, stream)

        try:
            await self._server.accept(accepted, str(client), serve)
        except TngError as error:
            self._meter.cx_failed += 1
            log_access(AccessRecord(client, self._listen, "mapping"))
            log.warning("tunnel refused client=%s code=%s: %s", client, error.code, error)

    async def _deliver(self, client: Endpoint, opened: Opened, stream: MuxStream | None) -> None:
        """Connect one judged stream to the service, and leave both to a relay."""
        meter = self._meter
        meter.cx_total += 1
        meter.cx_active += 1
        try:
            backend = await self._dialer.connect(self._target)
        except NetError as error:
            meter.cx_active -= 1
            self._unreachable(client, opened, stream, error)
            return
        except BaseException:
            meter.cx_active -= 1
            opened.end.abort()
            raise
        log_access(
            AccessRecord(
                client, self._listen, "mapping", self._target, backend.local, True, opened.attested
            )
        )
        if stream is not None:
            stream.accept()
        Relay(self._reactor, opened.end, backend, self._ended).start(
            total_timeout_s=opened.lifetime_s
        )

    def _ended(self, result: RelayResult) -> None:
        meter = self._meter
        meter.cx_active -= 1
        meter.tx_bytes_total += result.left_to_right
        meter.rx_bytes_total += result.right_to_left

    def _unreachable(
        self, client: Endpoint, opened: Opened, stream: MuxStream | None, error: NetError
    ) -> None:
        self._meter.cx_failed += 1
        log_access(AccessRecord(client, self._listen, "mapping", self._target, encrypted=True))
        log.warning("service not reached dst=%s: %s", self._target, error)
        if stream is not None:
            stream.refuse(502, str(error.code))
        else:
            opened.end.abort()
