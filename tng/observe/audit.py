"""An audit log on the disk: one line per decision, appended, each vouching for those before it.

In: records.  Out: lines of `observe.audit_chain` at the end of a file.

Durability.  A line is with the kernel when `write` returns, so a killed process (kill -9) loses
none that was written; a thread has the disk take them (fdatasync) at most `SYNC_INTERVAL_S` later,
so a power failure may cost the last second.

Restart.  The chain goes on from the last whole line.  What is left of a torn line is closed off by
a record of kind `torn`.  A whole line that is not what was written is no accident: opening refuses.

Rotation.  Whoever renames the file needs to tell nobody: before each line it is looked whether the
path still leads to the file, and if not a new one is made, whose first line continues the chain.
A file that begins at a restart continues that of `PATH.1`.

Failure to write.  Decisions go on: the loss is an ERROR line in the log, and counted by a record of
kind `lost` as soon as the file can be written again.

Invariant: one process appends to the file at a time (flock), and every line goes there whole or is
followed by a record that says what was left of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.errors import StartError
from tng.observe.audit_chain import (
    MAX_LINE,
    START,
    Json,
    Line,
    Record,
    is_object,
    parse_line,
    seal,
    torn_record,
)

if TYPE_CHECKING:
    from types import TracebackType

    from tng.clock import Clock

SYNC_INTERVAL_S: Final = 1.0
"""Seconds after which lines are on the disk; one wait for the disk per second costs nothing."""

_TAIL: Final = 2 * MAX_LINE + 2
"""Octets at the end of a file in which the last line is looked for, and what is left of another."""

_FILE_MODE: Final = 0o640

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """How a file ends: its last line, and the octets behind it."""

    line: Line | None
    rest: bytes


class AuditLog:
    """An open audit log.  `write` is for every thread.

    Args:
        path: made if missing, mode 0640.
        clock: dates the records that it adds itself.

    Raises:
        StartError: the file cannot be opened, is another process's, or its last line was altered.
    """

    def __init__(self, path: pathlib.Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._lost = 0
        self._sequence, self._previous = 0, START
        self._descriptor = _open(path)
        try:
            self._continue()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._written, self._stop = threading.Event(), threading.Event()
        self._syncing = threading.Thread(target=self._sync, name="audit-sync", daemon=True)
        self._syncing.start()

    def write(self, record: Record) -> None:
        """Append a record; when this returns, no end of this process can lose it.

        Args:
            record: `kind` says of what; JSON values, no secret.  One whose line would be longer
                than `MAX_LINE` is replaced by its kind and a remark.
        """
        with self._lock:
            try:
                if not self._leads_here():
                    self._begin_file()
                if self._lost:
                    self._append({"kind": "lost", "at": self._clock.now(), "records": self._lost})
                    self._lost = 0
                self._append(record)
            except (OSError, StartError) as exc:
                self._lost += 1
                log.error(  # noqa: TRY400 - the reason is in the line
                    "audit record lost file=%s lost=%d error=%s", self._path, self._lost, exc
                )
        self._written.set()

    def close(self) -> None:
        """Have the disk take everything, and close the file."""
        self._stop.set()
        self._written.set()
        self._syncing.join()
        with contextlib.suppress(OSError):
            os.fdatasync(self._descriptor)
        os.close(self._descriptor)

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- the file ----------------------------------------------------------------------

    def _continue(self) -> None:
        """Find the end of the chain, and close off what is left of a torn line."""
        end = _end_of(self._descriptor, str(self._path))
        if end.line is None and not end.rest:
            end = _end_of_older(self._path)
        if end.line is not None:
            self._sequence, self._previous = end.line.sequence, end.line.chain
        if end.rest:
            self._close_off(end.rest)

    def _close_off(self, rest: bytes) -> None:
        own = os.fstat(self._descriptor).st_size
        if own and not rest.endswith(b"\n"):
            rest += b"\n"
            _write_all(self._descriptor, b"\n")
        log.warning("audit log had a torn line file=%s octets=%d", self._path, len(rest))
        self._append(torn_record(rest, self._clock.now()))

    def _leads_here(self) -> bool:
        """Whether the path still leads to the open file."""
        try:
            there, here = self._path.stat(), os.fstat(self._descriptor)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _begin_file(self) -> None:
        descriptor = _open(self._path)
        if os.fstat(descriptor).st_size:
            os.close(descriptor)
            raise StartError(f"audit log {str(self._path)!r} was replaced by a file that has lines")
        with contextlib.suppress(OSError):
            os.fdatasync(self._descriptor)
        old, self._descriptor = self._descriptor, descriptor
        os.close(old)

    def _append(self, record: Record) -> None:
        line, chain = seal(record, self._sequence + 1, self._previous)
        if len(line) > MAX_LINE:
            line, chain = seal(_shortened(record, len(line)), self._sequence + 1, self._previous)
        before = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, line)
        except OSError:
            # The disk is full: half a line would look as if this process had been killed.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise
        self._sequence, self._previous = self._sequence + 1, chain

    def _sync(self) -> None:
        while not self._stop.is_set():
            self._written.wait()
            self._written.clear()
            with contextlib.suppress(OSError):  # a failure shows again, and is told, at a write
                self._have_disk_take_it()
            self._stop.wait(SYNC_INTERVAL_S)

    def _have_disk_take_it(self) -> None:
        with self._lock:
            # Whoever writes a line meanwhile shall not wait for the disk.
            descriptor = os.dup(self._descriptor)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def _shortened(record: Record, octets: int) -> dict[str, Json]:
    kept: dict[str, Json] = {name: record[name] for name in ("kind", "at") if name in record}
    return {**kept, "left_out": f"a line of {octets} octets, the limit is {MAX_LINE}"}


def _open(path: pathlib.Path) -> int:
    """The file, ours alone.

    Raises:
        StartError: it cannot be opened, or another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, _FILE_MODE)
    except OSError as exc:
        raise StartError(
            f"audit log {str(path)!r} cannot be opened: {exc.strerror}; "
            "name a file in a folder that this user may write"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise StartError(
            f"audit log {str(path)!r} is another process's; give each process a file of its own"
        ) from exc
    return descriptor


def _end_of(descriptor: int, name: str) -> _End:
    """The last line of a file, and what is left of one behind it.

    Raises:
        StartError: it ends with whole lines that are not what was written.
    """
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL)
    tail = b""
    while start + len(tail) < size:
        tail += os.pread(descriptor, size - start - len(tail), start + len(tail))
    lines = tail.split(b"\n")
    rest = lines.pop()
    for octets in reversed(lines):
        if (line := parse_line(octets)) is not None:
            return _End(line, rest)
        rest = octets + b"\n" + rest
        if is_object(octets):
            break
    if start or (rest and any(map(is_object, rest.split(b"\n")))):
        raise StartError(
            f"audit log {name!r} does not end with a line that was written here: find out why "
            "(tng audit verify), and move it away to begin a new one"
        )
    return _End(None, rest)


def _end_of_older(path: pathlib.Path) -> _End:
    """The end of the file that was rotated away; none if there is none that can be read."""
    older = path.with_name(f"{path.name}.1")
    try:
        with older.open("rb") as stream:
            return _end_of(stream.fileno(), str(older))
    except OSError:
        return _End(None, b"")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
