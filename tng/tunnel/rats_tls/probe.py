"""Judge a live egress without sending it anything (trio side)."""

from __future__ import annotations

from typing import Final

import trio

from tng.attest.verifier.base import Verifier
from tng.clock import Clock
from tng.dataplane.reactor import Reactor
from tng.endpoint import Endpoint
from tng.errors import TngError
from tng.tunnel.base import Peer
from tng.tunnel.bridge import Bridge
from tng.tunnel.dialer import Dialer
from tng.tunnel.rats_tls.client import ClientOptions, RatsTlsClient
from tng.tunnel.rats_tls.pool import PoolLimits

_STOP_TIMEOUT_S: Final = 2.0


async def probe(destination: Endpoint, verifier: Verifier, clock: Clock) -> Peer:
    """Connect to `destination`, judge its certificate, and close.

    Raises:
        NetError: nobody there.
        RemoteProtocolError: what answers does not speak TNG.
        UntrustedPeerError: judged and refused; its verdict lists the checks.
        AppraiserError: the attestation service could not be asked.
    """
    reactor = Reactor()
    bridge = Bridge(reactor)
    client = RatsTlsClient(
        reactor,
        bridge,
        Dialer(reactor, bridge),
        ClientOptions(None, PoolLimits()),
        None,
        verifier,
        clock,
    )
    outcome: Peer | TngError
    reactor.start()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(bridge.run)
            nursery.start_soon(verifier.run)
            future = reactor.spawn_threadsafe(client.probe(destination), "probe")
            try:
                outcome = await trio.to_thread.run_sync(future.result)
            except TngError as error:
                outcome = error  # raised outside: a nursery would wrap it
            nursery.cancel_scope.cancel()
    finally:
        reactor.stop(_STOP_TIMEOUT_S)
    if isinstance(outcome, TngError):
        raise outcome
    return outcome
