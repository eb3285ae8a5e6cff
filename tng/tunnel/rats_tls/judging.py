"""From a finished handshake to a judged peer: the step that no connection can go round."""

from __future__ import annotations

import logging
import math

from tng.attest.verifier.base import Verifier
from tng.dataplane.tls import TlsEnd
from tng.errors import ErrorCode, TngError, UntrustedPeerError
from tng.tunnel.base import Peer
from tng.tunnel.bridge import Bridge
from tng.tunnel.rats_tls import DRAIN_AFTER_VERDICT_S
from tng.verdict import NoRa

log = logging.getLogger(__name__)


async def judge(end: TlsEnd, verifier: Verifier | None, bridge: Bridge, label: str) -> Peer:
    """Who is at the other end of a connection whose handshake is done.

    Not one octet of application data has been written or read when this is called.  On refusal
    the connection is reset, not closed in order: nothing that was refused looks like a clean end.

    Args:
        end: the connection; stays open only if the peer is accepted.
        verifier: the judge, or None where the operator asked for no verification.
        bridge: through which the judge is asked.
        label: the peer in words, for log and status.

    Raises:
        UntrustedPeerError: judged and refused.
        AppraiserError: there was no judge to ask.
    """
    if verifier is None:
        return NoRa.NO_RA
    try:
        certificate = _certificate(end, label)
        known = verifier.judged_nowait(certificate)
        if known is None:
            known = await bridge.ask(verifier.judge, certificate, label)
    except TngError as error:
        log.warning("peer refused peer=%s code=%s: %s", label, error.code, error)
        end.abort()
        raise
    except BaseException:
        end.abort()
        raise
    return known


def remaining_s(peer: Peer, now: float) -> float | None:
    """Seconds until the verdict on `peer` ends, at least 0; None when there is none."""
    if isinstance(peer, NoRa):
        return None
    return max(0.0, peer.verdict.valid_until - now)


def ends_at(peer: Peer) -> float:
    """Unix time at which the verdict on `peer` ends; infinite when there is none."""
    return math.inf if isinstance(peer, NoRa) else peer.verdict.valid_until


def lifetime_s(peer: Peer, now: float) -> float | None:
    """Seconds that a stream to `peer` may last; None for no bound."""
    remaining = remaining_s(peer, now)
    return None if remaining is None else remaining + DRAIN_AFTER_VERDICT_S


def _certificate(end: TlsEnd, label: str) -> bytes:
    certificate = end.peer_certificate
    if certificate is None:
        raise UntrustedPeerError(f"{label} showed no certificate", code=ErrorCode.EVIDENCE_MISSING)
    return certificate
