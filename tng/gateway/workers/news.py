"""What a supervisor tells a worker unasked: HPKE keys, and what its judges prefer to see.

In: the supervisor's keys and judges.  Out: questions to one worker, `keys` and `models`, before it
is told to start and whenever something has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tng.gateway.workers.messages import member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.verifier.base import StatementVerifier
    from tng.gateway.workers.link import Link
    from tng.gateway.workers.shared_keys import SharedKeys

LOOK_S: Final = 0.25
SHORTEST_LOOK_S: Final = 0.05
"""Seconds between two looks: a key is made at least half a second before the one that it replaces
gets stale, or an eighth of its interval if that is short."""

_LOOKS: Final = 20
"""Looks in the time for which a key is offered, at least."""


class News:
    """What one worker has been told.

    Args:
        link: to the worker.
        keys: by path.
        verifiers: those whose preference may change, by the path of the entry.
    """

    def __init__(
        self,
        link: Link,
        keys: Mapping[str, SharedKeys],
        verifiers: Mapping[str, StatementVerifier],
    ) -> None:
        self._link = link
        self._keys = keys
        self._verifiers = verifiers
        self._serials: dict[str, int] = {}
        self._models: dict[str, tuple[str, ...]] = {}

    async def catch_up(self) -> None:
        """Tell what the worker does not know yet, and what has changed until it had heard that.

        Raises:
            TngError: it has ended, or does not understand.
        """
        while await self._tell_keys() or await self._tell_models():
            pass

    async def follow(self) -> None:
        """Catch up again and again, until cancelled; return at once if there is nothing to tell.

        Raises:
            TngError: see `catch_up`.
        """
        while self._keys or self._verifiers:
            await trio.sleep(self._look_s())
            await self.catch_up()

    def _look_s(self) -> float:
        offered = [
            key.stale_at - key.actived_at
            for shared in self._keys.values()
            for key in shared.source.keyring
        ]
        return max(SHORTEST_LOOK_S, min([LOOK_S, *(seconds / _LOOKS for seconds in offered)]))

    async def _tell_keys(self) -> bool:
        """Whether anything was new."""
        is_new = False
        for path, shared in self._keys.items():
            if self._serials.get(path) != shared.serial:
                telling = shared.telling()
                await self._link.ask("keys", entry=path, **telling)
                self._serials[path] = member(telling, "serial", int)
                is_new = True
        return is_new

    async def _tell_models(self) -> bool:
        is_new = False
        for path, verifier in self._verifiers.items():
            models = verifier.models
            if self._models.get(path) != models:
                await self._link.ask("models", entry=path, models=list(models))
                self._models[path] = models
                is_new = True
        return is_new
