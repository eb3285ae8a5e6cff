"""One judge and one attester for all workers: the supervisor's side of `workers.remote`.

In: questions of workers, by the path of the entry they concern.  Out: answers, or the error.

What is handed out by `Shared` is made once for every worker that asks within `SHARE_FOR_S`; a
worker that asks again wants a new one, which is then handed to the others when their turn comes.
Judging needs nothing of the kind: a `Verifier` makes one call for all who ask at the same time,
and remembers.

Invariant: no worker is handed the same credential twice, and an entry that wants a certificate
per connection (`refresh_interval` 0) never shares one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from tng.attest.user_data import ServerUserData, parse_user_data
from tng.errors import LocalProtocolError
from tng.gateway.entries import Trust
from tng.gateway.workers.messages import (
    dump_attested,
    dump_credential,
    member,
    octets,
)
from tng.gateway.workers.ohttp_messages import dump_evidence, dump_passport, parse_statement
from tng.gateway.workers.sections import path_of
from tng.gateway.workers.shared_keys import SharedKeys
from tng.tunnel.ohttp.statements import LIFE_LEFT_S

if TYPE_CHECKING:
    from tng.attest.credential import Credential
    from tng.attest.statement_source import Passport, StatementSource
    from tng.attest.user_data import UserData
    from tng.attest.verifier.base import StatementVerifier
    from tng.clock import Clock
    from tng.config.model import Attest, TngConfig, Verify
    from tng.config.ohttp import EgressOhttp
    from tng.gateway.entries import Services
    from tng.gateway.workers.link import Object
    from tng.tunnel.ohttp.key_source import KeySource
    from tng.tunnel.rats_tls.identity import Source

T = TypeVar("T")

SHARE_FOR_S: Final = 60.0
"""Seconds for which a credential counts as new; workers start, and renew, seconds apart."""


class Shared(Generic[T]):
    """Hands one thing to several workers, making as few as they need.

    Args:
        share_for_s: age in seconds up to which it is handed out, 0 for never twice.
        monotonic: seconds of a clock that only goes forward.
    """

    def __init__(self, share_for_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._share_for_s = share_for_s
        self._monotonic = monotonic
        self._turn = trio.Lock()
        self._newest: tuple[object, T] | None = None
        self._made_at = 0.0
        self._holders: set[int] = set()

    async def get(self, worker: int, about: object, make: Callable[[], Awaitable[T]]) -> T:
        """One that this worker process has not had; what `make` raises is raised.

        Args:
            worker: names one worker process; a restarted one has another number.
            about: one that was made about something else is not handed out.
            make: makes a new one.
        """
        if self._share_for_s <= 0:
            return await make()
        async with self._turn:
            newest = self._newest
            if newest is None or newest[0] != about or not self._is_new_to(worker):
                newest = about, await make()
                self._newest, self._made_at, self._holders = newest, self._monotonic(), set()
            self._holders.add(worker)
            return newest[1]

    def _is_new_to(self, worker: int) -> bool:
        age = self._monotonic() - self._made_at
        return worker not in self._holders and age < self._share_for_s


class SharedSource:
    """Makes credentials for several workers, as few as they need.

    Args:
        source: makes one.
        share_for_s: see Shared.
        monotonic: see Shared.
    """

    def __init__(
        self, source: Source, share_for_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._shared = Shared["Credential"](share_for_s, monotonic)

    async def make_for(self, worker: int) -> Credential:
        """A credential that this worker process has not had.

        Args:
            worker: see Shared.get.

        Raises:
            EvidenceError: our TEE gave no evidence.
            AppraiserError: the attestation service gave no usable token.
            UntrustedPeerError: the attestation service refused our evidence.
        """
        return await self._shared.get(worker, None, self._source.make)


class SharedStatements:
    """Makes evidence, and passports as few as they need, for several workers.

    Args:
        source: makes them.
        share_for_s: see Shared.
        clock: the time of day, for tokens.
    """

    def __init__(self, source: StatementSource, share_for_s: float, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._shared = Shared["Passport"](share_for_s)

    async def answer(self, worker: int, question: str, about: UserData) -> Object:
        """Evidence, or a passport; errors as `StatementSource` has them."""
        if question == "evidence":
            return {"evidence": dump_evidence(await self._source.evidence(about))}
        return {"passport": dump_passport(await self._passport(worker, about))}

    async def _passport(self, worker: int, about: UserData) -> Passport:
        if not isinstance(about, ServerUserData):  # a client's key is one worker's own
            return await self._source.passport(about)
        passport = await self._shared.get(worker, about, lambda: self._source.passport(about))
        if passport.expires_at > self._clock.now() + LIFE_LEFT_S:
            return passport
        # The second time it is a new one: this worker has had the other.
        return await self._shared.get(worker, about, lambda: self._source.passport(about))


class SharedTrust:
    """The judges and sources of one configuration, and the answers to workers' questions.

    Args:
        config: checked, and available in this version.
        trust: makes judges and sources.

    Attributes:
        keys: HPKE keys of the egresses, by path.
        services: what the gateway that never serves has, if keys are shared with peers over it.
        undecided: verifiers with several sections, whose preference of a model may change, by path.
    """

    def __init__(self, config: TngConfig, trust: Trust) -> None:
        self.keys: dict[str, SharedKeys] = {}
        self.services: Services | None = None
        self.undecided: dict[str, StatementVerifier] = {}
        self._verifiers: dict[str, StatementVerifier] = {}
        self._config = config
        self._trust = trust
        self._sources: dict[str, SharedSource] = {}
        self._statements: dict[str, SharedStatements] = {}

    def registered(self) -> Trust:
        """What makes the judges and sources of a `Gateway`, and keeps them for `answer`."""
        return Trust(
            self._make_source,
            self._make_verifier,
            self._make_statement_source,
            self._make_key_source,
        )

    async def answer(self, worker: int, question: str, carried: Object) -> Object:
        """The answer to a worker.

        Args:
            worker: which process asks.
            question: "judge", "judge_statement", "challenge", "credential", "evidence",
                "passport" or "find_key".
            carried: what goes with it.

        Raises:
            AttestationError: what judge or source raised.
            RemoteProtocolError: the question lacks what goes with it.
            LocalProtocolError: no such question, or no such entry.
        """
        path = member(carried, "entry", str)
        match question:
            case "judge" | "judge_statement" | "challenge" if path in self._verifiers:
                return await _judge(self._verifiers[path], question, carried)
            case "credential" if path in self._sources:
                return dump_credential(await self._sources[path].make_for(worker))
            case "evidence" | "passport" if path in self._statements:
                about = parse_user_data(member(carried, "about", dict))
                return await self._statements[path].answer(worker, question, about)
            case "find_key" if path in self.keys:
                return await self.keys[path].find(octets(carried, "key"))
        raise LocalProtocolError(f"no answer to {question!r} about {path!r}")

    def _make_source(self, attest: Attest, clock: Clock) -> Source:
        source = self._trust.make_source(attest, clock)
        self._sources[path_of(self._config, attest)] = SharedSource(source, _share_for_s(attest))
        return source

    def _make_verifier(self, verifiers: tuple[Verify, ...], clock: Clock) -> StatementVerifier:
        verifier = self._trust.make_verifier(verifiers, clock)
        path = path_of(self._config, verifiers[0])
        self._verifiers[path] = verifier
        if len(verifiers) > 1:
            self.undecided[path] = verifier
        return verifier

    def _make_statement_source(self, attest: Attest, clock: Clock) -> StatementSource:
        source = self._trust.make_statement_source(attest, clock)
        shared = SharedStatements(source, _share_for_s(attest), clock)
        self._statements[path_of(self._config, attest)] = shared
        return source

    def _make_key_source(self, where: str, settings: EgressOhttp, services: Services) -> KeySource:
        source = self._trust.make_key_source(where, settings, services)
        self.keys[where] = SharedKeys(source, services.clock)
        if settings.key is not None and settings.key.source == "peer_shared":
            self.services = services
        return source


def _share_for_s(attest: Attest) -> float:
    return min(SHARE_FOR_S, attest.refresh_interval)


async def _judge(verifier: StatementVerifier, question: str, carried: Object) -> Object:
    if question == "challenge":
        return {"challenge": await verifier.challenge()}
    peer = member(carried, "peer", str)
    if question == "judge":
        return dump_attested(await verifier.judge(octets(carried, "certificate"), peer))
    statement = parse_statement(member(carried, "statement", dict))
    return dump_attested(await verifier.judge_statement(statement, peer))
