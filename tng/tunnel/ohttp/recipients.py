"""Whom an ingress encrypts to: keys of egresses, judged, kept, renewed.

In: the outer URL of an egress.  Out: a `Recipient`, which exists only for a peer that was judged
(or that the operator wanted no judgement of).  Source: spec of the OHTTP transport, section 1.8.

Everything here runs in the reactor.  One question per URL is under way at a time, and everybody
who asks meanwhile gets its answer.  A recipient is renewed in the background when it is used late
in its life; one whose time is over is never used.

Invariants: no request is encrypted to a key whose verdict has ended; at most MAX_RECIPIENTS URLs
are remembered, however many paths a client asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.clock import Clock
from tng.dataplane.reactor import Reactor
from tng.dataplane.task import Cancelled, Wait
from tng.endpoint import Endpoint
from tng.errors import ErrorCode, TngError
from tng.tunnel.base import Peer
from tng.verdict import AttestedPeer
from tng.wire.ohttp_keys import KeyConfig, Suite

MAX_RECIPIENTS: Final = 1024
"""Outer URLs remembered; the one used longest ago makes room."""

RENEWAL_SHARE: Final = 0.75
"""Share of a recipient's life after which its use has it renewed."""

RETRY_S: Final = 1.0
"""Seconds between attempts to renew a recipient that still serves."""

log = logging.getLogger(__name__)


class OuterUrl(NamedTuple):
    """Where an encapsulated request is posted.

    Attributes:
        endpoint: host and port of the egress, or of what stands in front of it.
        path: the outer path; there is no query.
    """

    endpoint: Endpoint
    path: bytes


@dataclass(frozen=True, slots=True)
class ClientCredential:
    """What an attesting ingress shows: a key of its own, and a token that vouches for it.

    Attributes:
        private: the HPKE sender key.
        public: its public key, 32 octets.
        token: the attestation service's token; never logged.
        expires: Unix time in seconds at which it ends.
        provider: whose service that is.
    """

    private: X25519PrivateKey
    public: bytes
    token: str
    expires: float
    provider: str = "coco"

    def __repr__(self) -> str:
        return f"ClientCredential(public={self.public.hex()[:16]})"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A key of an egress that may be encrypted to.

    Attributes:
        config: the key.
        suite: how to encrypt.
        peer: who holds the key.
        credential: what we show of ourselves, if we attest.
        metadata: the octets in front of every request to this key, length included.
        renew_at: Unix time in seconds from which a new one is looked for.
        ends_at: Unix time in seconds from which this one is not used.
    """

    config: KeyConfig
    suite: Suite
    peer: Peer
    credential: ClientCredential | None
    metadata: bytes
    renew_at: float
    ends_at: float

    def __repr__(self) -> str:
        return f"Recipient(key={self.config.public_key.hex()[:16]}, ends_at={self.ends_at:.0f})"


Fetch = Callable[[OuterUrl], Awaitable[Recipient]]
"""Asks an egress for its key and has it judged (in the reactor)."""


class _Entry:
    """One URL."""

    __slots__ = ("current", "failed_at", "flight")

    def __init__(self) -> None:
        self.current: Recipient | None = None
        self.failed_at = float("-inf")
        self.flight: list[Wait[Recipient]] | None = None


class Recipients:
    """Recipients by URL.

    Args:
        reactor: where this lives.
        clock: against which keys and verdicts end.
        fetch: makes a recipient.
    """

    def __init__(self, reactor: Reactor, clock: Clock, fetch: Fetch) -> None:
        self._reactor = reactor
        self._clock = clock
        self._fetch = fetch
        self._entries: dict[OuterUrl, _Entry] = {}

    async def get(self, url: OuterUrl) -> Recipient:
        """A recipient to encrypt to now.

        Raises:
            TngError: what `fetch` raises.
        """
        entry = self._entry(url)
        current, now = entry.current, self._clock.now()
        if current is not None and now < current.ends_at:
            if now >= current.renew_at and now >= entry.failed_at + RETRY_S:
                self._start(url, entry)
            return current
        return await self._wait(url, entry)

    async def get_other(self, url: OuterUrl, refused: Recipient) -> Recipient:
        """A recipient other than one that the egress knows no more.

        Raises:
            TngError: what `fetch` raises.
        """
        entry = self._entry(url)
        if entry.current is refused:
            entry.current = None
        return await self.get(url)

    def known(self) -> Iterator[tuple[OuterUrl, Recipient]]:
        """Every URL whose key is known; for the status page.  Safe in every thread."""
        for url, entry in list(self._entries.items()):
            if entry.current is not None:
                yield url, entry.current

    def _entry(self, url: OuterUrl) -> _Entry:
        entry = self._entries.pop(url, None) or _Entry()
        self._entries[url] = entry  # the last one is the one used last
        if len(self._entries) > MAX_RECIPIENTS:
            self._forget_one()
        return entry

    def _forget_one(self) -> None:
        for url, entry in self._entries.items():
            if entry.flight is None:
                del self._entries[url]
                return

    async def _wait(self, url: OuterUrl, entry: _Entry) -> Recipient:
        if entry.flight is None:
            self._start(url, entry)
        waited: Wait[Recipient] = Wait()
        if entry.flight is not None:
            entry.flight.append(waited)
        return await waited

    def _start(self, url: OuterUrl, entry: _Entry) -> None:
        if entry.flight is None:
            entry.flight = []
            self._reactor.spawn(self._fly(url, entry), f"key of {url.endpoint}")

    async def _fly(self, url: OuterUrl, entry: _Entry) -> None:
        outcome: Recipient | TngError = TngError("internal error while asking for a key")
        try:
            outcome = await self._fetch(url)
        except Cancelled:
            outcome = TngError("the gateway is shutting down", code=ErrorCode.SHUTTING_DOWN)
            raise
        except TngError as error:
            outcome = error
            entry.failed_at = self._clock.now()
            log.warning("no key of url=%s code=%s: %s", url.endpoint, error.code, error)
        finally:
            waiting, entry.flight = entry.flight or [], None
            if isinstance(outcome, Recipient):
                entry.current = outcome
            for waited in waiting:
                if isinstance(outcome, Recipient):
                    waited.set(outcome)
                else:
                    waited.fail(outcome)


def life_of(
    now: float,
    *,
    expires: float,
    interval_s: float,
    peer: Peer,
    credential: ClientCredential | None,
) -> tuple[float, float]:
    """`renew_at` and `ends_at` of a recipient fetched now, Unix seconds.

    Args:
        now: Unix time in seconds.
        expires: when the egress says that its key ends; one in the past counts as a second from
            now, so that clocks that differ a little cost a question a second, not every request.
        interval_s: seconds after which it is renewed in any case; 0 to use it once.
        peer: whose verdict bounds the life.
        credential: whose token bounds the life.
    """
    ends_at = max(expires, now + 1.0)
    if isinstance(peer, AttestedPeer):
        ends_at = min(ends_at, peer.verdict.valid_until)
    if credential is not None:
        ends_at = min(ends_at, credential.expires)
    if interval_s == 0:
        return now, now
    return min(now + interval_s, now + RENEWAL_SHARE * (ends_at - now)), ends_at
