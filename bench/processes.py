"""Processes under measurement: started with a log of their own, watched through /proc, ended.

In: a command.  Out: its CPU seconds and memory, children included.  Only Linux has /proc.
Invariant: leaving the context ends every process that was started, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Final

HOST: Final = "127.0.0.1"

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_READY_S: Final = 30.0
"""Seconds for a process to become ready; a busy machine takes a few."""
_STOP_S: Final = 10.0
"""Seconds between asking a process to end and killing it."""
_POLL_S: Final = 0.002
"""Seconds between two looks at readiness: small against the tenths that starting takes."""


class StartFailed(Exception):  # noqa: N818 - reads as what happened
    """A process ended before it was ready, or did not become ready in time."""


class Process:
    """One process and what it forked.

    Args:
        log: where its output goes; its own, else `await_line` finds what another one said.

    Attributes:
        name: for messages.
        started_at: monotonic seconds.
    """

    def __init__(self, log: pathlib.Path, name: str, command: list[str]) -> None:
        self.name = name
        self._log = log
        # A gateway that reached its service through a proxy would measure the proxy.
        environment = {
            key: value
            for key, value in os.environ.items()  # noqa: TID251 - handed on, not interpreted
            if not key.lower().endswith("_proxy")
        }
        with log.open("xb") as output:
            self.started_at = time.monotonic()
            self._popen = subprocess.Popen(  # noqa: S603 - the caller's own words
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    def await_ready(self, control_port: int, path: str = "/readyz") -> float:
        """Seconds from the start until GET `path` on the control port answers 200.

        Raises:
            StartFailed: it ended, or did not answer so in time; with the end of its log.
        """
        return self._await(lambda: _status(control_port, path) == 200)

    def await_line(self, start: str) -> str:
        """The first whole line of the log that begins with `start`, without that beginning.

        Raises:
            StartFailed: see `await_ready`.
        """
        found: list[str] = []

        def has_line() -> bool:
            lines = self._text().splitlines(keepends=True)
            whole = (line for line in lines if line.startswith(start) and line.endswith("\n"))
            found.extend(line[len(start) :].strip() for line in whole)
            return bool(found)

        self._await(has_line)
        return found[0]

    def cpu_s(self) -> float:
        """CPU seconds of the process and its living children, user and system."""
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def memory(self) -> int:
        """Octets of resident memory of the process and its children."""
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * _PAGE

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to whatever is left of the session."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def _pids(self) -> Iterator[int]:
        waiting = [self._popen.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            with contextlib.suppress(OSError):
                for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                    waiting += [int(word) for word in children.read_text().split()]

    def _await(self, is_there: Callable[[], bool]) -> float:
        end = self.started_at + _READY_S
        while not is_there():
            status = self._popen.poll()
            if status is not None or time.monotonic() > end:
                state = "is not ready" if status is None else f"ended with {status}"
                raise StartFailed(f"{self.name} {state}:\n{self._text()[-1500:]}")
            time.sleep(_POLL_S)
        return time.monotonic() - self.started_at

    def _text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def _status(port: int, path: str) -> int:
    """Status of GET `path` on loopback; 0 when nobody answers."""
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(request.encode())
            words = connection.recv(64).split()
    except OSError:
        return 0
    return int(words[1]) if len(words) > 1 else 0


class Stage:
    """Starts processes and ends them with the context.

    Args:
        folder: for logs; there for as long as the stage is.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._processes: list[Process] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.stop()

    def start(self, name: str, command: list[str]) -> Process:
        """Start one process; it is not ready yet."""
        log = self.folder / f"{len(self._processes)}-{name.replace(' ', '-')}.log"
        process = Process(log, name, command)
        self._processes.append(process)
        return process


def choose_ports(count: int) -> list[int]:
    """Ports of loopback that are free now, all different."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            sock = held.enter_context(socket.socket())
            sock.bind((HOST, 0))
            ports.append(int(sock.getsockname()[1]))
        return ports
