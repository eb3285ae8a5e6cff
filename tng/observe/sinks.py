"""Where log lines end: the terminal, or a file that may roll over by size.

In: lines.  Out: octets in a file descriptor, as few writes as there are batches.  Used by the
writer thread of `logs` alone.  Source: naming of rolled files as Debian's logrotate and the
reference do it: `file.1` is the newest, `file.N` the oldest.
Invariant: no failure to write leaves a sink as an exception; it is reported on standard error
once, and the lines in question are counted and lost.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final

from tng.errors import StartError

if TYPE_CHECKING:
    import pathlib

_FILE_MODE: Final = 0o640


class DescriptorSink:
    """Lines into an open file descriptor, e.g. standard output.

    Args:
        descriptor: stays the caller's; never closed here.
        name: what to call it when it fails.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._reported = False
        self.lost = 0
        """Lines that could not be written."""

    def write_lines(self, lines: list[str]) -> None:
        """Write `lines`, each with its newline added."""
        data = "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")
        try:
            self._write(data)
        except OSError as error:
            self.lost += len(lines)
            self._report(error)

    def close(self) -> None:
        """Nothing to give back."""

    def _write(self, data: bytes) -> None:
        _write_all(self._descriptor, data)

    def _report(self, error: OSError) -> None:
        if self._reported:
            return
        self._reported = True
        with contextlib.suppress(OSError, ValueError):
            print(  # noqa: T201 - the log itself is what does not work
                f"tng: log lines are lost: {self._name} cannot be written: {error.strerror}",
                file=sys.stderr,
                flush=True,
            )


class FileSink(DescriptorSink):
    """Lines appended to a file.

    Args:
        path: made if absent, mode 0640.
        max_size: octets after which the file rolls over; 0 for never.
        max_backups: rolled files to keep, 0 or more.

    Raises:
        StartError: the file cannot be opened.
    """

    def __init__(self, path: pathlib.Path, *, max_size: int = 0, max_backups: int = 0) -> None:
        try:
            descriptor = _open(path)
        except OSError as error:
            raise StartError(
                f"log file {str(path)!r} cannot be opened: {error.strerror};"
                " name a file in a folder that this user may write"
            ) from error
        super().__init__(descriptor, f"log file {str(path)!r}")
        self._path = path
        self._max_size = max_size
        self._max_backups = max_backups
        self._size = os.fstat(descriptor).st_size

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        if self._max_size and self._size and self._size + len(data) > self._max_size:
            self._roll()
        self._size += len(data)
        super()._write(data)

    def _roll(self) -> None:
        # The old file stays open until the new one is: a folder that became read-only costs
        # the rolling, not the log.
        if self._max_backups == 0:
            os.ftruncate(self._descriptor, 0)
            self._size = 0
            return
        for number in range(self._max_backups - 1, 0, -1):
            older = self._backup(number)
            if older.exists():
                older.replace(self._backup(number + 1))
        self._path.replace(self._backup(1))
        descriptor = _open(self._path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._size = 0

    def _backup(self, number: int) -> pathlib.Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _open(path: pathlib.Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
