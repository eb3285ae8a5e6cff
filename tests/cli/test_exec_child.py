"""A program beside a gateway: which of them ends the other, and what signals do."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys

import pytest
import trio

from stage.conversation import eventually
from tng.cli.exec import _first
from tng.cli.exec_child import run_beside
from tng.errors import StartError, TngError

WAITING = "import signal, sys, time\nopen(sys.argv[1], 'w').close()\nwhile True: time.sleep(0.01)\n"


class Gateway:
    """Serves nothing.

    Attributes:
        drained: whether it was asked to let go.
        fail: ends serving with an error.
    """

    entries = ()
    dangers = ("something is dangerous",)

    def __init__(self, *, starts: bool = True) -> None:
        self.drained = False
        self.fail = trio.Event()
        self._starts = starts

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if not self._starts:
            raise StartError("the port is in use")
        task_status.started()
        await self.fail.wait()
        raise TngError("the data plane has failed")

    async def drain(self) -> None:
        self.drained = True
        await trio.lowlevel.checkpoint()


async def beside(gateway: Gateway, *command: str) -> int:
    with trio.fail_after(20):
        return await run_beside(gateway, command, os.environ)  # type: ignore[arg-type]


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), (":", 0)])
async def test_the_gateway_ends_with_the_program(script: str, status: int) -> None:
    gateway = Gateway()
    assert await beside(gateway, "/bin/sh", "-c", script) == status
    assert gateway.drained


async def test_a_gateway_that_fails_ends_the_program(tmp_path: pathlib.Path) -> None:
    gateway, started = Gateway(), tmp_path / "started"
    code = f"import os\nprint(os.getpid(), file=open({str(tmp_path / 'pid')!r}, 'w'))\n{WAITING}"

    async def fail() -> None:
        await eventually(started.exists, 10)
        gateway.fail.set()

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await beside(gateway, sys.executable, "-c", code, str(started))

    with pytest.raises(BaseExceptionGroup) as caught:
        await both()
    known = caught.value.subgroup(TngError)
    assert known is not None
    assert str(_first(known)) == "the data plane has failed"
    with pytest.raises(ProcessLookupError):
        os.kill(json.loads((tmp_path / "pid").read_text()), 0)


async def test_a_gateway_that_cannot_start_starts_no_program(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await beside(Gateway(starts=False), "/bin/sh", "-c", f"touch {tmp_path}/ran")
    assert caught.value.subgroup(StartError) is not None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["/no/such/program", "a\0b"])
async def test_a_program_that_cannot_be_run_is_a_start_error(command: str) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await beside(Gateway(), command)
    known = caught.value.subgroup(StartError)
    assert known is not None
    assert str(_first(known)).startswith(f"cannot run {command!r}: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP])
async def test_a_signal_is_for_the_program(tmp_path: pathlib.Path, number: int) -> None:
    started = tmp_path / "started"
    code = f"import signal, sys\nsignal.signal({int(number)}, lambda *_: sys.exit(42))\n{WAITING}"

    async def send() -> None:
        await eventually(started.exists, 10)
        os.kill(os.getpid(), number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await beside(Gateway(), sys.executable, "-c", code, str(started)) == 42
