"""One program beside a gateway: started when the gateway listens, and both end together.

In: a gateway and a command.  Out: an exit status, of a signal n 128 + n (as shells have it).
Signals go on to the program, which decides what they mean.  If the gateway fails the program is
ended: it must not live on without what protects it.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import trio

from tng import __version__
from tng.errors import StartError
from tng.gateway.lifetime import Service

log = logging.getLogger(__name__)

FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals that are for the program."""

_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""A terminal sends these to all of its foreground processes, to the program as well."""

_LAST_OCTETS_S: Final = 5.0
"""Seconds, once the program has ended, for peers to take what it said last."""

_END_S: Final = 5.0
"""Seconds that the program has to end when the gateway has failed."""


async def run_beside(
    gateway: Service, command: Sequence[str], environment: Mapping[str, str]
) -> int:
    """Run the command while the gateway serves; its exit status.

    Raises:
        StartError: a listener cannot be bound, or the command cannot be run.
        TngError: the gateway has failed.
    """
    log.info("tng-gateway %s exec pid=%d", __version__, os.getpid())
    for danger in gateway.dangers:
        log.warning("DANGEROUS by configuration: %s", danger)
    with trio.open_signal_receiver(*FORWARDED) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.serve)
            process = await _start(command, environment)
            log.info("program started pid=%d command=%s", process.pid, shlex.quote(command[0]))
            nursery.start_soon(_forward, signals, process)
            status = await _wait(process)
            log.info("program ended status=%d", status)
            with trio.move_on_after(_LAST_OCTETS_S):
                await gateway.drain()
            nursery.cancel_scope.cancel()
    return status if status >= 0 else 128 - status


async def _start(command: Sequence[str], environment: Mapping[str, str]) -> trio.Process:
    try:
        # Descriptors that were meant for the program go on to it; ours are not inheritable.
        return await trio.lowlevel.open_process(
            list(command), env=dict(environment), close_fds=False
        )
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise StartError(f"cannot run {command[0]!r}: {reason}") from exc


async def _wait(process: trio.Process) -> int:
    try:
        return await process.wait()
    except BaseException:
        process.terminate()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_S):
            await process.wait()
        process.kill()
        raise


async def _forward(signals: AsyncIterator[int], process: trio.Process) -> None:
    async for number in signals:
        if number in _FROM_TERMINAL and _is_foreground():
            continue
        process.send_signal(number)


def _is_foreground() -> bool:
    """Whether our terminal sends its signals to us, and with that to the program."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
