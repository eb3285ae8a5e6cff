"""One member of a cluster: who leads, what is taken in, and that keys are made in time."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from tng.errors import RemoteProtocolError
from tng.tunnel.ohttp.cluster import MAX_KEY_LIFE_S, MEMBER_TIMEOUT_S, Cluster, Moment
from tng.tunnel.ohttp.keyring import KeyStatus
from tng.wire.ohttp_cluster import MAX_CLUSTER_KEYS, MAX_MEMBERS, HeardMember, SharedKey

START = 1_800_000_000.0
INTERVAL = 100


def node(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def at(seconds: float, skew: float = 0.0) -> Moment:
    return Moment(START + seconds + skew, 5000.0 + seconds)


def cluster(number: int, *, booted: bool = True) -> Cluster:
    one = Cluster(node(number), f"10.0.0.{number}:8301", INTERVAL)
    if booted:
        one.boot()
    return one


def secret() -> bytes:
    return X25519PrivateKey.generate().private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )


def shared(begins: float = 0.0, life: float = 100.0, der: bytes | None = None) -> SharedKey:
    start = START + begins
    return SharedKey(0, der or secret(), start, start + life, start + 2 * life)


def exchange(one: Cluster, other: Cluster, moment: Moment, skew: float = 0.0) -> None:
    """A question and its answer; the clock of `other` is ahead by `skew` seconds."""
    theirs = Moment(moment.now + skew, moment.steady)
    other.receive(one.message(moment), theirs, age=5.0)
    one.receive(other.message(theirs), moment, age=0.0, dialled="peer:1")


def statuses(one: Cluster, moment: Moment) -> list[str]:
    return [key.status(moment.now).value for key in one.keyring.unexpired(moment.now)]


def publics(one: Cluster) -> set[bytes]:
    return {key.public_key for key in one.keyring}


def test_a_booted_leader_makes_a_key_for_now_and_the_next_one() -> None:
    one = cluster(1)
    assert one.advance(at(0))
    assert statuses(one, at(0)) == ["Pending", "Active"]
    pending, active = one.keyring.unexpired(at(0).now)
    assert pending.actived_at == active.stale_at == START + INTERVAL
    assert not one.advance(at(1)), "nothing more is due"


def test_who_has_not_booted_makes_nothing() -> None:
    one = cluster(1, booted=False)
    assert not one.advance(at(0))
    assert len(one.keyring) == 0


def test_keys_follow_each_other_without_a_gap() -> None:
    one = cluster(1)
    for second in range(10 * INTERVAL):
        one.advance(at(second))
        assert one.keyring.active(at(second).now) is not None
        assert "Pending" in statuses(one, at(second))
        assert len(one.keyring) <= 4


def test_the_smallest_id_leads_and_only_it_makes_keys() -> None:
    small, large = cluster(1), cluster(2)
    small.advance(at(0))
    exchange(large, small, at(0))
    assert small.is_leader(at(1))
    assert not large.is_leader(at(1))
    for second in range(0, INTERVAL + 1, 2):
        exchange(large, small, at(second))
        assert not large.advance(at(second))
        small.advance(at(second))
    exchange(large, small, at(INTERVAL + 1))
    assert publics(small) == publics(large)
    assert len(publics(large)) == 3


def test_a_leader_that_falls_silent_is_replaced() -> None:
    small, large = cluster(1), cluster(2)
    small.advance(at(0))
    exchange(large, small, at(0))
    assert not large.is_leader(at(MEMBER_TIMEOUT_S - 0.1))
    assert large.is_leader(at(MEMBER_TIMEOUT_S))
    assert large.advance(at(INTERVAL))
    assert large.keyring.active(at(INTERVAL).now) is not None


def test_a_member_heard_of_through_another_counts() -> None:
    small, middle, large = cluster(1), cluster(2), cluster(3)
    exchange(middle, small, at(0))
    exchange(large, middle, at(1))
    assert not large.is_leader(at(2))
    assert [m.node_id for m in large.members(at(2))] == [node(3), node(2), node(1)]


def test_hearsay_keeps_nobody_alive() -> None:
    """Two that tell each other of a third for ever: it dies as if they had not."""
    gone, one, two = cluster(1), cluster(2), cluster(3)
    exchange(one, gone, at(0))
    for second in range(20):
        exchange(one, two, at(second))
        exchange(two, one, at(second + 0.5))
    assert [m.node_id for m in one.members(at(20))] == [node(2), node(3)]
    assert {m.node_id for m in two.members(at(20))} == {node(2), node(3)}


def test_the_dialled_address_is_shown_rather_than_the_stated_one() -> None:
    one, two = cluster(1), cluster(2)
    two.receive(one.message(at(0)), at(0), age=5.0)
    assert two.members(at(0))[1].address == "10.0.0.1:8301"
    two.receive(one.message(at(0)), at(0), age=0.0, dialled="one.internal:8301")
    two.receive(one.message(at(1)), at(1), age=5.0)
    assert two.members(at(1))[1].address == "one.internal:8301"


def test_we_are_no_peer_of_ours() -> None:
    one = cluster(1)
    one.receive(one.message(at(0)), at(0), age=0.0, dialled="me:1")
    assert [m.address for m in one.members(at(0))] == ["10.0.0.1:8301"]


def test_two_halves_agree_again_after_a_division() -> None:
    one, two = cluster(1), cluster(2)
    one.advance(at(0))
    exchange(two, one, at(0))
    for second in range(1, 2 * INTERVAL):
        one.advance(at(second))
        two.advance(at(second))
    assert publics(one) != publics(two)
    exchange(two, one, at(2 * INTERVAL))
    assert publics(one) == publics(two)
    now = at(2 * INTERVAL).now
    offered = one.keyring.active(now)
    assert offered is not None
    assert offered.public_key == two.keyring.active(now).public_key  # type: ignore[union-attr]


def test_a_known_key_is_not_changed_by_what_others_say_of_it() -> None:
    one, two = cluster(1), cluster(2)
    one.advance(at(0))
    said = one.message(at(0))
    changed = [
        dataclasses.replace(key, expire_at=key.expire_at + 500, stale_at=key.stale_at + 400)
        for key in said.keys
    ]
    assert two.receive(said, at(0), age=0.0)
    before = set(two.keyring)
    assert not two.receive(dataclasses.replace(said, keys=tuple(changed)), at(1), age=0.0)
    assert set(two.keyring) == before


def test_expired_keys_are_dropped_and_not_taken_in() -> None:
    one, two = cluster(1), cluster(2, booted=False)
    said = dataclasses.replace(one.message(at(0)), keys=(shared(-200.0), shared(-199.0)))
    assert two.receive(said, at(0), age=0.0)
    assert statuses(two, at(0)) == ["Stale"]
    two.advance(at(1))
    assert len(two.keyring) == 0


def test_a_key_of_the_far_future_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    one = cluster(1)
    near = shared(0.0, (MAX_KEY_LIFE_S - 10) / 2)
    far = shared(0.0, (MAX_KEY_LIFE_S + 10) / 2)
    for _ in range(3):
        one.receive(
            dataclasses.replace(cluster(2).message(at(0)), keys=(far, near)), at(0), age=0.0
        )
    assert len(one.keyring) == 1
    assert caplog.text.count("left out") == 1


def test_a_ring_that_is_full_takes_no_more(caplog: pytest.LogCaptureFixture) -> None:
    one = cluster(1)
    for _ in range(2):
        keys = tuple(shared() for _ in range(MAX_CLUSTER_KEYS - 4))
        one.receive(dataclasses.replace(cluster(2).message(at(0)), keys=keys), at(0), age=0.0)
        assert len(one.keyring) <= MAX_CLUSTER_KEYS
    assert "more than 64 keys" in caplog.text
    assert not one.advance(at(1)), "a full ring gets no key of our own either"


def test_more_members_than_a_cluster_has_are_not_remembered() -> None:
    one = cluster(1)
    for batch in range(2):
        heard = tuple(
            HeardMember(node(batch * 1000 + number + 5), 0.0, "") for number in range(MAX_MEMBERS)
        )
        one.receive(dataclasses.replace(cluster(2).message(at(0)), members=heard), at(0), age=0.0)
    assert len(one.members(at(0))) == MAX_MEMBERS
    assert len(one.message(at(0)).members) < MAX_MEMBERS


def p256() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("der", "complaint"),
    [(b"\x00" * 48, "no PKCS#8 private key"), (p256(), "another kind than X25519")],
)
def test_a_message_with_a_wrong_key_changes_nothing(der: bytes, complaint: str) -> None:
    one = cluster(1)
    said = dataclasses.replace(cluster(2).message(at(0)), keys=(shared(), shared(der=der)))
    with pytest.raises(RemoteProtocolError, match=complaint) as caught:
        one.receive(said, at(0), age=0.0)
    assert caught.value.__cause__ is None
    assert len(one.keyring) == 0
    assert len(one.members(at(0))) == 1


def test_another_rotation_interval_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    one, two = cluster(1), Cluster(node(2), "10.0.0.2:8301", 200)
    for second in range(3):
        one.receive(two.message(at(second)), at(second), age=0.0)
    assert caplog.text.count("give all members the same") == 1


def test_who_follows_makes_a_key_when_no_leader_does() -> None:
    """The leader's clock is two hours behind: its keys have expired here."""
    leader, other = cluster(1), cluster(2)
    leader.advance(at(0))
    for second in range(60):
        exchange(other, leader, at(second, 7200.0), skew=-7200.0)
        leader.advance(at(second))
        other.advance(at(second, 7200.0))
        assert (other.keyring.active(at(second, 7200.0).now) is None) == (second < MEMBER_TIMEOUT_S)


def test_no_log_line_has_a_private_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    one, two = cluster(1), cluster(2)
    one.advance(at(0))
    exchange(two, one, at(0))
    told = caplog.text + repr(one.message(at(0)))
    for key in one.keyring:
        assert key.public_key[:8].hex() in caplog.text
        assert key.private.private_bytes_raw().hex() not in told
        assert repr(key.private.private_bytes_raw())[2:-1] not in told


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 60)), max_size=30))
def test_whoever_talks_to_whom_nobody_is_without_a_key(
    talks: list[tuple[int, int, int]],
) -> None:
    """Any pattern of exchanges and silences, between three that began together."""
    nodes = [cluster(number) for number in (1, 2, 3)]
    nodes[0].advance(at(0))
    for other in nodes[1:]:
        exchange(other, nodes[0], at(0))
    second = 0
    for one, other, pause in talks:
        for _ in range(pause):
            second += 1
            for member in nodes:
                member.advance(at(second))
                if member.is_leader(at(second)):
                    assert member.keyring.active(at(second).now) is not None
                assert len(member.keyring) <= MAX_CLUSTER_KEYS
        if one != other:
            exchange(nodes[one], nodes[other], at(second))
    for one in nodes:
        for other in nodes:
            if one is not other:
                exchange(one, other, at(second))
    assert publics(nodes[0]) == publics(nodes[1]) == publics(nodes[2])
    moment = at(second)
    for key in nodes[0].keyring.unexpired(moment.now):
        assert key.status(moment.now) is not KeyStatus.EXPIRED
