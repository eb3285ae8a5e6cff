"""Starting a worker process: `<command> --worker-link N`, with its sockets inherited.

In: the command line, which says how to log and nothing secret; descriptors.  Out: a process.
Everything else that a worker needs goes over its stream.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import trio

from tng.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tng.gateway.workers.slot import Start


def starter(command: Sequence[str]) -> Start:
    """What starts workers with `command`, to which the descriptor of the stream is added."""

    async def start(link: int, listening: Sequence[int]) -> trio.Process:
        try:
            return await trio.lowlevel.open_process(
                [*command, str(link)],
                stdin=subprocess.DEVNULL,
                pass_fds=[link, *listening],
            )
        except OSError as exc:
            raise StartError(f"worker process cannot be started: {exc.strerror}") from exc

    return start
