"""Sessions of the handshake: a nonce that was given out, and what came of it.

`open` makes a session, `take_nonce` takes its nonce for one attempt, `token` keeps what came of
it.  In memory: a restart ends every session, and clients begin again.

Invariants: a nonce is taken once, whatever comes of it; a session lives at most `LIFETIME_S`; at
most `MAX_SESSIONS` exist, of which new ones push out the oldest that nobody has attested with.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from tng.trustee.problems import ProblemCode, TrusteeRequestError

LIFETIME_S: Final = 300
"""Seconds of a session, as long as a token's life."""

MAX_SESSIONS: Final = 4096
"""Sessions at once: a few hundred octets each, and a handshake takes less than a second."""

_NONCE_OCTETS: Final = 32
_ID_OCTETS: Final = 16


@dataclass(slots=True)
class Session:
    """One handshake.

    Attributes:
        nonce: base64 of 32 octets.
        tee: name of the TEE that the client announced.
        version: of the handshake.
        expires: Unix time, seconds.
        used: the nonce was taken.
        token: what came of it; None until then.
    """

    nonce: str
    tee: str
    version: str
    expires: float
    used: bool = False
    token: str | None = None

    def __repr__(self) -> str:
        return f"Session(tee={self.tee!r}, used={self.used}, attested={self.token is not None})"


class Sessions:
    """Sessions by the name in the client's cookie.

    Args:
        limit: how many at once.
    """

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        # Kept under a hash of the name, so that the time of looking up tells nothing of names.
        self._sessions: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, tee: str, version: str, now: float) -> tuple[str, Session]:
        """A new session and its name, 32 hexadecimal digits.

        Args:
            tee: canonical name.
            version: of the handshake.
            now: Unix time, seconds.

        Raises:
            TrusteeRequestError: every place is taken by clients that have attested (503).
        """
        self._make_room(now)
        nonce = base64.b64encode(secrets.token_bytes(_NONCE_OCTETS)).decode("ascii")
        session = Session(nonce, tee, version, now + LIFETIME_S)
        name = secrets.token_hex(_ID_OCTETS)
        self._sessions[_key(name)] = session
        return name, session

    def find(self, name: str, now: float) -> Session:
        """The session of that name.

        Raises:
            TrusteeRequestError: there is none, or it has ended (401).
        """
        session = self._sessions.get(_key(name))
        if session is None or session.expires <= now:
            self._sessions.pop(_key(name), None)
            raise _refused("there is no such session, or it has ended; begin again with /auth")
        return session

    def _make_room(self, now: float) -> None:
        if len(self._sessions) < self._limit:
            return
        kept = {key: item for key, item in self._sessions.items() if item.expires > now}
        if len(kept) >= self._limit:
            # In order of their beginning, so the first one found is the oldest.
            oldest = next((key for key, item in kept.items() if item.token is None), None)
            if oldest is None:
                raise TrusteeRequestError(
                    f"{self._limit} sessions are open; try again later", ProblemCode.BUSY
                )
            del kept[oldest]
        self._sessions = kept


def take_nonce(session: Session, nonce: str) -> None:
    """Take the session's nonce for one attempt.

    Args:
        session: not yet attested.
        nonce: what the client says it is.

    Raises:
        TrusteeRequestError: it was taken before, or is another one (401).
    """
    used, session.used = session.used, True
    if used:
        raise _refused("the session's nonce was used already; begin again with /auth")
    if not hmac.compare_digest(session.nonce.encode(), nonce.encode("utf-8", "surrogatepass")):
        raise _refused("the nonce is not the one of this session; begin again with /auth")


def _key(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _refused(message: str) -> TrusteeRequestError:
    return TrusteeRequestError(message, ProblemCode.KBS_SESSION)
