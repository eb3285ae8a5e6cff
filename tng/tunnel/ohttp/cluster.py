"""One member of a cluster of egresses that share HPKE keys, without its sockets: `Cluster`.

Messages of other members and the time in, keys and messages out:

    cluster = Cluster(node_id, "10.0.0.1:8301", interval=300)
    cluster.receive(message, moment)          # what another member said
    cluster.boot()                            # there is no cluster to get keys from
    cluster.advance(moment)                   # lead, if it is on us
    cluster.message(moment)                   # what we say

Theory of operation.  Every member tells every peer all its keys, and takes from what it is told
those that it does not know.  So members differ only by keys that are on their way, and a key is
made a whole interval before it is offered (Pending): by then everybody has it.  The member with
the smallest id among those alive makes it.  Two that both think themselves the smallest make
one key each; both keys reach everybody, and `Keyring.active` gives everybody the same one.

Source: states, times and rules are those of TNG 2.12's `peer_shared`; the messages between
members are our own (`tng.wire.ohttp_cluster`).

Invariant: a key is never changed and never taken back before it expires, there are at most
`MAX_CLUSTER_KEYS`, and a refused message changes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from tng.errors import RemoteProtocolError
from tng.tunnel.ohttp.keyring import Key, Keyring, KeyStatus, make_key, short_name
from tng.wire.ohttp_cluster import (
    MAX_CLUSTER_KEYS,
    MAX_MEMBERS,
    ClusterMessage,
    HeardMember,
    SharedKey,
)

log = logging.getLogger(__name__)

EXCHANGE_TIMEOUT_S: Final = 5.0
"""Seconds after which a sender gives up; no message that is read is older."""

MEMBER_TIMEOUT_S: Final = 15.0
"""Seconds without a word after which a member is no more: several exchanges and one timeout."""

MAX_KEY_LIFE_S: Final = 3 * 31_536_000.0 + 86400
"""Seconds from now until a key may expire: pending, active and stale for the longest interval,
and a day by which clocks may differ."""

_CLUSTER_KEY_ID: Final = 0  # of every key, as TNG has it; a request names its key by the hint


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time on two clocks.

    Attributes:
        now: Unix time, seconds; keys live by it.
        steady: monotonic time, seconds; members live by it.
    """

    now: float
    steady: float


@dataclass(frozen=True, slots=True)
class Member:
    """Another node that lives.

    Attributes:
        node_id: UUID, lower case.
        address: `host:port` for people, or "".
        heard_at: monotonic time by which somebody had heard from it, seconds.
    """

    node_id: str
    address: str
    heard_at: float


class Cluster:
    """What one member knows.

    Args:
        node_id: our UUID, lower case; a new one for each start.
        address: where we listen, for people.
        interval: seconds for which a key is pending, active and stale.
    """

    def __init__(self, node_id: str, address: str, interval: int) -> None:
        self._node_id = node_id
        self._address = address
        self._interval = interval
        self._members: dict[str, Member] = {}
        self._keyring = Keyring()
        self._is_booted = False
        self._inactive_since: float | None = None
        """Monotonic time since which no key has been active."""
        self._warned: set[str] = set()

    @property
    def node_id(self) -> str:
        """Our UUID."""
        return self._node_id

    @property
    def keyring(self) -> Keyring:
        """The keys of now; any thread may read it."""
        return self._keyring

    def members(self, moment: Moment) -> list[Member]:
        """Everybody alive, ourselves first."""
        alive = (m for m in self._members.values() if _is_alive(m, moment))
        return [Member(self._node_id, self._address, moment.steady), *alive]

    def is_leader(self, moment: Moment) -> bool:
        """Whether nobody alive has a smaller id than we."""
        return min(member.node_id for member in self.members(moment)) == self._node_id

    def message(self, moment: Moment) -> ClusterMessage:
        """What we tell a peer."""
        members = tuple(
            HeardMember(m.node_id, max(0.0, moment.steady - m.heard_at), m.address)
            for m in self.members(moment)[1:]
        )
        keys = tuple(_share(key) for key in self._keyring.unexpired(moment.now))
        return ClusterMessage(self._node_id, self._address, self._interval, members, keys)

    def receive(
        self, message: ClusterMessage, moment: Moment, *, age: float, dialled: str = ""
    ) -> bool:
        """Take in what another member says.

        Args:
            message: what it said.
            moment: when it arrived.
            age: seconds by which the message may be older, at most.
            dialled: address at which we asked it, or "".

        Returns:
            Whether there was a key that we had not.

        Raises:
            RemoteProtocolError: a key in it is no X25519 key; nothing was taken.
        """
        keys = [_take(shared) for shared in message.keys]
        self._warn_of_interval(message)
        self._members = {m.node_id: m for m in self.members(moment)[1:]}
        if dialled:
            self._forget_former(message.node_id, dialled)
        self._hear(message.node_id, dialled or message.address, moment.steady, known=not dialled)
        for member in message.members:
            heard_at = moment.steady - member.age - age
            if moment.steady - heard_at < MEMBER_TIMEOUT_S:
                self._hear(member.node_id, member.address, heard_at, known=True)
        return self._merge(keys, moment)

    def boot(self) -> None:
        """Begin a cluster: from now on make keys when leading, also where there are none."""
        self._is_booted = True

    def advance(self, moment: Moment) -> bool:
        """Drop what has expired; make the key that is due, if it is on us.

        Returns:
            Whether a key was made, which peers should hear of soon.
        """
        usable = self._keyring.unexpired(moment.now)
        made: list[Key] = []
        if self._is_booted and self._acts(moment):
            ring = self._keyring
            while (begins := _due(ring, moment.now)) is not None:
                made.append(self._make(begins))
                ring = Keyring([*usable, *made])
        if made or len(usable) != len(self._keyring):
            self._keyring = Keyring([*usable, *made])
        return bool(made)

    def _acts(self, moment: Moment) -> bool:
        """Whether making keys is on us: as the leader, or because no leader makes any."""
        if self._keyring.active(moment.now) is not None:
            self._inactive_since = None
        elif self._inactive_since is None:
            self._inactive_since = moment.steady
        return (
            self.is_leader(moment)
            or self._is_late(moment)
            or (
                self._inactive_since is not None
                and moment.steady - self._inactive_since >= MEMBER_TIMEOUT_S
            )
        )

    def _is_late(self, moment: Moment) -> bool:
        """Whether the leader has left out the next key: it may have died a moment ago.

        A leader makes it an interval ahead; the others wait for half of that.
        """
        active = self._keyring.active(moment.now)
        begins = _due(self._keyring, moment.now)
        return (
            active is not None and begins is not None and begins - moment.now <= self._interval / 2
        )

    def _forget_former(self, node_id: str, address: str) -> None:
        """Whoever answered there before has been started anew, under another id."""
        self._members = {
            member.node_id: member
            for member in self._members.values()
            if member.address != address or member.node_id == node_id
        }

    def _make(self, begins: float) -> Key:
        key = make_key(_CLUSTER_KEY_ID, X25519PrivateKey.generate(), begins, self._interval)
        log.info("OHTTP key made for the cluster public_key=%s", short_name(key.public_key))
        return key

    def _merge(self, keys: list[Key], moment: Moment) -> bool:
        usable = self._keyring.unexpired(moment.now)
        known = {key.public_key for key in usable}
        taken: list[Key] = []
        for key in keys:
            if key.public_key in known or not moment.now < key.expire_at:
                continue
            if key.expire_at > moment.now + MAX_KEY_LIFE_S:
                self._warn(f"a key expires in more than {MAX_KEY_LIFE_S:.0f} s; left out")
            elif len(usable) + len(taken) >= MAX_CLUSTER_KEYS:
                self._warn(f"there are more than {MAX_CLUSTER_KEYS} keys; the rest is left out")
            else:
                known.add(key.public_key)
                taken.append(key)
        if taken:
            names = ",".join(short_name(key.public_key) for key in taken)
            log.info("OHTTP keys learned from the cluster public_keys=%s", names)
            self._keyring = Keyring([*usable, *taken])
            self._is_booted = True
        return bool(taken)

    def _hear(self, node_id: str, address: str, heard_at: float, *, known: bool) -> None:
        """Note that a member lives.

        Args:
            node_id: which.
            address: where it is said to listen.
            heard_at: monotonic time, seconds.
            known: whether an address that we have already is better than this one.
        """
        old = self._members.get(node_id)
        if node_id == self._node_id or (old is None and len(self._members) >= MAX_MEMBERS - 1):
            return
        if old is not None:
            heard_at = max(heard_at, old.heard_at)
            address = old.address if known and old.address else address
        self._members[node_id] = Member(node_id, address, heard_at)

    def _warn_of_interval(self, message: ClusterMessage) -> None:
        if message.rotation_interval != self._interval:
            self._warn(
                f"rotation_interval is {message.rotation_interval} s at {message.address!r} and "
                f"{self._interval} s here; give all members the same"
            )

    def _warn(self, complaint: str) -> None:
        """Say it once; a cluster has few things to complain about, and says all every second."""
        if complaint not in self._warned and len(self._warned) < MAX_MEMBERS:
            self._warned.add(complaint)
            log.warning("OHTTP key cluster: %s", complaint)


def _is_alive(member: Member, moment: Moment) -> bool:
    return moment.steady - member.heard_at < MEMBER_TIMEOUT_S


def _due(ring: Keyring, now: float) -> float | None:
    """Unix time from which the key is to be offered that is missing now; None if none is."""
    if len(ring) >= MAX_CLUSTER_KEYS:
        return None
    active = [key for key in ring if key.status(now) is KeyStatus.ACTIVE]
    if not active:
        return now
    if any(key.status(now) is KeyStatus.PENDING for key in ring):
        return None
    return max(key.stale_at for key in active)


def _share(key: Key) -> SharedKey:
    secret = key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SharedKey(key.key_id, secret, key.actived_at, key.stale_at, key.expire_at)


def _take(shared: SharedKey) -> Key:
    try:
        private = load_der_private_key(shared.secret, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        # Without the cause: what another library says about a secret is not ours to pass on.
        raise RemoteProtocolError(
            f"cluster key is no PKCS#8 private key ({type(exc).__name__})"
        ) from None
    if not isinstance(private, X25519PrivateKey):
        raise RemoteProtocolError("cluster key is a private key of another kind than X25519")
    public = private.public_key().public_bytes_raw()
    return Key(shared.key_id, private, public, shared.actived_at, shared.stale_at, shared.expire_at)
