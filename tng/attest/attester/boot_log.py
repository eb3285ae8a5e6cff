"""The event log that goes with TDX evidence: firmware's part, then the agent's.

The firmware's CCEL table (TCG PC Client Platform Firmware Profile, crypto-agile format) fills a
reserved area, so its events end at a marker: eight octets of 0xFF or 0x00 where an event would
start.  The agent's own events (AAEL) follow in the same format, and eight octets of 0xFF close
the log.  A verifier replays it against the measurement registers in the quote.

Invariant: what is returned consists of whole events, or `EvidenceError` is raised.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from tng.errors import EvidenceError

END_MARKER: Final = b"\xff" * 8
"""What closes a log."""
MAX_LOG: Final = 4 << 20
"""Octets of either part; firmware reserves 64 KiB, and agents add a line per loaded object."""

_ZERO_MARKER: Final = bytes(8)
_FIRST_EVENT: Final = struct.Struct("<II20sI")  # register, type, SHA-1 digest, size
_EVENT: Final = struct.Struct("<III")  # register, type, number of digests
_ALGORITHMS_AT: Final = 24  # in the data of the first event: signature 16, class 4, version 4
_MAX_ALGORITHMS: Final = 16  # hash algorithms one platform measures with; real ones have one or two


def read_boot_log(ccel_path: Path, aael_path: Path) -> bytes | None:
    """The joined event log; None on a machine without a CCEL table.

    Args:
        ccel_path: the table's data, as the kernel shows it.
        aael_path: the agent's events; may be absent.

    Raises:
        EvidenceError: a file that cannot be read, is too long, or holds no event log.
    """
    ccel = _read(ccel_path)
    if ccel is None:
        return None
    try:
        events = cut_at_end(ccel)
    except (struct.error, ValueError) as exc:
        raise EvidenceError(f"event log {ccel_path} is malformed: {exc}") from exc
    return events + (_read(aael_path) or b"") + END_MARKER


def cut_at_end(log: bytes) -> bytes:
    """The events of a log without its end marker and what is behind it.

    Raises:
        ValueError: an event is cut short, or names an algorithm that the log does not declare.
        struct.error: an event is cut short.
    """
    *_, size = _FIRST_EVENT.unpack_from(log)
    at = _FIRST_EVENT.size + size
    digest_sizes = _digest_sizes(log[_FIRST_EVENT.size : at])
    while at < len(log) and log[at : at + 8] not in (END_MARKER, _ZERO_MARKER):
        at = _skip_event(log, at, digest_sizes)
    if at > len(log):
        raise ValueError(f"its last event ends {at - len(log)} octets behind the end")
    return log[:at]


def _digest_sizes(data: bytes) -> dict[int, int]:
    (count,) = struct.unpack_from("<I", data, _ALGORITHMS_AT)
    if count > _MAX_ALGORITHMS:
        raise ValueError(f"it declares {count} hash algorithms")
    pairs = (
        struct.unpack_from("<HH", data, _ALGORITHMS_AT + 4 + 4 * index) for index in range(count)
    )
    return dict(pairs)


def _skip_event(log: bytes, at: int, digest_sizes: dict[int, int]) -> int:
    _register, _type, digests = _EVENT.unpack_from(log, at)
    at += _EVENT.size
    if digests > _MAX_ALGORITHMS:
        raise ValueError(f"an event has {digests} digests")
    for _ in range(digests):
        (algorithm,) = struct.unpack_from("<H", log, at)
        if algorithm not in digest_sizes:
            raise ValueError(f"an event uses hash algorithm {algorithm:#x}, which is not declared")
        at += 2 + digest_sizes[algorithm]
    (size,) = struct.unpack_from("<I", log, at)
    return at + 4 + int(size)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOG + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise EvidenceError(
            f"event log {path} cannot be read: {exc.strerror}; run as a user who may read it"
        ) from exc
    if len(data) > MAX_LOG:
        raise EvidenceError(f"event log {path} is longer than {MAX_LOG} octets")
    return data
