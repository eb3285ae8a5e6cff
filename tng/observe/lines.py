"""One log record as one line, in text or in JSON.

In: a `logging.LogRecord`.  Out: a line without its newline.  Source: the line formats of TNG 2.12
with logger names as targets: `<RFC 3339, microseconds>Z  LEVEL target: message` and
`{"timestamp","level","fields":{"message"},"target"}`.
Invariant: a line is one line, whatever a peer put into a value, and passes `redact`.  Only the
traceback of an unexpected error adds further lines to the text form.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import time
from typing import Final

from tng.observe.access_log import StampedRecord
from tng.observe.access_log import log as access_log
from tng.observe.redaction import redact

_LEVEL_NAMES: Final = (
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARN"),
    (logging.INFO, "INFO"),
    (logging.DEBUG, "DEBUG"),
)

ACCESS: Final = access_log.name
"""Target of access records."""

MAX_MESSAGE: Final = 16 * 1024
"""Characters of one message; a longer one quotes something that belongs nowhere near a log."""

_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class TextLine(logging.Formatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`; its traceback, where it has one, follows on lines of its own."""
        line = f"{_timestamp(record.created)} {_level(record):>5} {record.name}: {_message(record)}"
        trouble = _traceback(self, record)
        return f"{line}\n{trouble}" if trouble else line

    def access(self, stamped: StampedRecord) -> str:
        """The line of an access record; its parts are addresses, nothing has to be hidden."""
        level = "ERROR" if stamped.level == logging.ERROR else " INFO"
        return f"{_timestamp(stamped.at)} {level} {ACCESS}: {stamped.record}"


class JsonLine(logging.Formatter):
    """Lines for programs: one JSON object each."""

    def format(self, record: logging.LogRecord) -> str:
        """The object of `record`; a traceback is the member `exception` of `fields`."""
        fields = {"message": _message(record)}
        trouble = _traceback(self, record)
        if trouble:
            fields["exception"] = trouble
        return _object(record.created, _level(record), fields, record.name)

    def access(self, stamped: StampedRecord) -> str:
        """The object of an access record."""
        level = logging.getLevelName(stamped.level)
        return _object(stamped.at, level, {"message": str(stamped.record)}, ACCESS)


def _object(created: float, level: str, fields: dict[str, str], target: str) -> str:
    return json.dumps(
        {"timestamp": _timestamp(created), "level": level, "fields": fields, "target": target},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _timestamp(created: float) -> str:
    seconds, fraction = divmod(round(created * 1e6), 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _level(record: logging.LogRecord) -> str:
    return next((name for floor, name in _LEVEL_NAMES if record.levelno >= floor), "TRACE")


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if len(text) > MAX_MESSAGE:
        text = f"{text[:MAX_MESSAGE]}... ({len(text)} characters)"
    return redact(_CONTROL.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    return redact(record.exc_text) if record.exc_text else ""
