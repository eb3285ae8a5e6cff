"""Collateral for real platforms: from memory, a folder, or the first PCCS that gives any.

A quote goes in, the vendor's statements about its platform come out.  Several services are asked
in the order given; one that is down, slow or gives what the vendor did not sign is passed over.
What was fetched is used for a day, and after that, if no service answers, until the first part of
it ends, but not beyond a week.  An offline bundle (a folder filled elsewhere) takes the place of
all services: then nothing is ever fetched.

Source: Intel "PCS API v4" by way of `tdx.collateral`; the limits in time are near the reference's
(72 hours, 168 hours).

Invariant: whatever comes out passed `check_collateral` now, wherever it came from; and nobody
waits longer than `TOTAL_S` for it.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.collateral import fetch_collateral, unavailable
from tng.attest.tdx.collateral_cache import CollateralFolder, Kept
from tng.attest.tdx.collateral_checks import check_collateral
from tng.attest.tdx.collateral_settings import CollateralSettings, shown
from tng.errors import AppraiserError, ErrorCode

if TYPE_CHECKING:
    import httpx

    from tng.attest.tdx.certificates import PckCertificate
    from tng.attest.tdx.collateral import Collateral
    from tng.attest.tdx.quote import Quote
    from tng.clock import Clock

URL_S: Final = 6.0
"""Seconds for the four items of one service together."""

TOTAL_S: Final = 15.0
"""Seconds for all services together: a peer's handshake is waiting."""

REFRESH_S: Final = 86_400.0
"""Seconds after which fetched collateral is asked for again, so that a revocation arrives."""

HARD_S: Final = 7 * 86_400.0
"""Seconds for which fetched collateral is used at most, while no service answers."""

RETRY_S: Final = 60.0
"""Seconds between two attempts while older collateral still serves."""

FAILURE_MEMORY_S: Final = 2.0
"""Seconds for which a failed fetch answers everybody who waits for the same platform."""

MAX_PLATFORMS: Final = 64
"""Kinds of platforms in memory, least recently used out first; whoever sends quotes names them."""

MAX_FETCHES: Final = 4
"""Fetches at once, for all platforms together."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    """What is known about one platform."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    kept: Kept | None = None
    was_loaded: bool = False
    failure: AppraiserError | None = None
    failed_at: float = -math.inf  # trio's clock


class PccsCollateral:
    """Gives collateral.  Used in the trio thread only; `aclose` ends its connections.

    Args:
        settings: where collateral comes from.
        clock: the time at which it must hold.
        root_ca_der: the root that must have signed it, DER; None for Intel's.
        client: sends the requests and is closed by `aclose`; by default one is made when needed.
    """

    def __init__(
        self,
        settings: CollateralSettings,
        clock: Clock,
        *,
        root_ca_der: bytes | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._root_ca_der = root_ca_der
        self._client = client
        self._bundle = CollateralFolder(settings.bundle) if settings.bundle else None
        self._cache = CollateralFolder(settings.cache) if settings.cache else None
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._fetching = trio.CapacityLimiter(MAX_FETCHES)

    async def collateral_for(self, quote: Quote) -> Collateral:
        """Collateral for the platform that a quote names.

        Raises:
            AppraiserError: it cannot be had (collateral_unavailable), or only out of date
                (collateral_expired); the message says why for each source.
            UntrustedPeerError: the quote does not say which platform it is.
        """
        pck = pck_certificate(quote)
        platform = f"{pck.fmspc.hex()}-{pck.ca}"
        if self._bundle is not None:
            return await self._from_bundle(self._bundle, platform, pck)
        entry = self._entry(platform)
        with trio.move_on_after(TOTAL_S):
            async with entry.lock:
                return await self._from_entry(entry, platform, quote, pck)
        raise unavailable("collateral", f"did not come within {TOTAL_S:g} s from any service")

    async def aclose(self) -> None:
        """Close the connections.  Asking again afterwards opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _from_bundle(
        self, bundle: CollateralFolder, platform: str, pck: PckCertificate
    ) -> Collateral:
        kept = await trio.to_thread.run_sync(bundle.load, platform)
        file = bundle.file_of(platform)
        if kept is None:
            raise unavailable("collateral", f"expected in {file}; add it to the offline bundle")
        try:
            self._check(kept.collateral, pck)
        except AppraiserError as exc:
            raise AppraiserError(f"offline bundle {file}: {exc}", code=exc.code) from exc
        return kept.collateral

    async def _from_entry(
        self, entry: _Entry, platform: str, quote: Quote, pck: PckCertificate
    ) -> Collateral:
        if not entry.was_loaded and self._cache is not None:
            entry.kept = await trio.to_thread.run_sync(self._cache.load, platform)
        entry.was_loaded = True
        usable = self._usable(entry.kept, pck)
        if usable is not None and self._age(usable) < REFRESH_S:
            return usable.collateral
        silent_s = trio.current_time() - entry.failed_at
        if usable is not None and silent_s < RETRY_S:
            return usable.collateral
        if entry.failure is not None and silent_s < FAILURE_MEMORY_S:
            raise AppraiserError(str(entry.failure), code=entry.failure.code)
        try:
            entry.kept = await self._fetch(quote, pck)
        except AppraiserError as exc:
            entry.failure, entry.failed_at = exc, trio.current_time()
            if usable is None:
                raise
            log.warning("older collateral is used platform=%s reason=%s", platform, exc)
            return usable.collateral
        entry.failure = None
        if self._cache is not None:
            await trio.to_thread.run_sync(self._cache.save, platform, entry.kept)
        return entry.kept.collateral

    def _usable(self, kept: Kept | None, pck: PckCertificate) -> Kept | None:
        """What was kept, if it may still be used."""
        if kept is None or not 0 <= self._age(kept) < HARD_S:
            return None
        try:
            self._check(kept.collateral, pck)
        except AppraiserError as exc:
            log.warning("kept collateral is of no use reason=%s", exc)
            return None
        return kept

    async def _fetch(self, quote: Quote, pck: PckCertificate) -> Kept:
        """From the first service that has it."""
        problems: list[str] = []
        is_only_expired = True
        async with self._fetching:
            for url in self._settings.urls:
                try:
                    with trio.fail_after(URL_S):
                        collateral = await fetch_collateral(self._open(), quote, url=url)
                    self._check(collateral, pck)
                except trio.TooSlowError:
                    is_only_expired = False
                    problems.append(f"{shown(url)}: not complete within {URL_S:g} s")
                except AppraiserError as exc:
                    is_only_expired &= exc.code is ErrorCode.COLLATERAL_EXPIRED
                    problems.append(f"{shown(url)}: {exc}")
                else:
                    log.info("collateral fetched fmspc=%s from=%s", pck.fmspc.hex(), shown(url))
                    return Kept(collateral, self._clock.now())
        expired, absent = ErrorCode.COLLATERAL_EXPIRED, ErrorCode.COLLATERAL_UNAVAILABLE
        raise AppraiserError(
            f"no collateral for platform {pck.fmspc.hex()}: {'; '.join(problems)}",
            code=expired if is_only_expired else absent,
        )

    def _check(self, collateral: Collateral, pck: PckCertificate) -> None:
        now = int(self._clock.now())
        check_collateral(collateral, pck, now=now, root_ca_der=self._root_ca_der)

    def _age(self, kept: Kept) -> float:
        """Seconds since it was fetched; negative after the clock was set back."""
        return int(self._clock.now()) - int(kept.fetched_at)

    def _entry(self, platform: str) -> _Entry:
        entry = self._entries.setdefault(platform, _Entry())
        self._entries.move_to_end(platform)
        if len(self._entries) > MAX_PLATFORMS:
            self._entries.popitem(last=False)
        return entry

    def _open(self) -> httpx.AsyncClient:
        """The client, made at the first fetch: importing it takes time."""
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                timeout=URL_S,
                trust_env=False,  # only the command line reads the environment
                limits=httpx.Limits(max_connections=MAX_FETCHES),
            )
        return self._client
