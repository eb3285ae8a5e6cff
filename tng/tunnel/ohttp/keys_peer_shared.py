"""Keys that egresses behind one name share with each other: the source `peer_shared`.

The settings and a way to peers in, the keys of the cluster out.  Each node tells each peer all
its keys every two seconds, and at once when it has made one; the answer brings the peer's.
`tunnel.ohttp.cluster` decides what follows from it.

Source: TNG 2.12, `peer_shared`: same settings, states and status.  The exchange between nodes is
our own, so all nodes of a cluster are of this implementation; `directory` is the bridge to others.

Invariant: no key is made before every peer has answered, unless a peer has brought some: nodes
that start together begin with the same keys.  Keys are in memory alone.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Final

import trio

from tng.clock import Clock
from tng.config.ohttp import OhttpKey
from tng.endpoint import Endpoint
from tng.errors import StartError, TngError
from tng.tunnel.ohttp.cluster import EXCHANGE_TIMEOUT_S, Cluster, Moment
from tng.tunnel.ohttp.keyring import Keyring, dump_time
from tng.tunnel.ohttp.peer_list import PeerList
from tng.tunnel.ohttp.peer_transport import PeerTransport
from tng.wire.ohttp_cluster import dump_cluster_message, parse_cluster_message

log = logging.getLogger(__name__)

EXCHANGE_INTERVAL_S: Final = 2.0
"""Seconds between two questions to one peer."""

LOOK_S: Final = 1.0
"""Seconds between two looks at the clock; a quarter of a rotation interval that is short."""

FIND_TIMEOUT_S: Final = 3.0
"""Seconds that a request waits while peers are asked for the key that it names."""

FIND_INTERVAL_S: Final = 1.0
"""Seconds between two such questions: requests with invented keys must not flood peers."""

DEFAULT_PREBOOT_TIMEOUT_S: Final = 300.0
"""Seconds that all peers may be there and none has keys; as long as joining may take."""


class PeerSharedKeys:
    """The source of keys that a cluster shares.

    Args:
        settings: the object `ohttp.key`, of source `peer_shared`.
        clock: the time of day.
        transport: carries messages to and from peers that it has judged.
        where: path of the object in the configuration, for messages.
        node_id: our UUID, lower case; None for a new one.
    """

    def __init__(
        self,
        settings: OhttpKey,
        clock: Clock,
        transport: PeerTransport,
        where: str,
        node_id: str | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._transport = transport
        self._peers = PeerList(settings.peers, settings.peers_file, f"{where}.peers_file")
        interval = settings.rotation_interval or 0
        self._look_s = min(LOOK_S, interval / 4)
        self._cluster = Cluster(
            node_id or str(uuid.uuid4()), str(Endpoint(settings.host, settings.port)), interval
        )
        self._answered: set[str] = set()
        """Peers that have answered at least once."""
        self._failures: dict[str, str] = {}
        """Why the last exchange with a peer failed; none for those that answer."""
        self._under_way: set[str] = set()
        self._heard = trio.Event()
        """Set when a message came in, and replaced."""
        self._news = trio.Event()
        """Set when peers should hear from us at once, and replaced."""
        self._finding = trio.Lock()
        self._found_at = float("-inf")

    @property
    def keyring(self) -> Keyring:
        """The keys of now; any thread may read it."""
        return self._cluster.keyring

    @property
    def not_ready(self) -> str | None:
        """Why no key can be offered to clients, or None when one can."""
        if self.keyring.active(self._clock.now()) is not None:
            return None
        return f"no OHTTP key is active; peers that have not answered: {self._missing()}"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join the peers, share keys with them until cancelled.

        Raises:
            ConfigError: the list of peers cannot be read.
            StartError: the address cannot be bound, a peer did not answer in time, or all
                answered and nobody has keys.
        """
        self._peers.read_first()
        failure: TngError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(self._transport.serve, self._answer)
                nursery.start_soon(self._keep_exchanging)
                await self._join()
                await self._preboot()
            except TngError as exc:
                failure = exc  # raised below: out of a nursery it would come as a group
                nursery.cancel_scope.cancel()
            else:
                nursery.start_soon(self._keep_current)
                task_status.started()
        if failure is not None:
            raise failure

    def status(self, now: float) -> dict[str, object]:
        """What the control interface shows: public keys, and who lives."""
        moment = Moment(now, trio.current_time())
        node_id = self._cluster.node_id
        return {
            "key_manager_type": "peer_shared",
            "keys": [
                {
                    "source_node_id": node_id,
                    "key_id": key.key_id,
                    "public_key": key.public_key.hex(),
                    "status": key.status(now).value,
                    "expire_at": dump_time(key.expire_at),
                }
                for key in self.keyring.unexpired(now)
            ],
            "cluster": {
                "node_id": node_id,
                "members": [
                    {"node_id": f"{member.node_id}({member.address})", "status": "alive"}
                    for member in self._cluster.members(moment)
                ],
            },
        }

    async def find_elsewhere(self, public_key: bytes) -> bool:
        """Ask every peer at once; several requests wait for one question.

        Returns:
            Whether the key is there now.
        """
        async with self._finding:
            if not self._has(public_key) and self._may_ask():
                with trio.move_on_after(FIND_TIMEOUT_S):
                    async with trio.open_nursery() as nursery:
                        for peer in self._peers.current:
                            nursery.start_soon(self._exchange, peer)
        return self._has(public_key)

    def _has(self, public_key: bytes) -> bool:
        return self.keyring.find(public_key, self._clock.now()) is not None

    def _may_ask(self) -> bool:
        at = trio.current_time()
        if at - self._found_at < FIND_INTERVAL_S:
            return False
        self._found_at = at
        return True

    async def _join(self) -> None:
        with trio.move_on_after(self._settings.join_timeout):
            await self._wait_until(lambda: not self._missing() or self._is_active())
            return
        told = "; ".join(f"{peer}: {self._failures.get(peer, '')}" for peer in self._missing())
        raise StartError(
            f"expected every peer to answer within {self._settings.join_timeout} s "
            f"(join_timeout), no answer from {told}"
        )

    async def _preboot(self) -> None:
        """Get keys from a peer, or make the first ones if that is on us."""
        limit = self._settings.preboot_timeout or DEFAULT_PREBOOT_TIMEOUT_S
        with trio.move_on_after(limit):
            await self._wait_until(
                lambda: self._is_active() or self._cluster.is_leader(self._moment())
            )
            self._cluster.boot()
            self._advance()
            return
        raise StartError(
            f"expected keys from a peer within {limit:.0f} s (preboot_timeout), "
            f"all peers answered and none has any"
        )

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds; it is looked at after each message, and when members may die."""
        while not condition():
            with trio.move_on_after(EXCHANGE_INTERVAL_S):
                await self._heard.wait()

    async def _keep_current(self) -> None:
        while True:
            await trio.sleep(self._look_s)
            self._advance()

    def _advance(self) -> None:
        if self._cluster.advance(self._moment()):
            self._news.set()

    async def _keep_exchanging(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._peers.look()
                for peer in self._peers.current:
                    if peer not in self._under_way:
                        nursery.start_soon(self._exchange, peer)
                with trio.move_on_after(EXCHANGE_INTERVAL_S):
                    await self._news.wait()
                    self._news = trio.Event()

    async def _exchange(self, peer: str) -> None:
        """Tell a peer what we know, and take in what it answers."""
        self._under_way.add(peer)
        asked = trio.current_time()
        try:
            with trio.fail_after(EXCHANGE_TIMEOUT_S):
                said = await self._transport.exchange(peer, self._message())
            self._take(said, age=trio.current_time() - asked, dialled=peer)
        except trio.TooSlowError:
            self._note_failure(peer, f"no answer within {EXCHANGE_TIMEOUT_S:.0f} s")
        except TngError as exc:
            self._note_failure(peer, str(exc))
        else:
            self._answered.add(peer)
            if self._failures.pop(peer, None) is not None:
                log.info("OHTTP key peer answers peer=%s", peer)
            self._tell_waiting()
        finally:
            self._under_way.discard(peer)

    async def _answer(self, body: bytes) -> bytes:
        """What a peer that asked us gets (`PeerTransport.serve` calls it)."""
        await trio.lowlevel.checkpoint()
        self._take(body, age=EXCHANGE_TIMEOUT_S, dialled="")
        self._tell_waiting()
        return self._message()

    def _take(self, data: bytes, *, age: float, dialled: str) -> None:
        message = parse_cluster_message(data)
        self._cluster.receive(message, self._moment(), age=age, dialled=dialled)

    def _message(self) -> bytes:
        return dump_cluster_message(self._cluster.message(self._moment()))

    def _tell_waiting(self) -> None:
        self._heard.set()
        self._heard = trio.Event()

    def _note_failure(self, peer: str, failure: str) -> None:
        if self._failures.get(peer) != failure:
            log.warning("OHTTP key peer does not answer peer=%s: %s", peer, failure)
        self._failures[peer] = failure

    def _missing(self) -> list[str]:
        return [peer for peer in self._peers.current if peer not in self._answered]

    def _is_active(self) -> bool:
        return self.keyring.active(self._clock.now()) is not None

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), trio.current_time())
