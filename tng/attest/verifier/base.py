"""What a tunnel asks before it trusts a peer: the seam in front of every verifier.

In: the peer's leaf certificate as DER.  Out: an `AttestedPeer`, or an exception that says why
not; never a boolean.  The one implementation in this release is `attest.verifier.trustee`.

Invariant: `judged_nowait` never says yes to a certificate that `judge` has not accepted before,
nor later than the accepting verdict allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

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
