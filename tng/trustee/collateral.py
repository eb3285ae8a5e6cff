"""Collateral of real platforms: asked once per kind of platform, kept while it is fresh.

A quote goes in, the vendor's statements about its platform come out, from memory or from a PCCS
(`attest.tdx.collateral`).  Kept until its `nextUpdate`, at most a day; concurrent requests for
one platform share one fetch; a failed fetch is not remembered.

Invariant: what comes out is not believed yet; `attest.tdx` verifies it against the root each
time.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509

from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.collateral import Collateral, fetch_collateral, unavailable
from tng.errors import AppraiserError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from tng.attest.tdx.quote import Quote
    from tng.clock import Clock

MAX_AGE_S: Final = 86_400
"""Seconds that an answer is kept at most, so that a revocation arrives within a day."""

MAX_PLATFORMS: Final = 64
"""Kinds of platforms kept, least recently used out first; whoever sends quotes names them."""

FETCH_TIMEOUT_S: Final = 20.0
"""For all four items together; inside the deadline of a request."""


class CollateralSource(Protocol):
    """Where collateral comes from."""

    async def collateral_for(self, quote: Quote) -> Collateral:
        """Collateral for the platform that a quote names.

        Raises:
            AppraiserError: it cannot be had (collateral_unavailable).
            UntrustedPeerError: the quote does not say which platform it is.
        """
        ...


@dataclass(slots=True)
class _Entry:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    collateral: Collateral | None = None
    keep_until: float = 0.0


class CachedCollateral:
    """A `CollateralSource` in front of a PCCS.

    Args:
        fetch: gets collateral for a quote, uncached.
        clock: tells when an answer is too old.

    Attributes:
        last_error: why the last fetch failed; "" if it did not, None before the first.
    """

    def __init__(self, fetch: Callable[[Quote], Awaitable[Collateral]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._entries: OrderedDict[tuple[bytes, str], _Entry] = OrderedDict()
        self.last_error: str | None = None

    async def collateral_for(self, quote: Quote) -> Collateral:
        """See `CollateralSource`."""
        pck = pck_certificate(quote)
        entry = self._entry((pck.fmspc, pck.ca))
        async with entry.lock:
            if entry.collateral is None or self._clock.now() >= entry.keep_until:
                entry.collateral = None
                collateral = await self._fetch_noted(quote)
                entry.keep_until = min(self._clock.now() + MAX_AGE_S, next_update(collateral))
                entry.collateral = collateral
            return entry.collateral

    def _entry(self, key: tuple[bytes, str]) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_PLATFORMS:
            self._entries.popitem(last=False)
        return entry

    async def _fetch_noted(self, quote: Quote) -> Collateral:
        try:
            collateral = await self._fetch(quote)
        except AppraiserError as exc:
            self.last_error = str(exc)
            raise
        self.last_error = ""
        return collateral


def pccs_fetcher(
    client: httpx.AsyncClient, url: str, *, timeout_s: float = FETCH_TIMEOUT_S
) -> Callable[[Quote], Awaitable[Collateral]]:
    """A fetch function for `CachedCollateral`.

    Args:
        client: its owner closes it.
        url: base address of the PCCS.
        timeout_s: seconds for all items together.
    """

    async def fetch(quote: Quote) -> Collateral:
        try:
            async with asyncio.timeout(timeout_s):
                return await fetch_collateral(client, quote, url=url)
        except TimeoutError as exc:
            raise unavailable("collateral", f"did not come within {timeout_s:g} s") from exc

    return fetch


def next_update(collateral: Collateral) -> float:
    """Unix time at which the first part of `collateral` wants replacing.

    A part whose date cannot be read gives 0: it is not kept, and judging refuses it.
    """
    try:
        moments = [
            dt.datetime.fromisoformat(json.loads(text)["nextUpdate"])
            for text in (collateral.tcb_info, collateral.qe_identity)
        ]
        lists = [
            x509.load_der_x509_crl(der).next_update_utc
            for der in (collateral.root_ca_crl, collateral.pck_crl)
        ]
        return min(moment.timestamp() for moment in [*moments, *filter(None, lists)])
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        OverflowError,
        x509.InvalidVersion,
    ):
        return 0.0
