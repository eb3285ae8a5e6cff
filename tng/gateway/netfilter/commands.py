"""The system's commands: `iptables-save`, `iptables-restore` and `ip`, run without a shell.

In: arguments and standard input.  Out: standard output, or an error with what the command said.
The back ends of iptables are told apart by `--version`: "nf_tables" or legacy.  Both may be there,
each with rules of its own.

Invariant: a command that hangs is killed after `COMMAND_TIMEOUT_S`.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import trio

from tng.errors import StartError

COMMAND_TIMEOUT_S: Final = 15.0
"""Seconds for one command; the wait for another program's lock is part of it."""

_LOCK_WAIT_S: Final = 10
"""Seconds that iptables waits for its lock, which every change of rules on the machine takes."""

_MAX_WORDS: Final = 300
"""Characters of a command's complaint that are repeated."""

_SYSTEM_FOLDERS: Final = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
"""Where the commands are looked for when the search path has no folders for administrators."""

_PROGRAMS: Final = ("iptables", "iptables-nft", "iptables-legacy")
_LEGACY_TABLES: Final = pathlib.Path("/proc/net/ip_tables_names")


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended.

    Attributes:
        status: its exit status.
        output: what it wrote to standard output.
        complaint: what it wrote to standard error.
    """

    status: int
    output: str
    complaint: str


Run = Callable[[Sequence[str], str], Awaitable[Done]]
"""Runs a command (arguments, standard input)."""

Find = Callable[[str], str | None]
"""The path of a command, None when it is not installed."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One back end of iptables.

    Attributes:
        kind: of its rules.
        save: path of `iptables-save`.
        restore: path of `iptables-restore`.
    """

    kind: Literal["nf_tables", "legacy"]
    save: str
    restore: str


async def run_command(arguments: Sequence[str], text: str) -> Done:
    """Run a command.

    Raises:
        StartError: it cannot be run, or does not end in time.
    """
    try:
        with trio.fail_after(COMMAND_TIMEOUT_S):
            done = await trio.run_process(
                list(arguments),
                stdin=text.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except OSError as exc:
        raise StartError(f"cannot run {arguments[0]}: {exc.strerror}") from exc
    except trio.TooSlowError as exc:
        raise StartError(f"{arguments[0]} did not end within {COMMAND_TIMEOUT_S:g} s") from exc
    return _done(done)


def _done(process: subprocess.CompletedProcess[bytes]) -> Done:
    output, complaint = (
        octets.decode(errors="replace") for octets in (process.stdout, process.stderr)
    )
    return Done(process.returncode, output, complaint)


def find_command(name: str) -> str | None:
    """The path of a command; also where services without a full search path would miss it."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)


class Commands:
    """The commands that this machine has.

    Args:
        run: runs one.
        find: finds one.
        legacy_tables: lists the tables of the legacy back end that are in use, one a line.
    """

    def __init__(
        self,
        run: Run = run_command,
        find: Find = find_command,
        legacy_tables: pathlib.Path = _LEGACY_TABLES,
    ) -> None:
        self._run = run
        self._find = find
        self._legacy_tables = legacy_tables

    async def backends(self) -> list[Backend]:
        """The back ends of iptables, the machine's default first.

        Raises:
            StartError: iptables is not installed.
        """
        found: dict[str, Backend] = {}
        for program in _PROGRAMS:
            save, restore = self._find(f"{program}-save"), self._find(f"{program}-restore")
            if save is None or restore is None:
                continue
            version = await self._run([restore, "--version"], "")
            kind: Literal["nf_tables", "legacy"] = (
                "nf_tables" if "nf_tables" in version.output else "legacy"
            )
            found.setdefault(kind, Backend(kind, save, restore))
        if not found:
            raise StartError(
                "netfilter modes need iptables-save and iptables-restore; "
                "install the package iptables"
            )
        return list(found.values())

    async def saved(self, backend: Backend) -> str:
        """The rules of one back end.

        Raises:
            StartError: they cannot be read.
        """
        if backend.kind == "legacy" and not self._has_legacy_tables():
            return ""  # asking would make the kernel set them up
        return await self._output([backend.save])

    async def restore(self, backend: Backend, text: str) -> None:
        """Change rules.

        Args:
            backend: whose.
            text: see `netfilter.rules`; nothing is done when it is empty.

        Raises:
            StartError: the change was refused; what the command said is in the message.
        """
        if text:
            wait = str(_LOCK_WAIT_S)
            await self._output([backend.restore, "--noflush", "--wait", wait], text)

    @property
    def has_ip(self) -> bool:
        """Whether the command `ip` is installed."""
        return self._find("ip") is not None

    async def ip(self, *arguments: str) -> str:
        """Output of `ip -4 ...`.

        Raises:
            StartError: it failed, or is not installed.
        """
        program = self._find("ip")
        if program is None:
            raise StartError("netfilter modes need the command ip; install the package iproute2")
        return await self._output([program, "-4", *arguments])

    async def _output(self, arguments: Sequence[str], text: str = "") -> str:
        done = await self._run(arguments, text)
        if done.status != 0:
            name = " ".join([pathlib.Path(arguments[0]).name, *arguments[1:]])
            words = " ".join(done.complaint.split())[:_MAX_WORDS]
            raise StartError(f"{name} failed with status {done.status}: {words or 'no reason'}")
        return done.output

    def _has_legacy_tables(self) -> bool:
        try:
            return bool(self._legacy_tables.read_text(encoding="ascii").strip())
        except OSError:
            return False  # the kernel knows no legacy tables at all
