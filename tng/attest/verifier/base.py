"""What a tunnel asks before it trusts a peer: the seam in front of every verifier.

In: the peer's leaf certificate as DER, or over OHTTP its statement.  Out: an `AttestedPeer`, or an
exception that says why not; never a boolean.  `attest.verifier.trustee` asks one attestation
service, `attest.verifier.any_of` several such verifiers.

Invariant: `judged_nowait` never says yes to a certificate that `judge` has not accepted before,
nor later than the accepting verdict allows; the same holds for statements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.checks import Findings
    from tng.attest.statement import Statement
    from tng.verdict import AttestedPeer, Verdict


class Verifier(Protocol):
    """Judges peers.  All methods but `judged_nowait` belong to the trio thread."""

    async def judge(self, certificate_der: bytes, peer: str) -> AttestedPeer:
        """The peer as one that passed every check.

        Args:
            certificate_der: the leaf certificate of the peer's handshake.
            peer: how people call the peer ("10.0.0.7:443"); for `verdicts` and the log.

        Raises:
            UntrustedPeerError: the peer was judged and refused; `verdict` lists the checks.
            AppraiserError: the attestation service could not be asked.
        """
        ...

    def judged_nowait(self, certificate_der: bytes) -> AttestedPeer | None:
        """The earlier, still valid judgement of this very certificate; None to call `judge`.

        Safe in every thread: it only reads.
        """
        ...

    async def run(self) -> None:
        """Keep trust anchors and the service's health up to date until cancelled.

        An absent service is waited for, not an error.  Closes the connections at its end.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections to the service; for users that never call `run`."""
        ...

    @property
    def not_ready(self) -> str | None:
        """Why no peer could be judged right now, in words for people; None when ready."""
        ...

    def verdicts(self) -> Mapping[str, Verdict]:
        """The last verdict per peer label, refusals included; a copy, at most 256 entries."""
        ...


class StatementVerifier(Verifier, Protocol):
    """Judges peers over OHTTP too.  `judged_statement_nowait` is for every thread."""

    async def judge_statement(self, statement: Statement, peer: str) -> AttestedPeer:
        """The peer as one that passed every check.

        The token's runtime data must have `statement.expected_claims`, and evidence must name them
        itself.  A token must have been issued within `MAX_TOKEN_AGE_S`.  A client's token passes in
        either model; anything else must be of the configured one.

        Args:
            statement: what the peer showed, and the key that it must be about.
            peer: how people call the peer; for `verdicts` and the log.

        Raises:
            UntrustedPeerError: the peer was judged and refused; `verdict` lists the checks.
            AppraiserError: the attestation service could not be asked.
        """
        ...

    def judged_statement_nowait(self, statement: Statement) -> AttestedPeer | None:
        """The earlier, still valid judgement of an equal statement; None to judge it.

        Safe in every thread: it only reads.
        """
        ...

    async def challenge(self) -> str:
        """A challenge for the evidence that is to be judged here (model background_check).

        Raises:
            AppraiserError: the attestation service could not be asked, or gives none; AS_REJECTED
                also when the model is passport.
        """
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """What peers may attest with, the preferred one first: "background_check", "passport"."""
        ...


class Examiner(StatementVerifier, Protocol):
    """A verifier whose single checks others can have: `attest.verifier.any_of` builds on it."""

    async def examine_certificate(self, certificate_der: bytes, findings: Findings) -> AttestedPeer:
        """As `judge`, but now, not remembered and not logged; checks go into the findings."""
        ...

    async def examine_statement(self, statement: Statement, findings: Findings) -> AttestedPeer:
        """As `judge_statement`, but now, not remembered and not logged."""
        ...
