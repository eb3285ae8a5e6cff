"""Numbers sent by HTTP: to Open-Falcon, and to OpenTelemetry collectors (OTLP/HTTP).

In: snapshots, and what makes octets of them.  Out: one POST each.  An answer says by its status
alone whether the numbers were taken; its body is read up to a limit, and means nothing here.

Invariant: an error names neither a header's value, nor path or query of the address, nor anything
out of an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from tng.attest.appraiser.exchange import HttpExchange
from tng.errors import AppraiserError, NetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tng.observe.snapshot import Snapshot

ATTEMPT_S: Final = 10.0
"""Seconds for one attempt, from connecting to the answer."""

CONNECT_S: Final = 5.0
"""Seconds until a connection stands; the rest is for the answer."""

MAX_ANSWER: Final = 64 * 1024
"""Octets of an answer; those that say something have a few hundred."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An interface that takes numbers.

    Attributes:
        url: the whole address; path and query are not shown.
        media_type: of what it takes.
        dump: makes the body.
        attempts: see `Exporter.attempts`.
        headers: further ones, names in lower case; the values are secrets and never shown.
    """

    url: str = field(repr=False)
    media_type: str
    dump: Callable[[Snapshot], bytes]
    attempts: int = 1
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class HttpExporter:
    """Posts numbers to one address.  TLS certificates are checked against the system's roots.

    Args:
        destination: where to, and in which form.
        user_agent: what we call ourselves.
    """

    def __init__(self, destination: Destination, *, user_agent: str) -> None:
        parts = urlsplit(destination.url)
        self.where = f"{parts.scheme.lower()}://{parts.netloc}"
        self.attempts = destination.attempts
        self._path = destination.url[len(self.where) :]
        self._destination = destination
        self._user_agent = user_agent
        self._exchange: HttpExchange | None = None

    async def send(self, snapshot: Snapshot) -> None:
        """See `Exporter.send`."""
        body = self._destination.dump(snapshot)
        try:
            with trio.fail_after(ATTEMPT_S):
                status, _ = await self._open().call(
                    "POST", self._path, body, MAX_ANSWER, self._destination.media_type
                )
        except trio.TooSlowError:
            raise NetError(f"no answer within {ATTEMPT_S:g} s") from None
        except AppraiserError as exc:
            raise NetError(str(exc)) from exc
        if 300 <= status < 400:
            raise NetError(f"answered {status}: a redirect, which is not followed")
        if not 200 <= status < 300:
            raise NetError(f"answered {status}{_HINTS.get(status, '')}")

    async def aclose(self) -> None:
        """See `Exporter.aclose`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()

    def _open(self) -> HttpExchange:
        if self._exchange is None:
            headers = {"user-agent": self._user_agent, **self._destination.headers}
            self._exchange = HttpExchange(self.where, headers, CONNECT_S)
        return self._exchange


_HINTS: Final = {
    401: "; check the headers",
    403: "; check the headers",
    404: "; check the address: is this the path of the interface?",
    405: "; check the address: is this the path of the interface?",
    415: "; check the protocol: this form is not taken",
}
