"""The `netfilter` way in: connections of unaware programs, captured by TPROXY rules.

Source: spec of the RATS-TLS transport, section 5.4.  The destination is the local address of the
captured connection.  As with a mapped port there is no protocol towards the client, so a refusal
is a reset.
"""

from __future__ import annotations

import ipaddress

from tng.dataplane.plain import PlainEnd
from tng.errors import RequestRejectedError
from tng.gateway.flow import Accepted, Carrier


class NetfilterIngress:
    """Serves the clients of one capture.

    Args:
        flow: carries them.
    """

    def __init__(self, flow: Carrier) -> None:
        self._flow = flow

    async def serve(self, client: PlainEnd) -> None:
        """Serve one client to its end.

        Raises:
            NetError: it has gone already.
        """
        destination = client.local
        if ipaddress.ip_address(destination.host).is_loopback:
            # No rule captures what goes to this machine; carrying it on would come here again.
            error = RequestRejectedError("the connection was made to the listener, not captured")
            self._flow.unrouted(client, error)
            client.abort()
            return
        await self._flow.carry(Accepted(client, destination, b"", lambda _: b""))
