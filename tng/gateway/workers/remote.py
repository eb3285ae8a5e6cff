"""A worker's judge and its source of certificates: both ask the supervisor.

In: a `Link` to the supervisor.  Out: a `StatementVerifier` and a `Source`, to a worker's tunnels
the same as those of a gateway that is one process.

Invariant: a judgement is used again only until a minute after it was *made*, wherever it was made,
and never longer than its verdict holds; keeping it in two processes adds no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tng.attest.verifier.cache import MAX_AGE_S, VerdictCache, fingerprint
from tng.errors import AppraiserError, ErrorCode, EvidenceError, TngError
from tng.gateway.workers.messages import dump_octets, member, parse_attested, parse_credential
from tng.gateway.workers.ohttp_messages import dump_statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tng.attest.credential import Credential
    from tng.attest.statement import Statement
    from tng.attest.strict_json import Json
    from tng.clock import Clock
    from tng.gateway.workers.link import Link, Object
    from tng.verdict import AttestedPeer, Verdict


class RemoteVerifier:
    """A `StatementVerifier` whose judge lives in the supervisor.

    Args:
        link: to the supervisor.
        path: the entry that verifies, e.g. "add_ingress[0]".
        models: of its sections, in the order of the configuration.
        clock: the time of day.
    """

    def __init__(self, link: Link, path: str, models: Iterable[str], clock: Clock) -> None:
        self._link = link
        self._path = path
        self._models = tuple(dict.fromkeys(models))
        self._clock = clock
        self._cache = VerdictCache(clock)

    @property
    def not_ready(self) -> str | None:
        """None: whether the judge is ready, the supervisor knows and says."""
        return None

    @property
    def models(self) -> tuple[str, ...]:
        """See `StatementVerifier.models`; the order is what the supervisor last said."""
        return self._models

    def prefer(self, models: Iterable[str]) -> None:
        """Take note of what the supervisor's judge prefers now; unknown words are passed over."""
        known = [model for model in models if model in self._models]
        self._models = tuple(dict.fromkeys([*known, *self._models]))

    def verdicts(self) -> Mapping[str, Verdict]:
        """Nothing: the supervisor keeps the verdicts of all workers."""
        return {}

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        """See `Verifier.judged_nowait`."""
        return self._held(fingerprint(certificate_der))

    def judged_statement_nowait(self, statement: Statement) -> AttestedPeer | None:
        """See `StatementVerifier.judged_statement_nowait`."""
        return self._held(statement.fingerprint())

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        """See `Verifier.judge`."""
        carried: Object = {"certificate": dump_octets(certificate_der), "peer": peer}
        return await self._judge(fingerprint(certificate_der), "judge", carried)

    async def judge_statement(self, statement: Statement, peer: str) -> AttestedPeer:
        """See `StatementVerifier.judge_statement`."""
        carried: Object = {"statement": dump_statement(statement), "peer": peer}
        return await self._judge(statement.fingerprint(), "judge_statement", carried)

    async def challenge(self) -> str:
        """See `StatementVerifier.challenge`."""
        try:
            answer = await self._link.ask("challenge", entry=self._path)
        except TngError as error:
            if error.code is ErrorCode.SHUTTING_DOWN:
                raise AppraiserError(str(error), code=error.code) from error
            raise
        return member(answer, "challenge", str)

    async def run(self) -> None:
        """Nothing to keep up to date here."""
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """Nothing to close: the link belongs to the worker."""
        await trio.lowlevel.checkpoint()

    def _held(self, key: bytes) -> AttestedPeer | None:
        known = self._cache.get(key)
        if known is None or self._clock.now() >= known.verdict.judged_at + MAX_AGE_S:
            return None
        return known

    async def _judge(self, key: bytes, question: str, carried: Object) -> AttestedPeer:
        known = self._held(key)
        if known is not None:
            return known
        answer = await self._link.ask(question, entry=self._path, **carried)
        attested = parse_attested(answer)
        if attested.verdict.valid_until <= self._clock.now():
            raise AppraiserError("the verdict ended before it arrived", code=ErrorCode.STALE)
        self._cache.put(key, attested)
        return attested


class RemoteSource:
    """A `Source` whose attester is asked by the supervisor.

    Args:
        link: to the supervisor.
        path: the entry that attests, e.g. "add_egress[0]".
    """

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path

    async def make(self) -> Credential:
        """A credential that this worker has not had before.

        Raises:
            EvidenceError: our TEE gave no evidence, or the supervisor has ended.
            AppraiserError: the attestation service gave no usable token.
            UntrustedPeerError: the attestation service refused our evidence.
        """
        return parse_credential(await ask_for_evidence(self._link, "credential", self._path))


async def ask_for_evidence(link: Link, question: str, path: str, **carried: Json) -> Object:
    """What the supervisor says about evidence of ours.

    Raises:
        EvidenceError: our TEE gave no evidence, or the supervisor has ended.
        TngError: what else the supervisor's source raised.
    """
    try:
        return await link.ask(question, entry=path, **carried)
    except TngError as error:
        if error.code is ErrorCode.SHUTTING_DOWN:
            raise EvidenceError(str(error), code=error.code) from error
        raise
