"""A worker's source of evidence and tokens over OHTTP: the supervisor asks the TEE.

In: a `Link` to the supervisor, user data.  Out: evidence or a passport.  It stands where a gateway
of one process has a `StatementSource`.

Invariant: as there: what is returned is about the user data that was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tng.attest.evidence import COCO
from tng.attest.statement_source import Passport, StatementSource
from tng.attest.user_data import UserData, claims_of
from tng.gateway.workers.messages import member
from tng.gateway.workers.ohttp_messages import parse_evidence, parse_passport
from tng.gateway.workers.remote import ask_for_evidence

if TYPE_CHECKING:
    from tng.attest.evidence import Evidence
    from tng.gateway.workers.link import Link


class RemoteStatements(StatementSource):
    """A `StatementSource` whose attester and appraiser are asked by the supervisor.

    Args:
        link: to the supervisor.
        path: the entry that attests, e.g. "add_egress[0]".
        model: what peers are shown, "background_check" or "passport".
        provider: whose service judges it.
    """

    def __init__(self, link: Link, path: str, model: str, provider: str = COCO) -> None:
        self._link = link
        self._path = path
        self._model = model
        self._provider = provider

    @property
    def model(self) -> str:
        """See `StatementSource.model`."""
        return self._model

    @property
    def provider(self) -> str:
        """See `StatementSource.provider`."""
        return self._provider

    async def evidence(self, user_data: UserData) -> Evidence:
        """See `StatementSource.evidence`."""
        about = claims_of(user_data)
        answer = await ask_for_evidence(self._link, "evidence", self._path, about=about)
        return parse_evidence(member(answer, "evidence", dict))

    async def passport(self, user_data: UserData) -> Passport:
        """See `StatementSource.passport`; the supervisor may have made it for another worker."""
        about = claims_of(user_data)
        answer = await ask_for_evidence(self._link, "passport", self._path, about=about)
        return parse_passport(member(answer, "passport", dict))

    async def aclose(self) -> None:
        """Nothing to close: the link belongs to the worker."""
        await trio.lowlevel.checkpoint()
