"""The message between egresses that share keys: round trips, limits, garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import RemoteProtocolError
from tng.wire.ohttp_cluster import (
    MAX_ADDRESS,
    MAX_CLUSTER_KEYS,
    MAX_MEMBERS,
    MAX_MESSAGE,
    ClusterMessage,
    HeardMember,
    SharedKey,
    dump_cluster_message,
    parse_cluster_message,
)
from tng.wire.protobuf import dump_fields

NODE = "0f0e0d0c-0b0a-4908-8706-050403020100"
KEY = SharedKey(0, b"\x30" * 48, 1_795_311_622.8125, 1_795_311_922.8125, 1_795_312_222.8125)
MEMBER = HeardMember("00000000-0000-4000-8000-000000000000", 1.5, "10.0.0.1:8301")


def message(**changes: object) -> ClusterMessage:
    fields: dict[str, object] = {
        "node_id": NODE,
        "address": "[::1]:8301",
        "rotation_interval": 300,
        "members": (MEMBER,),
        "keys": (KEY,),
    }
    return ClusterMessage(**{**fields, **changes})  # type: ignore[arg-type]


seconds = st.floats(1e9, 4e9)
uuids = st.uuids().map(str)
addresses = st.text(st.characters(categories=["L", "N", "P"]), max_size=40)
keys = st.builds(
    lambda key_id, secret, times: SharedKey(key_id, secret, *sorted(times)),
    st.integers(0, 255),
    st.binary(min_size=1, max_size=256),
    st.tuples(seconds, seconds, seconds),
)
members = st.builds(
    HeardMember, uuids, st.integers(0, 86_400_000).map(lambda n: n / 1000), addresses
)


@given(
    st.builds(
        ClusterMessage,
        uuids,
        addresses,
        st.integers(1, 31_536_000),
        st.lists(members, max_size=4).map(tuple),
        st.lists(keys, max_size=4).map(tuple),
    )
)
def test_what_is_written_is_what_is_read(said: ClusterMessage) -> None:
    assert parse_cluster_message(dump_cluster_message(said)) == said


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_cluster_message(data)


@given(st.data())
def test_a_damaged_message_is_a_message_or_refused(data: st.DataObject) -> None:
    octets = bytearray(dump_cluster_message(message()))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        parse_cluster_message(bytes(octets))
    except RemoteProtocolError:
        return


def test_the_largest_message_is_taken() -> None:
    wide = "x" * MAX_ADDRESS
    largest = message(
        address=wide,
        members=(HeardMember(NODE, 86_400.0, wide),) * MAX_MEMBERS,
        keys=(SharedKey(255, b"s" * 256, KEY.actived_at, KEY.stale_at, KEY.expire_at),)
        * MAX_CLUSTER_KEYS,
    )
    data = dump_cluster_message(largest)
    assert len(data) < MAX_MESSAGE
    assert parse_cluster_message(data) == largest


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"node_id": NODE.upper()}, "is no UUID"),
        ({"node_id": ""}, "is no UUID"),
        ({"address": "x" * (MAX_ADDRESS + 1)}, "cluster address"),
        ({"address": "a\nb"}, "cluster address"),
        ({"rotation_interval": 0}, "rotation interval of 0 s"),
        ({"rotation_interval": 31_536_001}, "rotation interval"),
        ({"members": (MEMBER,) * (MAX_MEMBERS + 1)}, "257 times field 4"),
        ({"members": (HeardMember("x", 1.0, ""),)}, "is no UUID"),
        ({"keys": (KEY,) * (MAX_CLUSTER_KEYS + 1)}, "65 times field 5"),
        ({"keys": (SharedKey(256, b"s", 1.0, 2.0, 3.0),)}, "id 256"),
        ({"keys": (SharedKey(0, b"", 1.0, 2.0, 3.0),)}, "0 octets of PKCS#8"),
        ({"keys": (SharedKey(0, b"s" * 257, 1.0, 2.0, 3.0),)}, "257 octets of PKCS#8"),
        ({"keys": (SharedKey(0, b"s", 1.0, 3.0, 2.0),)}, "not in order"),
        ({"keys": (SharedKey(0, b"s", 3.0, 2.0, 4.0),)}, "not in order"),
        ({"keys": (SharedKey(0, b"s", 1.0, 2.0, 253_402_300_800.0),)}, "no calendar"),
    ],
)
def test_what_exceeds_a_limit_is_refused(changes: dict[str, object], complaint: str) -> None:
    data = dump_cluster_message(message(**changes))
    with pytest.raises(RemoteProtocolError, match=complaint):
        parse_cluster_message(data)


def test_a_message_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError, match="262145 octets"):
        parse_cluster_message(bytes(MAX_MESSAGE + 1))


def test_a_number_where_a_message_belongs_is_refused() -> None:
    data = dump_fields([(1, NODE.encode()), (3, 1), (5, 7)])
    with pytest.raises(RemoteProtocolError, match="field 5 is a number"):
        parse_cluster_message(data)


def test_a_member_of_long_ago_and_another_kem_are_refused() -> None:
    base = [(1, NODE.encode()), (3, 1)]
    member = dump_fields([(1, NODE.encode()), (2, 86_400_001)])
    with pytest.raises(RemoteProtocolError, match="heard 86400001 ms ago"):
        parse_cluster_message(dump_fields([*base, (4, member)]))
    config = dump_fields([(1, 0), (2, 16), (3, b"s")])
    with pytest.raises(RemoteProtocolError, match="KEM 16"):
        parse_cluster_message(dump_fields([*base, (5, dump_fields([(1, config)]))]))


def test_a_message_longer_ago_than_a_day_is_told_as_a_day() -> None:
    said = parse_cluster_message(
        dump_cluster_message(message(members=(HeardMember(NODE, 1e9, ""),)))
    )
    assert said.members[0].age == 86_400.0


def test_no_repr_shows_a_key() -> None:
    assert (
        "000" not in repr(message(keys=(SharedKey(0, b"000", 1.0, 2.0, 3.0),))).partition("keys")[2]
    )
