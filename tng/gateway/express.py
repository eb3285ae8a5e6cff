"""The express lane of an ingress: one client from its request to its relay without a task.

In: a client whose destination is known.  Out: an answer to it, and a relay; or the client back to
the ordinary way, as a task of `Flow`.

Theory of operation.  Most connections find a tunnel that stands and has been judged, are answered
by the egress within a millisecond, and move a few kilobytes.  For them a coroutine with its frames,
wake-ups and time limits costs more than all of the work.  So `Flow.carry` first asks the tunnel for
a stream at once (`tunnel.express`).  If there is one, its coroutine ends there and then, and a
`Passage` stands for the client until the peer has answered:

    request read -> Passage.begin -> (egress answers) -> tunnel_opened -> Flow.hand_over -> relay
                                  -> (egress refuses) -> tunnel_failed -> task: Flow.turn_away
                                  -> (connection lost) -> tunnel_failed -> task: Flow.carry_slowly

The lane decides nothing: which destinations are tunnelled is the router's word, a judged peer is
part of `Opened`, and the one place where a client hears that it is connected is `Flow.hand_over`,
which both lanes end in.  The time limit of the request is the pool's, that of the stream the
relay's.

Invariants: until `tunnel_opened` nothing is read from the client and nothing written to it; the
reactor counts a passage among its tasks, so that draining waits for it and stopping ends it; a
client is handed over, turned away or aborted, exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.errors import TngError
from tng.tunnel.base import Opened
from tng.tunnel.express import Asked, ExpressTunnel

if TYPE_CHECKING:
    from tng.gateway.flow import Accepted, Flow


class Passage:
    """One client that waits for the egress to answer.

    Args:
        flow: carries it on.
        accepted: the client.
    """

    __slots__ = ("_accepted", "_asked", "_flow")

    def __init__(self, flow: Flow, accepted: Accepted) -> None:
        self._flow = flow
        self._accepted = accepted
        self._asked: Asked | None = None

    @property
    def name(self) -> str:
        """For logs."""
        return f"{self._accepted.client.label} to {self._accepted.destination}"

    def begin(self, tunnel: ExpressTunnel) -> bool:
        """Ask for a stream; False, and nothing done, if there is no quick way."""
        self._asked = tunnel.open_nowait(self._accepted.destination, self)
        if self._asked is None:
            return False
        self._flow.meter.cx_active += 1
        self._flow.reactor.adopt(self)
        return True

    def tunnel_opened(self, opened: Opened) -> None:
        """See `Taker`."""
        flow = self._flow
        self._leave()
        flow.hand_over(self._accepted, opened, tunnelled=True)

    def tunnel_failed(self, error: TngError, *, is_final: bool) -> None:
        """See `Taker`."""
        flow, accepted = self._flow, self._accepted
        self._leave()
        if flow.reactor.is_stopping:
            accepted.client.abort()
        elif is_final:
            flow.spawn(accepted, flow.turn_away(accepted, error))
        else:
            flow.spawn(accepted, flow.carry_slowly(accepted))

    def cancel(self) -> None:
        """The reactor ends."""
        self.abandon()

    def abandon(self) -> None:
        """Leave at once."""
        asked = self._asked
        if asked is not None:
            asked.give_up()
            self._leave()
            self._accepted.client.abort()

    def _leave(self) -> None:
        self._asked = None
        self._flow.meter.cx_active -= 1
        self._flow.reactor.discard(self)
