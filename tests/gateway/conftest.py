"""A proxy in front of a scripted service, with and without a tunnel between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest

from stage.gateways import free_port, http_proxy, mapping, serving
from tng.gateway.app import Gateway

Through = Callable[[int], AbstractAsyncContextManager[tuple[Gateway, int, int]]]
"""Called with the service's port: the proxy's gateway, its port, and the port to ask for."""

NO_RA = {"no_ra": True}


@asynccontextmanager
async def _direct(port: int) -> AsyncIterator[tuple[Gateway, int, int]]:
    proxy = free_port()
    mode = http_proxy(proxy)
    mode["http_proxy"]["dst_filters"] = [{"domain": "tunnelled.example"}]  # type: ignore[index]
    async with serving({"add_ingress": [{**mode, **NO_RA}]}) as gateway:
        yield gateway, proxy, port


@asynccontextmanager
async def _tunnelled(port: int, multiplex: bool) -> AsyncIterator[tuple[Gateway, int, int]]:
    proxy, egress = free_port(), free_port()
    way = {"rats_tls": {"multiplex": multiplex}, **NO_RA}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving({"add_egress": [{**mapping(egress, port), **way}]}))
        gateway = await stack.enter_async_context(
            serving({"add_ingress": [{**http_proxy(proxy), **way}]})
        )
        yield gateway, proxy, egress


@pytest.fixture
def direct() -> Through:
    """The proxy connects to the service itself."""
    return _direct


@pytest.fixture(params=["direct", "raw", "multiplexed"])
def through(request: pytest.FixtureRequest) -> Through:
    """Every way from the proxy to the service."""
    if request.param == "direct":
        return _direct
    return lambda port: _tunnelled(port, multiplex=request.param == "multiplexed")
