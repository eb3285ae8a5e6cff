"""The `netfilter` way out: tunnels to ports of this machine, captured by REDIRECT rules.

Source: spec of the RATS-TLS transport, section 6.2.  The service is where the connection was
going to before it was redirected; the kernel remembers it.  From there on it is a mapped port.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from tng.gateway.egress.mapping import MappingEgress
from tng.gateway.netfilter.sockets import original_destination
from tng.observe.access_log import AccessRecord, log_access

if TYPE_CHECKING:
    from tng.dataplane.reactor import Reactor
    from tng.endpoint import Endpoint
    from tng.observe.metrics import EntryMeter
    from tng.tunnel.dialer import Dialer
    from tng.tunnel.rats_tls.server import RatsTlsServer

log = logging.getLogger(__name__)


class NetfilterEgress:
    """Serves the tunnels of one capture.

    Args:
        reactor: where connections live.
        server: takes the tunnels and judges their clients.
        dialer: connects to services, with connections that are not captured again.
        listen: the listener's address, for the access log.
        meter: counts.
    """

    def __init__(
        self,
        reactor: Reactor,
        server: RatsTlsServer,
        dialer: Dialer,
        listen: Endpoint,
        meter: EntryMeter,
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._dialer = dialer
        self._listen = listen
        self._meter = meter

    async def serve(self, accepted: socket.socket, client: Endpoint) -> None:
        """Serve one TCP connection."""
        service = original_destination(accepted)
        if service is None:
            accepted.close()
            self._meter.cx_failed += 1
            log_access(AccessRecord(client, self._listen, "netfilter"))
            log.info("refused client=%s: it connected to the listener, not captured", client)
            return
        way_out = MappingEgress(
            self._reactor, self._server, self._dialer, service, service, self._meter
        )
        await way_out.serve(accepted, client)
