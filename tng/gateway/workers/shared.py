"""One judge and one attester for all workers: the supervisor's side of `workers.remote`.

In: questions of workers, by the path of the entry they concern.  Out: answers, or the error.

A credential is made once and handed to every worker that asks within `SHARE_FOR_S`; a worker that
asks again wants a new one, which is then handed to the others when their turn comes.  Judging
needs nothing of the kind: a `Verifier` makes one call for all who ask at the same time, and
remembers.

Invariant: no worker is handed the same credential twice, and an entry that wants a certificate
per connection (`refresh_interval` 0) never shares one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from tng.errors import LocalProtocolError
from tng.gateway.entries import Trust
from tng.gateway.workers.messages import (
    dump_attested,
    dump_credential,
    member,
    octets,
)
from tng.gateway.workers.sections import path_of

if TYPE_CHECKING:
    from tng.attest.credential import Credential
    from tng.attest.verifier.base import Verifier
    from tng.clock import Clock
    from tng.config.model import Attest, TngConfig, Verify
    from tng.gateway.workers.link import Object
    from tng.tunnel.rats_tls.identity import Source

SHARE_FOR_S: Final = 60.0
"""Seconds for which a credential counts as new; workers start, and renew, seconds apart."""


class SharedSource:
    """Makes credentials for several workers, as few as they need.

    Args:
        source: makes one.
        share_for_s: age in seconds up to which a credential is handed out, 0 for never twice.
        monotonic: seconds of a clock that only goes forward.
    """

    def __init__(
        self, source: Source, share_for_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._share_for_s = share_for_s
        self._monotonic = monotonic
        self._turn = trio.Lock()
        self._newest: Credential | None = None
        self._made_at = 0.0
        self._holders: set[int] = set()

    async def make_for(self, worker: int) -> Credential:
        """A credential that this worker process has not had.

        Args:
            worker: names one worker process; a restarted one has another number.

        Raises:
            EvidenceError: our TEE gave no evidence.
            AppraiserError: the attestation service gave no usable token.
            UntrustedPeerError: the attestation service refused our evidence.
        """
        if self._share_for_s <= 0:
            return await self._source.make()
        async with self._turn:
            credential = self._newest
            if credential is None or not self._is_new_to(worker):
                credential = self._newest = await self._source.make()
                self._made_at = self._monotonic()
                self._holders = set()
            self._holders.add(worker)
            return credential

    def _is_new_to(self, worker: int) -> bool:
        age = self._monotonic() - self._made_at
        return worker not in self._holders and age < self._share_for_s


class SharedTrust:
    """The judges and sources of one configuration, and the answers to workers' questions.

    Args:
        config: checked, and available in this version.
        trust: makes judges and sources.
    """

    def __init__(self, config: TngConfig, trust: Trust) -> None:
        self._config = config
        self._trust = trust
        self._verifiers: dict[str, Verifier] = {}
        self._sources: dict[str, SharedSource] = {}

    def registered(self) -> Trust:
        """What makes the judges and sources of a `Gateway`, and keeps them for `answer`."""
        return Trust(self._make_source, self._make_verifier)

    async def answer(self, worker: int, question: str, carried: Object) -> Object:
        """The answer to a worker.

        Args:
            worker: which process asks.
            question: "judge" or "credential".
            carried: what goes with it.

        Raises:
            AttestationError: what judge or source raised.
            RemoteProtocolError: the question lacks what goes with it.
            LocalProtocolError: no such question, or no such entry.
        """
        path = member(carried, "entry", str)
        if question == "judge" and path in self._verifiers:
            certificate, peer = octets(carried, "certificate"), member(carried, "peer", str)
            return dump_attested(await self._verifiers[path].judge(certificate, peer))
        if question == "credential" and path in self._sources:
            return dump_credential(await self._sources[path].make_for(worker))
        raise LocalProtocolError(f"no answer to {question!r} about {path!r}")

    def _make_source(self, attest: Attest, clock: Clock) -> Source:
        source = self._trust.make_source(attest, clock)
        share_for_s = min(SHARE_FOR_S, attest.refresh_interval)
        self._sources[path_of(self._config, attest)] = SharedSource(source, share_for_s)
        return source

    def _make_verifier(self, verify: Verify, clock: Clock) -> Verifier:
        verifier = self._trust.make_verifier(verify, clock)
        self._verifiers[path_of(self._config, verify)] = verifier
        return verifier
