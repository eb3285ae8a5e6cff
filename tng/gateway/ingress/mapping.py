"""The `mapping` way in: a listening port that stands for one destination.

Source: spec of the RATS-TLS transport, section 5.1.  There is no protocol towards the client, so
a refusal is a reset: it must not look like an empty answer.
"""

from __future__ import annotations

from tng.dataplane.plain import PlainEnd
from tng.endpoint import Endpoint
from tng.gateway.flow import Accepted, Carrier


class MappingIngress:
    """Serves the clients of one listening port.

    Args:
        flow: carries them.
        target: where all of them go.
    """

    def __init__(self, flow: Carrier, target: Endpoint) -> None:
        self._flow = flow
        self._target = target

    async def serve(self, client: PlainEnd) -> None:
        """Serve one client to its end."""
        await self._flow.carry(Accepted(client, self._target, b"", lambda _: b""))
