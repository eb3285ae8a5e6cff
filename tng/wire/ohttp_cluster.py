"""The message between egresses that share HPKE keys: who lives, and which keys there are.

    ClusterMessage <-> octets (Protocol Buffers, proto3)

    message ClusterMessage {
      string node_id = 1; string address = 2; uint64 rotation_interval = 3;  // seconds
      repeated Member members = 4; repeated KeyInfo keys = 5;
    }
    message Member  { string node_id = 1; uint64 age_ms = 2; string address = 3; }
    message KeyInfo { KeyConfig key_config = 1; Time actived_at = 2, stale_at = 3, expire_at = 4; }
    message KeyConfig { uint32 key_id = 1; uint32 kem = 2; bytes sk = 3; }   // PKCS#8 DER
    message Time    { uint64 seconds = 1; uint32 nanos = 2; }                // Unix time

The vocabulary is that of TNG 2.12's `peer_shared`; the message is our own.  Members are told with
an age and not with a time of day, so that clocks need not agree about who lives.

Invariant: octets that are no such message, or exceed a limit, end in `RemoteProtocolError`; no
private key shows in a repr or in an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final

from tng.errors import RemoteProtocolError
from tng.wire.protobuf import Field, dump_fields, last_bytes, last_number, last_text, parse_fields

MAX_MESSAGE: Final = 262_144
"""Octets of a message; the largest one within the limits below has about half."""

MAX_MEMBERS: Final = 256
"""Members of a cluster: as many as peers can be configured."""

MAX_CLUSTER_KEYS: Final = 64
"""Keys of a message: a cluster has three or four, and some more after it was divided."""

MAX_ADDRESS: Final = 300
"""Characters of an address: a DNS name, a colon and a port."""

_MAX_SECRET: Final = 256  # octets; an X25519 key in PKCS#8 has 48
_MAX_INTERVAL: Final = 31_536_000  # seconds, as the configuration has it
_MAX_AGE_MS: Final = 86_400_000
_LAST_SECOND: Final = 253_402_300_799  # year 9999
_NANOSECONDS: Final = 1_000_000_000
_KEM: Final = 0x0020  # DHKEM(X25519, HKDF-SHA256), RFC 9180 section 7.1
_NODE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class HeardMember:
    """A node that the sender knows of.

    Attributes:
        node_id: UUID, lower case.
        age: seconds since somebody last heard from it, 0 or more.
        address: `host:port` for people, or "".
    """

    node_id: str
    age: float
    address: str


@dataclass(frozen=True, slots=True)
class SharedKey:
    """One key with the times of its life.

    Attributes:
        key_id: 0 to 255.
        secret: X25519 private key, PKCS#8 DER; in no repr.
        actived_at: Unix time, seconds; see `tunnel.ohttp.keyring.Key`.
        stale_at: Unix time, seconds, not before `actived_at`.
        expire_at: Unix time, seconds, not before `stale_at`.
    """

    key_id: int
    secret: bytes = field(repr=False)
    actived_at: float
    stale_at: float
    expire_at: float


@dataclass(frozen=True, slots=True)
class ClusterMessage:
    """What one node tells another.

    Attributes:
        node_id: UUID of the sender, lower case.
        address: where the sender listens, for people, or "".
        rotation_interval: the sender's, seconds.
        members: others that the sender knows of.
        keys: every key that the sender holds.
    """

    node_id: str
    address: str
    rotation_interval: int
    members: tuple[HeardMember, ...]
    keys: tuple[SharedKey, ...]


def dump_cluster_message(message: ClusterMessage) -> bytes:
    """Write a message."""
    fields: list[Field] = [
        (1, message.node_id.encode()),
        (2, message.address.encode()),
        (3, message.rotation_interval),
    ]
    fields += [(4, _dump_member(member)) for member in message.members]
    fields += [(5, _dump_key(key)) for key in message.keys]
    return dump_fields(fields)


def parse_cluster_message(data: bytes) -> ClusterMessage:
    """Read a message.

    Raises:
        RemoteProtocolError: it is none, or exceeds a limit.
    """
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(
            f"cluster message has {len(data)} octets, at most {MAX_MESSAGE} are allowed"
        )
    fields = parse_fields(data)
    interval = last_number(fields, 3)
    if not 1 <= interval <= _MAX_INTERVAL:
        raise RemoteProtocolError(f"cluster message has a rotation interval of {interval} s")
    members = _messages(fields, 4, MAX_MEMBERS)
    keys = _messages(fields, 5, MAX_CLUSTER_KEYS)
    return ClusterMessage(
        node_id=_node_id(fields),
        address=_address(fields, 2),
        rotation_interval=interval,
        members=tuple(_parse_member(member) for member in members),
        keys=tuple(_parse_key(key) for key in keys),
    )


def _dump_member(member: HeardMember) -> bytes:
    age_ms = min(round(member.age * 1000), _MAX_AGE_MS)
    return dump_fields([(1, member.node_id.encode()), (2, age_ms), (3, member.address.encode())])


def _dump_key(key: SharedKey) -> bytes:
    config = dump_fields([(1, key.key_id), (2, _KEM), (3, key.secret)])
    times = (key.actived_at, key.stale_at, key.expire_at)
    return dump_fields([(1, config), *((2 + i, _dump_time(t)) for i, t in enumerate(times))])


def _dump_time(unix_time: float) -> bytes:
    # The whole seconds apart: a product with 1e9 would lose what the float still tells.
    seconds = math.floor(unix_time)
    nanoseconds = round((unix_time - seconds) * _NANOSECONDS)
    return dump_fields([(1, seconds), (2, min(nanoseconds, _NANOSECONDS - 1))])


def _parse_member(data: bytes) -> HeardMember:
    fields = parse_fields(data)
    age_ms = last_number(fields, 2)
    if age_ms > _MAX_AGE_MS:
        raise RemoteProtocolError(f"cluster member was heard {age_ms} ms ago, expected a day")
    return HeardMember(_node_id(fields), age_ms / 1000, _address(fields, 3))


def _parse_key(data: bytes) -> SharedKey:
    fields = parse_fields(data)
    config = parse_fields(last_bytes(fields, 1))
    key_id, kem, secret = last_number(config, 1), last_number(config, 2), last_bytes(config, 3)
    if key_id > 255 or kem != _KEM:
        raise RemoteProtocolError(f"cluster key has id {key_id} and KEM {kem}, expected {_KEM}")
    if not 1 <= len(secret) <= _MAX_SECRET:
        raise RemoteProtocolError(f"cluster key has {len(secret)} octets of PKCS#8")
    actived_at, stale_at, expire_at = (_parse_time(last_bytes(fields, 2 + i)) for i in range(3))
    if not actived_at <= stale_at <= expire_at:
        raise RemoteProtocolError("cluster key has times that are not in order")
    return SharedKey(key_id, secret, actived_at, stale_at, expire_at)


def _parse_time(data: bytes) -> float:
    fields = parse_fields(data)
    seconds, nanoseconds = last_number(fields, 1), last_number(fields, 2)
    if seconds > _LAST_SECOND or nanoseconds >= _NANOSECONDS:
        raise RemoteProtocolError("cluster key has a time that no calendar holds")
    return seconds + nanoseconds / _NANOSECONDS


def _messages(fields: list[Field], number: int, limit: int) -> list[bytes]:
    values = [value for key, value in fields if key == number]
    if len(values) > limit:
        raise RemoteProtocolError(
            f"cluster message has {len(values)} times field {number}, at most {limit} are allowed"
        )
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(values):
        raise RemoteProtocolError(f"cluster message field {number} is a number, expected octets")
    return found


def _node_id(fields: list[Field]) -> str:
    text = last_text(fields, 1)
    if not _NODE_ID.fullmatch(text):
        raise RemoteProtocolError("cluster node id is no UUID in lower case")
    return text


def _address(fields: list[Field], number: int) -> str:
    text = last_text(fields, number)
    if len(text) > MAX_ADDRESS or not text.isprintable():
        raise RemoteProtocolError(
            f"cluster address has more than {MAX_ADDRESS} characters or signs"
        )
    return text
