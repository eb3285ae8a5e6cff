"""Gateways inside the test's own process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tng.attest.verifier.base import Verifier
from tng.clock import SystemClock
from tng.config.loader import prepare_config
from tng.gateway.app import Gateway
from tng.gateway.entries import Trust
from tng.tunnel.rats_tls.identity import Source

_PORTS = range(10_000, 32_768)
"""Below those that Linux gives to outgoing connections, which would take one before it is used."""

_given: set[int] = set()


def free_port() -> int:
    """A port of loopback that was free a moment ago, and another one at every call."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


@asynccontextmanager
async def serving(
    config: dict[str, object], judge: Verifier | None = None, source: Source | None = None
) -> AsyncIterator[Gateway]:
    """Run a gateway in the block.

    Args:
        config: what `tng launch` would be given.
        judge: takes the place of every judge that the configuration names.
        source: takes the place of every source of certificates.
    """
    trust = Trust()
    if judge is not None:
        trust = dataclasses.replace(trust, make_verifier=lambda _verify, _clock: judge)
    if source is not None:
        trust = dataclasses.replace(trust, make_source=lambda _attest, _clock: source)
    gateway = Gateway(prepare_config(json.dumps(config)), SystemClock(), trust)
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.serve)
        while source is not None and gateway.not_ready():
            await trio.sleep(0.01)
        try:
            yield gateway
        finally:
            nursery.cancel_scope.cancel()


def listen(port: int) -> dict[str, object]:
    """A listening address of a configuration."""
    return {"host": "127.0.0.1", "port": port}


def mapping(port: int, target: int) -> dict[str, object]:
    """A mapping of one loopback port to another."""
    return {"mapping": {"in": listen(port), "out": listen(target)}}


def http_proxy(port: int) -> dict[str, object]:
    """An HTTP proxy on a loopback port."""
    return {"http_proxy": {"proxy_listen": listen(port)}}
