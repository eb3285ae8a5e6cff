from __future__ import annotations

import pytest

from tng.trustee.kbs.sessions import LIFETIME_S, Sessions, take_nonce
from tng.trustee.problems import TrusteeRequestError

NOW = 1_795_000_000.0


def test_a_session_is_found_by_its_name_until_it_ends():
    sessions = Sessions()
    name, session = sessions.open("tdx", "0.4.0", NOW)
    other, _ = sessions.open("tdx", "0.4.0", NOW)
    assert name != other
    assert sessions.find(name, NOW + LIFETIME_S - 1) is session
    with pytest.raises(TrusteeRequestError, match="no such session"):
        sessions.find(name, NOW + LIFETIME_S)
    assert len(sessions) == 1
    for unknown in ("", other.upper(), other[:-1], "é", "\ud800"):
        with pytest.raises(TrusteeRequestError) as caught:
            sessions.find(unknown, NOW)
        assert caught.value.http_status == 401


def test_the_nonce_is_taken_once_also_by_a_wrong_guess():
    _, session = Sessions().open("tdx", "0.4.0", NOW)
    with pytest.raises(TrusteeRequestError, match="not the one"):
        take_nonce(session, "x")
    with pytest.raises(TrusteeRequestError, match="used already"):
        take_nonce(session, session.nonce)
    _, session = Sessions().open("tdx", "0.4.0", NOW)
    take_nonce(session, session.nonce)
    with pytest.raises(TrusteeRequestError, match="used already"):
        take_nonce(session, session.nonce)


def test_a_new_session_pushes_out_the_oldest_that_is_not_attested():
    sessions = Sessions(limit=3)
    (first, attested), (second, _), (third, _) = (
        sessions.open("tdx", "0.4.0", NOW + n) for n in range(3)
    )
    attested.token = "t"
    sessions.open("tdx", "0.4.0", NOW + 3)
    assert len(sessions) == 3
    sessions.find(first, NOW)
    sessions.find(third, NOW)
    with pytest.raises(TrusteeRequestError):
        sessions.find(second, NOW)


def test_ended_sessions_make_room_first():
    sessions = Sessions(limit=2)
    old, _ = sessions.open("tdx", "0.4.0", NOW)
    kept, _ = sessions.open("tdx", "0.4.0", NOW + 10)
    sessions.open("tdx", "0.4.0", NOW + LIFETIME_S)
    sessions.find(kept, NOW + LIFETIME_S)
    with pytest.raises(TrusteeRequestError):
        sessions.find(old, NOW)


def test_attested_sessions_are_never_pushed_out():
    sessions = Sessions(limit=1)
    name, session = sessions.open("tdx", "0.4.0", NOW)
    session.token = "t"
    with pytest.raises(TrusteeRequestError) as caught:
        sessions.open("tdx", "0.4.0", NOW)
    assert caught.value.http_status == 503
    assert sessions.find(name, NOW) is session


def test_a_session_shows_neither_nonce_nor_token():
    _, session = Sessions().open("tdx", "0.4.0", NOW)
    session.token = "secret-token"
    assert session.nonce not in repr(session)
    assert "secret-token" not in repr(session)
