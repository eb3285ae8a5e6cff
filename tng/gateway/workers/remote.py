"""A worker's judge and its source of certificates: both ask the supervisor.

In: a `Link` to the supervisor.  Out: a `Verifier` and a `Source`, to a worker's tunnels the same
as those of a gateway that is one process.

Invariant: a judgement is used again only until a minute after it was *made*, wherever it was made,
and never longer than its verdict holds; keeping it in two processes adds no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tng.attest.verifier.cache import MAX_AGE_S, VerdictCache, fingerprint
from tng.errors import AppraiserError, ErrorCode, EvidenceError, TngError
from tng.gateway.workers.messages import dump_octets, parse_attested, parse_credential

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.credential import Credential
    from tng.clock import Clock
    from tng.gateway.workers.link import Link
    from tng.verdict import AttestedPeer, Verdict


class RemoteVerifier:
    """A `Verifier` whose judge lives in the supervisor.

    Args:
        link: to the supervisor.
        path: the entry that verifies, e.g. "add_ingress[0]".
        clock: the time of day.
    """

    def __init__(self, link: Link, path: str, clock: Clock) -> None:
        self._link = link
        self._path = path
        self._clock = clock
        self._cache = VerdictCache(clock)

    @property
    def not_ready(self) -> str | None:
        """None: whether the judge is ready, the supervisor knows and says."""
        return None

    def verdicts(self) -> Mapping[str, Verdict]:
        """Nothing: the supervisor keeps the verdicts of all workers."""
        return {}

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        """See `Verifier.judged_nowait`."""
        known = self._cache.get(fingerprint(certificate_der))
        if known is None or self._clock.now() >= known.verdict.judged_at + MAX_AGE_S:
            return None
        return known

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        """See `Verifier.judge`."""
        known = self.judged_nowait(certificate_der)
        if known is not None:
            return known
        answer = await self._link.ask(
            "judge", entry=self._path, certificate=dump_octets(certificate_der), peer=peer
        )
        attested = parse_attested(answer)
        if attested.verdict.valid_until <= self._clock.now():
            raise AppraiserError("the verdict ended before it arrived", code=ErrorCode.STALE)
        self._cache.put(fingerprint(certificate_der), attested)
        return attested

    async def run(self) -> None:
        """Nothing to keep up to date here."""
        await trio.sleep_forever()

    async def aclose(self) -> None:
        """Nothing to close: the link belongs to the worker."""
        await trio.lowlevel.checkpoint()


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
        try:
            return parse_credential(await self._link.ask("credential", entry=self._path))
        except TngError as error:
            if error.code is ErrorCode.SHUTTING_DOWN:
                raise EvidenceError(str(error), code=error.code) from error
            raise
