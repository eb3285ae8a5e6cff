"""The `socks5` way in: CONNECT of RFC 1928, with the username and password of RFC 1929.

Source: spec of the RATS-TLS transport, section 5.3.  The client hears success only after the
tunnel stands and its peer has been judged; a refusal names its kind in the reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tng.errors import NetError, RemoteProtocolError, RequestRejectedError, UntrustedPeerError
from tng.gateway.farewell import farewell
from tng.gateway.flow import Accepted, Carrier
from tng.wire.socks5 import (
    Connect,
    Credentials,
    Refused,
    Reply,
    Send,
    Socks5Server,
    dump_reply,
)

if TYPE_CHECKING:
    from tng.dataplane.plain import PlainEnd
    from tng.errors import TngError

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""Seconds from the connection to the whole request: two round trips, and a person's patience."""

MAX_HANDSHAKES: Final = 1024
"""Clients of one entry that have not said yet where they go; as the reference (v2.12.0)."""

_RECEIVE_SIZE: Final = 4096
"""Octets per read: the longest message has 513."""


class Socks5Ingress:
    """Serves the clients of one proxy port.

    Args:
        flow: carries them.
        credentials: what clients must give; None to let anyone in.
    """

    def __init__(self, flow: Carrier, credentials: Credentials | None) -> None:
        self._flow = flow
        self._credentials = credentials
        self._handshakes = 0

    async def serve(self, client: PlainEnd) -> None:
        """Serve one client to its end."""
        if self._handshakes >= MAX_HANDSHAKES:
            error = RequestRejectedError(f"{MAX_HANDSHAKES} clients are in their handshake already")
            self._flow.unrouted(client, error)
            client.abort()
            return
        connect = await self._handshake(client)
        if connect is not None:
            client.unread(connect.trailing_data)
            target = connect.target
            answer = dump_reply(Reply.SUCCEEDED)
            await self._flow.carry(Accepted(client, target, answer, _refusal))

    async def _handshake(self, client: PlainEnd) -> Connect | None:
        """The request; None for a client that has been answered, or has gone."""
        self._handshakes += 1
        try:
            with self._flow.reactor.deadline(HANDSHAKE_TIMEOUT_S, _late):
                outcome = await self._request(client)
        except RequestRejectedError as error:
            self._flow.unrouted(client, error)
            client.abort()
            return None
        except RemoteProtocolError:
            client.close()  # a probe, or a client that changed its mind
            return None
        finally:
            self._handshakes -= 1
        if isinstance(outcome, Connect):
            return outcome
        self._flow.unrouted(client, RequestRejectedError(outcome.reason))
        if outcome.data:
            await farewell(self._flow.reactor, client, outcome.data)
        else:
            client.abort()
        return None

    async def _request(self, client: PlainEnd) -> Connect | Refused:
        server = Socks5Server(self._credentials)
        while True:
            match server.next_event():
                case Send(data):
                    await client.send(data)
                case Connect() | Refused() as outcome:
                    return outcome
                case _:
                    server.receive_data(await client.receive(_RECEIVE_SIZE))


def _refusal(error: TngError) -> bytes:
    match error:
        case UntrustedPeerError():
            return dump_reply(Reply.NOT_ALLOWED)
        case NetError():
            return dump_reply(Reply.HOST_UNREACHABLE)
        case _:
            return dump_reply(Reply.GENERAL_FAILURE)


def _late() -> RequestRejectedError:
    return RequestRejectedError(f"the SOCKS5 handshake took longer than {HANDSHAKE_TIMEOUT_S:g} s")
