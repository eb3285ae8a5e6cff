"""The last words to a client, said so that they arrive.

Closing a socket that holds unread octets resets the connection, and a reset can overtake the
answer that was sent before it.  So we end our direction, read away what the client still sends
for a moment, and close then (RFC 9112 section 9.6).  A client whose protocol has no words for a
failure is reset; where it hears of that is as good a place as can be chosen.
"""

from __future__ import annotations

import contextlib
from typing import Final

from tng.dataplane.ends import End
from tng.dataplane.reactor import Reactor
from tng.errors import TngError

_LINGER_S: Final = 2.0
"""Seconds that a client has to hear us and leave."""

_LINGER_OCTETS: Final = 1 << 20
"""Octets read away; who sends more than this is not listening."""

_SPEAK_S: Final = 0.5
"""Seconds that a client has to say something before it is reset without a word."""


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


async def leave_without_words(reactor: Reactor, client: End) -> None:
    """Reset a client once it has spoken: it hears of it where it reads, not where it sends."""
    with (
        contextlib.suppress(TngError),
        reactor.deadline(_SPEAK_S, lambda: _Enough("has said nothing")),
    ):
        await client.wait_readable()
    client.abort()
