"""What a session shows of us, and the step that none can go round: judging its peer.

The same rules as in `tunnel.rats_tls`, in trio.  `Session.open` wants what `judge` returns.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tng.errors import ErrorCode, TngError, UntrustedPeerError
from tng.verdict import NoRa

if TYPE_CHECKING:
    from tng.attest.credential import Credential
    from tng.attest.verifier.base import Verifier
    from tng.tunnel.base import Peer
    from tng.tunnel.quic.session import Session
    from tng.tunnel.rats_tls.identity import Identity

log = logging.getLogger(__name__)


async def credential_for(identity: Identity | None) -> Credential | None:
    """What one connection shows of us; None where we do not attest.

    Raises:
        EvidenceError: we are to prove who we are, and cannot.
        AppraiserError: the attestation service gave no token (passport).
    """
    if identity is None:
        return None
    if identity.per_connection:
        return await identity.fresh()
    return identity.current or await identity.first()


async def judge(session: Session, verifier: Verifier | None) -> Peer:
    """Who is at the other end of a session whose handshake is done.

    Args:
        session: stays open only if the peer is accepted.
        verifier: the judge, or None where the operator asked for no verification.

    Raises:
        UntrustedPeerError: judged and refused.
        AppraiserError: there was no judge to ask.
        TngError: the judge failed by a bug of ours.
    """
    if verifier is None:
        return NoRa.NO_RA
    accepted = False
    try:
        certificate = _certificate_of(session)
        peer = verifier.judged_nowait(certificate)
        if peer is None:
            peer = await verifier.judge(certificate, session.label)
        accepted = True
    except TngError as error:
        log.warning("peer refused peer=%s code=%s: %s", session.label, error.code, error)
        raise
    except Exception as error:
        log.exception("unexpected error while judging peer=%s", session.label)
        raise TngError(f"internal error: {type(error).__name__}") from error
    finally:
        if not accepted:
            session.refuse()
    return peer


def _certificate_of(session: Session) -> bytes:
    certificate = session.certificate
    if certificate is None:
        raise UntrustedPeerError(
            f"{session.label} showed no certificate", code=ErrorCode.EVIDENCE_MISSING
        )
    return certificate
