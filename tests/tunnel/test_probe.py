"""`probe` judges a live egress, and raises what it finds as it is."""

from __future__ import annotations

import pytest

from stage.gateways import free_port, mapping, serving
from stage.judges import Judge, Refusing
from tng.clock import SystemClock
from tng.endpoint import Endpoint
from tng.errors import NetError, UntrustedPeerError
from tng.tunnel.rats_tls.probe import probe
from tng.verdict import AttestedPeer


async def test_an_egress_is_judged_and_its_service_hears_nothing() -> None:
    port = free_port()
    async with serving({"add_egress": [{**mapping(port, 1), "no_ra": True}]}) as egress:
        peer = await probe(Endpoint("127.0.0.1", port), Judge(), SystemClock())
        assert isinstance(peer, AttestedPeer)
        with pytest.raises(UntrustedPeerError) as caught:
            await probe(Endpoint("127.0.0.1", port), Refusing(), SystemClock())
        assert caught.value.verdict is not None
        assert egress.entries[0].meter.cx_total == 0


async def test_nobody_there_is_a_plain_network_error() -> None:
    with pytest.raises(NetError, match="cannot connect"):
        await probe(Endpoint("127.0.0.1", 1), Judge(), SystemClock())
