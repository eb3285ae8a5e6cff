"""Logging of the process: from `logging` calls to lines in files, without waiting for a disk.

In: records of every logger.  Out: lines in the sinks that `LogOptions` name.

Theory of operation.  A call to `log.info` in the thread that serves connections puts the record
into a bounded queue and goes on; one writer thread makes lines of whatever is there and writes
them in one go.  The thread is woken once per batch, not once per record, and rests a moment after
waking so that a batch fills.  A queue that is full drops the record and counts it; the next batch
that is written says how many are missing.

Invariant: logging neither blocks nor ends the process, whatever the disk does.

    with configure_logging(LogOptions()):
        run()
"""

from __future__ import annotations

import collections
import logging
import queue
import sys
import threading
from typing import TYPE_CHECKING, Final

from tng.errors import StartError
from tng.observe.access_log import AccessRecord, StampedRecord, send_to
from tng.observe.levels import OFF, parse_levels
from tng.observe.lines import JsonLine, TextLine
from tng.observe.options import LogFormat, LogOptions
from tng.observe.sinks import DescriptorSink, FileSink

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["LogFormat", "LogOptions", "LoggingSession", "configure_logging"]

QUEUE_RECORDS: Final = 8192
"""Records waiting at most: about a second of a busy gateway, a few MiB."""

_BATCH_PAUSE: Final = 0.05
"""Seconds that the writer rests after waking, so that it wakes 20 times a second at most: each
time that it runs, the thread that serves connections has to share the interpreter."""

_CLOSE_TIMEOUT: Final = 2.0
"""Seconds that leaving waits for the last lines; a terminal that is stopped may never take them."""


Entry = logging.LogRecord | tuple[float, AccessRecord]
"""What the queue holds."""


def configure_logging(options: LogOptions, *, stream: int | None = None) -> LoggingSession:
    """Send every logger's records to the sinks of `options`, until the session is closed.

    Args:
        options: formats, files and levels.
        stream: file descriptor for lines that no file takes; None for standard output.

    Raises:
        ConfigError: the level directives are not understood.
        StartError: a log file cannot be opened.
    """
    levels = parse_levels(options.levels)
    descriptor = sys.stdout.fileno() if stream is None else stream
    sinks: list[DescriptorSink] = []
    rolling = options.max_size if options.rolling else 0
    if options.file is None:
        sinks.append(DescriptorSink(descriptor, "standard output"))
    try:
        sinks.extend(
            FileSink(path, max_size=rolling, max_backups=options.max_backups)
            for path in (options.file, options.error_file)
            if path is not None
        )
    except StartError:
        for sink in sinks:
            sink.close()
        raise
    session = LoggingSession(sinks, JsonLine() if options.format is LogFormat.JSON else TextLine())
    session.set_levels(levels.default, dict(levels.by_name))
    return session


class LoggingSession:
    """Logging as configured; closing it restores what was there before.

    Args:
        sinks: the first takes all lines; with a second, that one takes ERROR and above instead.
        formatter: makes the lines.
    """

    def __init__(self, sinks: list[DescriptorSink], formatter: TextLine | JsonLine) -> None:
        self._sinks = sinks
        self._formatter = formatter
        self._records = RecordQueue(QUEUE_RECORDS)
        self._handler = _Handler(self._records)
        self._told_dropped = 0
        self._former: list[tuple[logging.Logger, int]] = []
        self._thread = threading.Thread(target=self._write, name="tng-log", daemon=True)
        self._thread.start()
        logging.getLogger().addHandler(self._handler)
        send_to(self._records.offer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """Records that found the queue full."""
        return self._records.dropped

    def set_levels(self, default: int, by_name: dict[str, int]) -> None:
        """Set the level of the root logger and of the loggers named."""
        for name, level in {"": default, **by_name}.items():
            logger = logging.getLogger(name)
            self._former.append((logger, logger.level))
            logger.setLevel(level)

    def close(self) -> None:
        """Write what is queued, for two seconds at most, and restore the former logging."""
        send_to(None)
        logging.getLogger().removeHandler(self._handler)
        while self._former:
            logger, level = self._former.pop()
            logger.setLevel(level)
        self._records.close()
        self._thread.join(_CLOSE_TIMEOUT)
        if not self._thread.is_alive():
            for sink in self._sinks:
                sink.close()

    def _write(self) -> None:
        while (batch := self._records.take_all(_BATCH_PAUSE)) is not None:
            if self._records.dropped > self._told_dropped:
                batch.append(self._drop_notice())
            self._write_batch(batch)

    def _write_batch(self, batch: list[Entry]) -> None:
        lines: list[list[str]] = [[] for _ in self._sinks]
        for entry in batch:
            if isinstance(entry, tuple):
                stamped = StampedRecord(*entry)
                level, line = stamped.level, self._formatter.access(stamped)
            else:
                level, line = entry.levelno, self._line(entry)
            lines[1 if len(self._sinks) > 1 and level >= logging.ERROR else 0].append(line)
        for sink, own in zip(self._sinks, lines, strict=True):
            if own:
                sink.write_lines(own)

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self._formatter.format(record)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            # A call whose arguments do not fit its text is a bug, but not one to lose a log for.
            record.msg = f"unprintable log record from {record.pathname}:{record.lineno}: {error!r}"
            record.args = None
            return self._formatter.format(record)

    def _drop_notice(self) -> logging.LogRecord:
        total = self._records.dropped
        missing, self._told_dropped = total - self._told_dropped, total
        text = f"log lines dropped count={missing}: they came faster than they could be written"
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)


class RecordQueue:
    """A bounded queue that wakes its reader once per batch.

    Args:
        limit: records at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: collections.deque[Entry] = collections.deque()
        self._filled = threading.Event()
        self._closed = threading.Event()
        self.dropped = 0
        """Records refused so far."""

    def put_nowait(self, record: Entry) -> None:
        """Add `record`.

        Raises:
            queue.Full: there is no room; counted in `dropped`.
        """
        if not self.offer(record):
            raise queue.Full

    def offer(self, record: Entry) -> bool:
        """Add `record`; False where there is no room, counted in `dropped`."""
        # Two threads may pass this test together: the limit holds to within their number.
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return False
        self._waiting.append(record)
        if not self._filled.is_set():
            self._filled.set()
        return True

    def take_all(self, pause: float) -> list[Entry] | None:
        """Wait for records and take all of them; None when closed and empty.

        Args:
            pause: seconds to let a batch grow after its first record.
        """
        self._filled.wait()
        self._closed.wait(pause)
        self._filled.clear()
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if self._closed.is_set():
            self._filled.set()
            return batch or None
        return batch

    def close(self) -> None:
        """Let the reader take what is left and stop."""
        self._closed.set()
        self._filled.set()


class _Handler(logging.Handler):
    """Puts records into the queue; drops them when it is full."""

    def __init__(self, records: RecordQueue) -> None:
        super().__init__()
        self._records = records
        self.setLevel(logging.NOTSET)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix the record's text now, while its arguments are what they were at the call."""
        if record.args:
            try:
                record.msg = record.getMessage()
            except (TypeError, ValueError, KeyError):
                return record  # the writer words this one
            record.args = None
        if record.exc_info:
            record.exc_text = record.exc_text or _PLAIN.formatException(record.exc_info)
            record.exc_info = None  # it would keep every local variable of the stack alive
        return record

    def emit(self, record: logging.LogRecord) -> None:
        """Queue `record`, or count it as dropped."""
        if record.levelno >= OFF:
            return
        try:
            self._records.put_nowait(self.prepare(record))
        except queue.Full:
            return


_PLAIN: Final = logging.Formatter()
