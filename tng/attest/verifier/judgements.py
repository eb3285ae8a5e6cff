"""Judgements that are shared: one examination for all who ask at once, its pass for a minute.

In: a fingerprint of what is judged, and the examination to make if no judgement of it is at hand.
Out: an `AttestedPeer`, or the refusal.  A pass is used again for at most a minute
(`verifier.cache`), a refusal never is; the last verdict of each peer is kept for the status page.
Every examination that came to an end is told once, before anybody may act on it: the seam to an
audit log.

Invariant: `held` gives out only what an examination returned for the very same fingerprint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from tng.attest.checks import Findings
from tng.attest.verifier import explain
from tng.attest.verifier.cache import VerdictCache
from tng.errors import AppraiserError, AttestationError, UntrustedPeerError
from tng.verdict import AttestedPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from tng.clock import Clock
    from tng.verdict import Verdict

    Examination: TypeAlias = Callable[[Findings], Awaitable[AttestedPeer]]

MAX_PEERS: Final = 256
"""Peer labels whose last verdict is kept for the status page; the oldest makes room."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judged:
    """How one examination ended.

    Attributes:
        shown: fingerprint of what was examined, 32 octets: SHA-256 of the certificate (DER), or
            over OHTTP the fingerprint of the statement.
        peer: how people call the peer.
        verdict: every check that was made; of a refusal, and where nobody could be asked, too.
        reason: why the peer got no pass; "" if it did.
    """

    shown: bytes
    peer: str
    verdict: Verdict
    reason: str


OnDecision: TypeAlias = Callable[[Judged], None]
"""Receives every judgement, in order, in the trio thread; must not block and must not raise."""


def forget(judged: Judged) -> None:
    """Keep no record; the log lines and the status page remain."""


class Judgements:
    """What was found out about peers, and what is being found out.

    Args:
        clock: the time of day.
        on_decision: told of every examination that came to an end, before its outcome is used.

    Attributes:
        on_decision: as above; may be set until the first judgement.
    """

    def __init__(self, clock: Clock, on_decision: OnDecision = forget) -> None:
        self._clock = clock
        self.on_decision = on_decision
        self._cache = VerdictCache(clock)
        self._flights: dict[bytes, _Flight] = {}
        self._verdicts: dict[str, Verdict] = {}

    def held(self, key: bytes) -> AttestedPeer | None:
        """The pass under that fingerprint, if it may be used now.  Safe in every thread."""
        return self._cache.get(key)

    def verdicts(self) -> Mapping[str, Verdict]:
        """The last verdict per peer label, refusals included; a copy."""
        return dict(self._verdicts)

    async def judge(self, key: bytes, peer: str, examine: Examination) -> AttestedPeer:
        """The pass under that fingerprint: an earlier one, that of whoever asks now, or a new one.

        Args:
            key: fingerprint of what is examined; the same only for the same question.
            peer: how people call the peer.
            examine: finds out, and records its checks in the findings that it is given.

        Raises:
            UntrustedPeerError: the peer was examined and refused.
            AppraiserError: there was nobody to ask.
        """
        while True:
            held = self._cache.get(key)
            if held is not None:
                self._keep(peer, held.verdict)
                return held
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, peer, examine)
            await flight.landed.wait()
            match flight.outcome:
                case AttestedPeer() as attested:
                    self._keep(peer, attested.verdict)
                    return attested
                case AttestationError() as error:
                    if flight.verdict is not None:
                        self._keep(peer, flight.verdict)
                    raise _again(error)
                case None:  # the task that judged was cancelled: take its place
                    continue

    async def _lead(self, key: bytes, peer: str, examine: Examination) -> AttestedPeer:
        """Judge, and share the outcome with everybody who asks meanwhile."""
        flight = self._flights[key] = _Flight()
        findings = Findings(self._clock.now())
        try:
            attested = await examine(findings)
        except AttestationError as exc:
            flight.outcome = exc
            flight.verdict = _verdict_of(exc, findings)
            self._keep(peer, flight.verdict)
            self.on_decision(Judged(key, peer, flight.verdict, str(exc)))
            is_judged = isinstance(exc, UntrustedPeerError)
            event = "peer refused" if is_judged else "peer could not be judged"
            log.warning("%s peer=%s code=%s error=%s", event, peer, exc.code, exc)
            raise
        else:
            self.on_decision(Judged(key, peer, attested.verdict, ""))
            flight.outcome = attested
            self._cache.put(key, attested)
            self._keep(peer, attested.verdict)
            log.info("peer accepted peer=%s %s", peer, explain.summary(attested.verdict))
            return attested
        finally:
            del self._flights[key]
            flight.landed.set()

    def _keep(self, peer: str, verdict: Verdict) -> None:
        self._verdicts.pop(peer, None)
        while len(self._verdicts) >= MAX_PEERS:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[peer] = verdict


class _Flight:
    """One judgement under way, and what it came to; None means that it was cancelled."""

    def __init__(self) -> None:
        self.landed = trio.Event()
        self.outcome: AttestedPeer | AttestationError | None = None
        self.verdict: Verdict | None = None


def _verdict_of(error: AttestationError, findings: Findings) -> Verdict:
    """The verdict to keep for a peer that got no pass."""
    if isinstance(error, UntrustedPeerError) and error.verdict is not None:
        return error.verdict
    return findings.verdict(code=error.code)


def _again(error: AttestationError) -> AttestationError:
    """A second exception that says the same: one object cannot travel up two tasks."""
    if isinstance(error, UntrustedPeerError):
        return UntrustedPeerError(str(error), code=error.code, verdict=error.verdict)
    return AppraiserError(str(error), code=error.code)
