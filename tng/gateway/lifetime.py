"""From start to the last word: serve until a signal, drain, and end.

In: something that serves.  Out: nothing; returning means that it ended in order.
The first SIGTERM or SIGINT drains, the second one cuts what is left.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import trio

from tng import __version__

log = logging.getLogger(__name__)


class Service(Protocol):
    """Something with a beginning, and an end that may be slow."""

    @property
    def entries(self) -> Sequence[object]:
        """What is served, one per entry of the configuration."""
        ...

    @property
    def dangers(self) -> list[str]:
        """What the configuration leaves unchecked, in words."""
        ...

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; what is then in flight is cut."""
        ...

    async def drain(self) -> None:
        """Take nothing new, and wait for what is in flight, up to a deadline."""
        ...


async def run_until_signalled(service: Service) -> None:
    """Serve until a signal says stop; then drain.

    Raises:
        StartError: a listener cannot be bound.
        TngError: it cannot go on serving.
    """
    log.info("tng-gateway %s starting pid=%d", __version__, os.getpid())
    for danger in service.dangers:
        log.warning("DANGEROUS by configuration: %s", danger)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            # Beside the wait for a signal: a start that takes long can be called off.
            nursery.start_soon(_start, service, nursery)
            received = await anext(signals)
            log.info("Instance cancelled by %s", signal.Signals(received).name)
            await _drain_unless_hurried(service, signals)
            nursery.cancel_scope.cancel()
    log.info("Exited gracefully")


async def _start(service: Service, nursery: trio.Nursery) -> None:
    await nursery.start(service.serve)
    log.info("All services are ready service_count=%d", len(service.entries))


async def _drain_unless_hurried(service: Service, signals: AsyncIterator[int]) -> None:
    async def drain(scope: trio.CancelScope) -> None:
        await service.drain()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain, nursery.cancel_scope)
        await anext(signals)
        log.warning("second signal: streams in flight are cut")
        nursery.cancel_scope.cancel()
