"""The last words to a client, said so that they arrive.

Closing a socket that holds unread octets resets the connection, and a reset can overtake the
answer that was sent before it.  So we end our direction, read away what the client still sends
for a moment, and close then (RFC 9112 section 9.6).
"""

from __future__ import annotations

from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.reactor import Reactor
from tng.errors import TngError

_LINGER_S: Final = 2.0
"""Seconds that a client has to hear us and leave."""

_LINGER_OCTETS: Final = 1 << 20
"""Octets read away; who sends more than this is not listening."""


class _Enough(TngError):  # noqa: N818 - an end, not an error
    """The client has had its time."""


async def farewell(reactor: Reactor, client: End, words: bytes) -> None:
    """Send `words`, and close.

    Raises:
        NetError: the client went away before it had heard all of it.
    """
    await client.send(words)
    client.shut()
    rest = _LINGER_OCTETS
    try:
        with reactor.deadline(_LINGER_S, lambda: _Enough("lingered long enough")):
            while rest > 0 and (data := await client.receive()):
                rest -= len(data)
    except TngError:
        client.abort()
    else:
        client.close()
