"""How long a judgement is used again."""

from __future__ import annotations

from tng.attest.verifier.cache import VerdictCache, fingerprint
from tng.clock import FixedClock
from tng.verdict import AttestedPeer, Verdict


def _peer(valid_until):
    verdict = Verdict(True, None, (), "tdx", False, (), "", 0.0, valid_until)
    return AttestedPeer(verdict, "token")


def test_a_pass_is_used_for_a_minute():
    clock = FixedClock(1000.0)
    cache, peer = VerdictCache(clock), _peer(5000.0)
    cache.put(b"k", peer)
    clock.at = 1059.9
    assert cache.get(b"k") is peer
    assert cache.get(b"other") is None
    clock.at = 1060.0
    assert cache.get(b"k") is None


def test_a_pass_never_outlives_its_verdict():
    clock = FixedClock(1000.0)
    cache = VerdictCache(clock)
    cache.put(b"k", _peer(1010.0))
    clock.at = 1010.0
    assert cache.get(b"k") is None


def test_a_clock_set_back_gives_no_second_life():
    clock = FixedClock(1000.0)
    cache = VerdictCache(clock)
    cache.put(b"k", _peer(5000.0))
    clock.at = 900.0
    assert cache.get(b"k") is None


def test_the_oldest_makes_room():
    cache = VerdictCache(FixedClock(0.0), max_entries=2)
    for key in (b"a", b"b", b"a", b"c"):
        cache.put(key, _peer(10.0))
    assert len(cache) == 2
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None


def test_fingerprints_are_sha256():
    assert fingerprint(b"").hex().startswith("e3b0c44298fc1c14")
