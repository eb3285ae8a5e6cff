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

from tng.attest.statement_source import StatementSource
from tng.attest.verifier.base import StatementVerifier
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
    config: dict[str, object],
    judge: StatementVerifier | None = None,
    source: Source | None = None,
    statements: StatementSource | None = None,
) -> AsyncIterator[Gateway]:
    """Run a gateway in the block.

    Args:
        config: what `tng launch` would be given.
        judge: takes the place of every judge that the configuration names.
        source: takes the place of every source of certificates.
        statements: takes the place of every source of statements over OHTTP.
    """
    trust = Trust()
    if judge is not None:
        trust = dataclasses.replace(trust, make_verifier=lambda _verify, _clock: judge)
    if source is not None:
        trust = dataclasses.replace(trust, make_source=lambda _attest, _clock: source)
    if statements is not None:
        trust = dataclasses.replace(trust, make_statement_source=lambda _attest, _clock: statements)
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


@asynccontextmanager
async def ohttp_egress(
    target: int,
    judge: StatementVerifier | None = None,
    statements: StatementSource | None = None,
    ohttp: dict[str, object] | None = None,
    **entry: object,
) -> AsyncIterator[tuple[Gateway, int]]:
    """An OHTTP egress in front of a port of loopback, and its own port.

    Args:
        target: the service's port.
        judge: see `serving`.
        statements: see `serving`.
        ohttp: the entry's `ohttp`.
        entry: the rest of the entry; without `attest` and `verify`, `no_ra` is added.
    """
    port = free_port()
    trust = {} if "attest" in entry or "verify" in entry else {"no_ra": True}
    config = {**mapping(port, target), "ohttp": ohttp or {}, **trust, **entry}
    async with serving({"add_egress": [config]}, judge, statements=statements) as gateway:
        yield gateway, port


@asynccontextmanager
async def ohttp_ingress(
    target: int,
    judge: StatementVerifier | None = None,
    statements: StatementSource | None = None,
    ohttp: dict[str, object] | None = None,
    **entry: object,
) -> AsyncIterator[tuple[Gateway, int]]:
    """An OHTTP ingress whose mapping leads to a port of loopback; as `ohttp_egress`."""
    port = free_port()
    trust = {} if "attest" in entry or "verify" in entry else {"no_ra": True}
    config = {**mapping(port, target), "ohttp": ohttp or {}, **trust, **entry}
    async with serving({"add_ingress": [config]}, judge, statements=statements) as gateway:
        yield gateway, port
