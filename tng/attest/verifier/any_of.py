"""Several verifiers of which any one may accept a peer: `verify` as a list.

In: a peer's certificate or statement.  Out: the pass of the first verifier that accepts it; when
none does, one error with the reason of each.  They are tried in the order of the configuration,
those first that are ready; a verifier refuses a peer of another model before it asks its service.
A verdict names the section that each check belongs to: "verify[1] token signer".

Judgements are shared and remembered here, not by the verifiers inside, so that the log has one
line for each (`verifier.judgements`).

Invariant: a peer is accepted only with a verdict that one verifier made on all of its own checks;
checks of different sections never add up.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Final

import trio

from tng.attest.checks import Findings, Step
from tng.attest.verifier.cache import fingerprint
from tng.attest.verifier.judgements import Judgements
from tng.errors import AppraiserError, AttestationError, ErrorCode, UntrustedPeerError
from tng.verdict import AttestedPeer, Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from tng.attest.statement import Statement
    from tng.attest.verifier.base import Examiner
    from tng.attest.verifier.judgements import OnDecision
    from tng.clock import Clock
    from tng.verdict import Verdict


MAX_REASON: Final = 300
"""Characters of one section's reason in the message for all of them."""


class AnyOfVerifier:
    """A `StatementVerifier` that accepts whom any of its verifiers accepts.

    Args:
        verifiers: 1 or more, in the order in which they are tried.  Closed with this one.
        clock: the time of day.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, verifiers: Sequence[Examiner], clock: Clock) -> None:
        if not verifiers:
            raise ValueError("any of no verifiers would never accept")
        self._verifiers = tuple(verifiers)
        self._judgements = Judgements(clock)

    @property
    def not_ready(self) -> str | None:
        """See `Verifier.not_ready`; ready as soon as one of them is."""
        reasons = [verifier.not_ready for verifier in self._verifiers]
        if None in reasons:
            return None
        return "; ".join(f"verify[{index}]: {reason}" for index, reason in enumerate(reasons))

    @property
    def models(self) -> tuple[str, ...]:
        """See `StatementVerifier.models`."""
        return tuple(dict.fromkeys(model for _, each in self._in_order() for model in each.models))

    def verdicts(self) -> Mapping[str, Verdict]:
        """See `Verifier.verdicts`."""
        return self._judgements.verdicts()

    def record_with(self, on_decision: OnDecision) -> None:
        """Have every judgement from now on told to `on_decision`."""
        self._judgements.on_decision = on_decision

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        """See `Verifier.judged_nowait`."""
        return self._judgements.held(fingerprint(certificate_der))

    def judged_statement_nowait(self, statement: Statement) -> AttestedPeer | None:
        """See `StatementVerifier.judged_statement_nowait`."""
        return self._judgements.held(statement.fingerprint())

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        """See `Verifier.judge`."""

        async def examine(findings: Findings) -> AttestedPeer:
            return await self._first_to_accept(
                lambda each, own: each.examine_certificate(certificate_der, own), findings
            )

        return await self._judgements.judge(fingerprint(certificate_der), peer, examine)

    async def judge_statement(self, statement: Statement, peer: str) -> AttestedPeer:
        """See `StatementVerifier.judge_statement`."""

        async def examine(findings: Findings) -> AttestedPeer:
            return await self._first_to_accept(
                lambda each, own: each.examine_statement(statement, own), findings
            )

        return await self._judgements.judge(statement.fingerprint(), peer, examine)

    async def challenge(self) -> str:
        """See `StatementVerifier.challenge`: that of the first service that gives one."""
        failures: list[_Refusal] = []
        for index, verifier in self._in_order():
            if "background_check" not in verifier.models:
                continue
            try:
                return await verifier.challenge()
            except AppraiserError as exc:
                failures.append(_Refusal(index, exc, ()))
        if not failures:
            raise AppraiserError(
                "no section of verify has model 'background_check', so no challenge is asked for",
                code=ErrorCode.AS_REJECTED,
            )
        raise _unasked(failures)

    async def run(self) -> None:
        """See `Verifier.run`."""
        async with trio.open_nursery() as nursery:
            for verifier in self._verifiers:
                nursery.start_soon(verifier.run)

    async def aclose(self) -> None:
        """See `Verifier.aclose`."""
        async with trio.open_nursery() as nursery:
            for verifier in self._verifiers:
                nursery.start_soon(verifier.aclose)

    def _in_order(self) -> list[tuple[int, Examiner]]:
        """The verifiers with their indexes, in the order in which they are tried now."""
        return sorted(
            enumerate(self._verifiers), key=lambda numbered: numbered[1].not_ready is not None
        )

    async def _first_to_accept(
        self,
        examine: Callable[[Examiner, Findings], Awaitable[AttestedPeer]],
        findings: Findings,
    ) -> AttestedPeer:
        refusals: list[_Refusal] = []
        for index, verifier in self._in_order():
            own = Findings(findings.judged_at)
            try:
                attested = await examine(verifier, own)
            except AttestationError as exc:
                refusals.append(_Refusal(index, exc, _checks_of(exc, own)))
                findings.peer = own.peer
            else:
                return _labelled(attested, index, refusals)
            if refusals[-1].is_about_the_certificate:
                break  # no other section reads certificates otherwise
        raise _none_accepted(refusals, findings)


@dataclasses.dataclass(frozen=True, slots=True)
class _Refusal:
    """Why one section did not accept.

    Attributes:
        index: of the section.
        error: what it raised.
        checks: what it asked until then.
    """

    index: int
    error: AttestationError
    checks: tuple[Check, ...]

    @property
    def reason(self) -> str:
        return f"verify[{self.index}]: {self.error!s:.{MAX_REASON}}"

    @property
    def reached(self) -> int:
        """Number of the check that failed; 0 if it is not known."""
        failed = [check.number for check in self.checks if check.outcome is Outcome.FAIL]
        return failed[0] if failed else 0

    @property
    def is_about_the_certificate(self) -> bool:
        return self.reached == Step.CERTIFICATE


def _checks_of(error: AttestationError, own: Findings) -> tuple[Check, ...]:
    """The checks of a refusal: its verdict has those of the token too."""
    if isinstance(error, UntrustedPeerError) and error.verdict is not None:
        return error.verdict.checks
    return own.checks


def _with_index(index: int, checks: Sequence[Check]) -> list[Check]:
    return [dataclasses.replace(check, name=f"verify[{index}] {check.name}") for check in checks]


def _labelled(attested: AttestedPeer, index: int, refusals: Sequence[_Refusal]) -> AttestedPeer:
    """The pass, with its section in front of every check, and a line for each section before it.

    What another section missed is no failure of this verdict; it is shown as not asked for.
    """
    others = [
        Check(each.reached, "any of", Outcome.SKIP, f"did not accept: {each.reason}")
        for each in refusals
    ]
    checks = (*others, *_with_index(index, attested.verdict.checks))
    return dataclasses.replace(
        attested, verdict=dataclasses.replace(attested.verdict, checks=checks)
    )


def _none_accepted(refusals: Sequence[_Refusal], findings: Findings) -> AttestationError:
    """The error for all of them; if one could not be asked, asking again may end otherwise."""
    ordered = sorted(refusals, key=operator.attrgetter("index"))
    for each in ordered:
        findings.report(_with_index(each.index, each.checks))
    unasked = [each for each in ordered if not isinstance(each.error, UntrustedPeerError)]
    if unasked:
        return _unasked(ordered, unasked[0].error.code)
    # The reason of the section that got furthest says most.
    best = max(ordered, key=operator.attrgetter("reached")).error
    if isinstance(best, UntrustedPeerError) and best.verdict is not None:
        findings.tee, findings.simulated = best.verdict.tee, best.verdict.simulated
        findings.policy_ids = best.verdict.policy_ids
    return findings.refused(best.code, _reasons(ordered))


def _unasked(failures: Sequence[_Refusal], code: ErrorCode | None = None) -> AppraiserError:
    return AppraiserError(_reasons(failures), code=code or failures[0].error.code)


def _reasons(refusals: Sequence[_Refusal]) -> str:
    return "; ".join(each.reason for each in refusals)
