"""What an egress shows with its key: evidence for each challenge, or a token kept for a while.

In: the key that is offered, and what a client wants to see.  Out: evidence or a token about the
key, or nothing.  Source: spec of the OHTTP transport, sections 1.3, 1.6 and 1.8.  Lives in trio,
where the TEE and services are asked.

Invariant: a token is kept only for the key that it is about, and never beyond its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tng.attest.evidence import COCO, Shown, make_token
from tng.attest.user_data import ServerUserData, with_challenge
from tng.clock import Clock
from tng.errors import TngError
from tng.tunnel.ohttp.control_messages import Wanted
from tng.tunnel.ohttp.problems import OhttpError, Problem

if TYPE_CHECKING:
    from tng.attest.statement_source import Passport, StatementSource

LIFE_LEFT_S: Final = 30.0
"""Seconds that a kept token must still be good for."""


class KeyStatements:
    """Makes statements about keys of one `add_egress` entry.

    Args:
        source: asks the TEE; None where the operator said no `attest`.
        refresh_interval_s: seconds for which a token is shown again; 0 for a new one each time.
        clock: the time of day.
    """

    def __init__(
        self, source: StatementSource | None, refresh_interval_s: float, clock: Clock
    ) -> None:
        self._source = source
        self._interval_s = refresh_interval_s
        self._clock = clock
        self._kept: tuple[ServerUserData, Passport, float] | None = None
        self._making = trio.Lock()

    @property
    def attests(self) -> bool:
        """Whether there is anything to show."""
        return self._source is not None

    @property
    def providers(self) -> tuple[str, ...]:
        """Whose services judge what is shown."""
        return (COCO,) if self._source is None else (self._source.provider,)

    async def make(self, key: ServerUserData, wanted: Wanted) -> Shown | None:
        """What is shown to a client that wants this; None where nothing is asked or configured.

        Raises:
            OhttpError: the client wants another model than `attest` has, or nothing can be had.
        """
        if self._source is None or wanted.model is None:
            return None
        if wanted.model != self._source.model:
            raise OhttpError(
                Problem.KEY_CONFIG_RESPONSE_FAILED,
                f"the client verifies with model {wanted.model}, this egress attests with "
                f"{self._source.model}: both need the same",
            )
        try:
            if wanted.model == "passport":
                passport = await self._passport(self._source, key)
                return make_token(passport.token, passport.provider)
            if wanted.challenge is None:
                raise AssertionError("a background check has a challenge")
            return await self._source.evidence(with_challenge(key, wanted.challenge))
        except TngError as exc:
            raise OhttpError(Problem.KEY_CONFIG_RESPONSE_FAILED, str(exc), code=exc.code) from exc

    async def aclose(self) -> None:
        """Close the connections to the attestation service."""
        if self._source is not None:
            await self._source.aclose()

    async def _passport(self, source: StatementSource, key: ServerUserData) -> Passport:
        async with self._making:  # everybody who asks meanwhile gets the one that is made
            now = self._clock.now()
            if self._kept is not None:
                about, passport, made_at = self._kept
                fresh = made_at <= now < made_at + self._interval_s
                if about == key and fresh and passport.expires_at > now + LIFE_LEFT_S:
                    return passport
            passport = await source.passport(key)
            self._kept = key, passport, now
            return passport
