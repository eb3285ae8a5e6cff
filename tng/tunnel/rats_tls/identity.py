"""Our own certificate, made at start and renewed while we run (trio side).

Source: spec of the RATS-TLS transport, section 1.6.  An attester that cannot be reached never
ends the process: the certificate made before stays in use, and without one the gateway is not
ready and says why.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

import trio

from tng.attest.credential import Credential
from tng.clock import Clock
from tng.errors import EvidenceError, TngError

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 3.0
"""Back-off between attempts while there is no certificate; the ceiling bounds how late we heal."""

FIRST_WAIT_S: Final = 5.0
"""Seconds that a connection waits for the very first certificate while it is being made."""

RENEWAL_RETRY_S: Final = 10.0
"""Seconds between attempts while an older certificate still serves."""

RENEWAL_MARGIN: Final = 0.1
"""Share of a certificate's life that is left when it is renewed: peers never see it ended."""

LONGEST_SLEEP_S: Final = 60.0
"""A machine that was suspended looks at the time of day again after so long."""

SHORTEST_INTERVAL_S: Final = 1.0
"""A token that is about to end must not make us spin."""


class Source(Protocol):
    """Makes certificates; `attest.credential.CredentialSource` is the real one."""

    async def make(self) -> Credential:
        """A certificate over a new key, with fresh evidence."""
        ...


class Identity:
    """The certificate in use, and the task that renews it.

    Args:
        source: makes certificates.
        refresh_interval: seconds between renewals; 0 for a new one per connection.
        clock: the time of day, against which certificates end.
    """

    def __init__(self, source: Source, refresh_interval: int, clock: Clock) -> None:
        self._source = source
        self._interval = refresh_interval
        self._clock = clock
        self._current: Credential | None = None
        self._failure = "no certificate has been made yet"
        self._attempt = trio.Event()
        """Set when the attempt under way has ended, well or badly."""

    @property
    def per_connection(self) -> bool:
        """Whether every connection asks for a certificate of its own."""
        return self._interval == 0

    @property
    def current(self) -> Credential | None:
        """The certificate in use; any thread may read it."""
        return self._current

    @property
    def not_ready(self) -> str | None:
        """Why we cannot prove who we are, or None when we can."""
        if self._current is None:
            return f"no attested certificate: {self._failure}"
        if self._current.not_after <= self._clock.now():
            return f"the attested certificate has ended: {self._failure}"
        return None

    async def fresh(self) -> Credential:
        """A new certificate for one connection.

        Raises:
            EvidenceError: the attester gave no evidence.
            AppraiserError: the attestation service gave no token (passport).
        """
        return await self._source.make()

    async def wait_attempted(self) -> None:
        """Return when the first attempt to make a certificate has ended, well or badly."""
        await self._attempt.wait()

    async def first(self) -> Credential:
        """The certificate in use, waiting for the first one if it is being made just now.

        Raises:
            EvidenceError: there is none, and why.
        """
        with trio.move_on_after(FIRST_WAIT_S):
            await self._attempt.wait()
        if self._current is None:
            raise EvidenceError(self.not_ready or "no attested certificate")
        return self._current

    async def run(self) -> None:
        """Make a certificate, then renew it, until cancelled."""
        retry = FIRST_RETRY_S
        while True:
            try:
                self._current = await self._source.make()
            except TngError as error:
                self._note(error)
                self._attempt.set()
                await trio.sleep(retry if self._current is None else RENEWAL_RETRY_S)
                retry = min(retry * 2, LAST_RETRY_S)
            else:
                retry = FIRST_RETRY_S
                self._attempt.set()
                log.info("attested certificate made tee=%s", self._current.tee)
                await self._sleep_until_due(self._current)

    async def _sleep_until_due(self, credential: Credential) -> None:
        life = credential.not_after - self._clock.now()
        due = credential.not_after - RENEWAL_MARGIN * life
        # With a new certificate per connection this one only proves that we could make one.
        interval_ends = trio.current_time() + (self._interval or life)
        await trio.sleep(SHORTEST_INTERVAL_S)
        while True:
            left = min(due - self._clock.now(), interval_ends - trio.current_time())
            if left <= 0:
                return
            await trio.sleep(min(left, LONGEST_SLEEP_S))

    def _note(self, error: TngError) -> None:
        self._failure = str(error)
        kept = "" if self._current is None else "; the certificate made before stays in use"
        log.warning("cannot make an attested certificate: %s%s", error, kept)
