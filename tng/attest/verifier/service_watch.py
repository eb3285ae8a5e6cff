"""Whether the attestation service behind a verifier is there, found out before anybody needs it.

In: the service's client and the anchors it publishes.  Out: `not_ready`, a reason in words or
None.  Judgements that meet an absent service, or an answering one, are noted too.

Invariant: `not_ready` is None only after the service gave what judging needs, or if it is never
asked for anything.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

import trio

from tng.errors import AppraiserError

FIRST_RETRY_S: Final = 0.2
"""Seconds until an absent service is looked for again; doubled up to `PROBE_INTERVAL_S`."""

PROBE_INTERVAL_S: Final = 3.0
"""Seconds between two looks at a service that is there."""

PROBE_TIMEOUT_S: Final = 5.0
"""Seconds after which a service that is silent counts as absent."""

CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that closing connections may take at the end."""

log = logging.getLogger(__name__)


class Watched(Protocol):
    """A service that is looked after, as every client of one has it."""

    async def probe(self) -> None:
        """Return if the service answers; `AppraiserError` if it does not."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class Needed(Protocol):
    """What must be there before anybody is judged: trust anchors, or published keys."""

    async def get(self) -> object:
        """Return as soon as it is there; `AppraiserError` if it cannot be had."""
        ...


class ServiceWatch:
    """Looks after one attestation service.  Used in the trio thread; `not_ready` in any.

    Args:
        appraiser: the service; None if it is never asked.  Closed when `run` ends.
        anchors: to be there before anybody is judged; None without any.
        is_asked_each_time: whether judging asks the service, or needs its anchors alone.
    """

    def __init__(
        self,
        appraiser: Watched | None,
        anchors: Needed | None,
        *,
        is_asked_each_time: bool,
    ) -> None:
        self._appraiser = appraiser
        self._anchors = anchors
        self._is_asked_each_time = is_asked_each_time
        self._not_ready: str | None = "the attestation service has not answered yet"
        if appraiser is None:
            self._not_ready = None

    @property
    def not_ready(self) -> str | None:
        """Why nobody could be judged right now; None when ready."""
        return self._not_ready

    async def run(self) -> None:
        """Look until cancelled; an absent service is waited for."""
        if self._appraiser is None:
            await trio.sleep_forever()
        try:
            await self._watch()
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
                await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to the service."""
        if self._appraiser is not None:
            await self._appraiser.aclose()

    def note_absence(self, reason: str) -> None:
        """The service could not be asked."""
        if self._not_ready != reason:
            log.warning("attestation service is not available reason=%s", reason)
        self._not_ready = reason

    def note_presence(self) -> None:
        """The service gave what was asked for."""
        if self._not_ready is not None:
            log.info("attestation service is available")
        self._not_ready = None

    async def _watch(self) -> None:
        pause = FIRST_RETRY_S
        while True:
            if await self._is_there():
                if not self._is_asked_each_time:
                    await trio.sleep_forever()  # the anchors are here, nothing else is asked for
                pause = FIRST_RETRY_S
                await trio.sleep(PROBE_INTERVAL_S)
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, PROBE_INTERVAL_S)

    async def _is_there(self) -> bool:
        """Whether the service gave what judging needs; the answer is noted."""
        assert self._appraiser is not None
        try:
            with trio.fail_after(PROBE_TIMEOUT_S):
                if self._anchors is not None:
                    await self._anchors.get()
                if self._is_asked_each_time:
                    await self._appraiser.probe()
        except AppraiserError as exc:
            self.note_absence(str(exc))
        except trio.TooSlowError:
            self.note_absence(f"the attestation service is silent for {PROBE_TIMEOUT_S:g} s")
        else:
            self.note_presence()
            return True
        return False
