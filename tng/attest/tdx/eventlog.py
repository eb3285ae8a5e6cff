"""The confidential-computing event log (CCEL): parsed, replayed, compared with a quote.

Octets in, entries out.  Format: TCG "PC Client Platform Firmware Profile", crypto agile log,
as UEFI section "Confidential Computing" and Linux' CCEL table carry it; an attestation agent
appends its own entries (AAEL).  Register index 1 to 4 is RTMR 0 to 3, index 0 is MRTD.

    entries = parse_event_log(octets)
    check_against_quote(entries, quote.body)      # raises when the log tells another story
    claims = [entry.claims() for entry in entries]

A log is believed only after its replay equals the registers of a verified quote.  Even then
only the digests are vouched for: `event` is what somebody wrote beside them.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tng.attest.evidence_text import malformed
from tng.attest.tdx.eventlog_details import describe
from tng.attest.tdx.eventlog_types import AAEL_TAG, EventType, type_name
from tng.attest.tdx.quote import MEASUREMENT_OCTETS
from tng.errors import ErrorCode, UntrustedPeerError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tng.attest.tdx.quote import TdReport

__all__ = [
    "AAEL_TAG",
    "EventLogEntry",
    "EventType",
    "HashAlgorithm",
    "check_against_quote",
    "parse_event_log",
    "replay",
]

MAX_LOG_OCTETS: Final = 2 * 1024 * 1024
"""Firmware reserves 64 or 256 KiB; the rest is room for the agent's own entries."""

MAX_ENTRIES: Final = 8192
"""Real boots log about a hundred."""

_MAX_DIGESTS: Final = 8  # there are seven algorithms
_TCG_HEADER: Final = struct.Struct("<II20sI")
_ALGORITHM_COUNT_AT: Final = 24  # after signature, class, version and errata
_ENTRY_HEAD: Final = struct.Struct("<III")
_ENDS: Final = (b"\xff" * 8, bytes(8))
_RTMR_INDEXES: Final = range(1, 5)


class HashAlgorithm(enum.IntEnum):
    """TPM_ALG_ID of a digest (TCG Algorithm Registry)."""

    RSA = 0x01
    TDES = 0x03
    SHA1 = 0x04
    SHA256 = 0x0B
    SHA384 = 0x0C
    SHA512 = 0x0D
    SM3 = 0x12

    @property
    def label(self) -> str:
        """The name a Trustee's claims use, e.g. "SHA-384"."""
        return f"SHA-{self.name[3:]}" if self.name.startswith("SHA") else self.name


_ALGORITHMS: Final = frozenset(HashAlgorithm)
_DIGEST_OCTETS: Final = {
    HashAlgorithm.SHA1: 20,
    HashAlgorithm.SHA256: 32,
    HashAlgorithm.SHA384: 48,
    HashAlgorithm.SHA512: 64,
    HashAlgorithm.SM3: 32,
}


@dataclass(frozen=True, slots=True)
class EventLogEntry:
    """One measurement.

    Attributes:
        index: the register: 0 is MRTD, 1 to 4 are RTMR 0 to 3.
        kind: the event type, an `EventType` or a number without a name.
        digests: (algorithm, digest) as logged.
        event: what the log shows, which may or may not be what was measured.
    """

    index: int
    kind: int
    digests: tuple[tuple[HashAlgorithm, bytes], ...]
    event: bytes

    def digest(self, algorithm: HashAlgorithm) -> bytes | None:
        """The digest by `algorithm`, or None when the entry has none."""
        return dict(self.digests).get(algorithm)

    def claims(self) -> dict[str, object]:
        """The entry as a Trustee's `uefi_event_logs` shows it.

        Raises:
            UntrustedPeerError: text that must be UTF-8 is not, or a structure inside is cut off.
        """
        return {
            "index": self.index,
            "type_name": type_name(self.kind),
            "digests": [{"alg": a.label, "digest": d.hex()} for a, d in self.digests],
            "event": base64.b64encode(self.event).decode(),
            "details": describe(self.kind, self.event),
        }


def parse_event_log(data: bytes) -> tuple[EventLogEntry, ...]:
    """Parse a log, from its header to the end mark or the end of `data`.

    Args:
        data: at most 2 MiB; the padding of the ACPI area may follow the end mark.

    Raises:
        UntrustedPeerError: not such a log (evidence_malformed).
    """
    if len(data) > MAX_LOG_OCTETS:
        raise malformed(f"an event log has at most {MAX_LOG_OCTETS} octets, got {len(data)}")
    sizes, at = _parse_header(data)
    entries: list[EventLogEntry] = []
    while at < len(data) and data[at : at + 8] not in _ENDS:
        if len(entries) == MAX_ENTRIES:
            raise malformed(f"an event log has at most {MAX_ENTRIES} entries")
        entry, at = _parse_entry(data, at, sizes)
        entries.append(entry)
    if data[at:].strip(b"\xff\0"):
        raise malformed(f"octets after the event log's end mark, at offset {at}")
    return tuple(entries)


def replay(entries: Iterable[EventLogEntry]) -> dict[int, bytes]:
    """The registers that follow from a log: RTMR number 0 to 3 to 48 octets.

    Raises:
        UntrustedPeerError: an entry of a run-time register has no SHA-384 digest, or names a
            register that does not exist (event_log_mismatch).
    """
    registers = dict.fromkeys(range(4), bytes(MEASUREMENT_OCTETS))
    for position, entry in enumerate(entries):
        if entry.index == 0:
            continue  # MRTD is measured by the TDX module; the log only tells of it
        if entry.index not in _RTMR_INDEXES:
            raise _mismatch(f"entry {position} names register index {entry.index}, expected 0 to 4")
        digest = entry.digest(HashAlgorithm.SHA384)
        if digest is None:
            raise _mismatch(f"entry {position} has no SHA-384 digest")
        number = entry.index - 1
        registers[number] = hashlib.sha384(registers[number] + digest).digest()
    return registers


def check_against_quote(entries: Iterable[EventLogEntry], body: TdReport) -> None:
    """Require that replaying the log gives the registers of the quote.

    Raises:
        UntrustedPeerError: it does not (event_log_mismatch); the message names the register.
    """
    replayed = replay(entries)
    for number, expected in enumerate(body.rtmrs):
        if not hmac.compare_digest(replayed[number], expected):
            raise _mismatch(
                f"the event log replays to rtmr_{number} {replayed[number].hex()}, "
                f"the quote says {expected.hex()}"
            )


def _mismatch(message: str) -> UntrustedPeerError:
    return UntrustedPeerError(message, code=ErrorCode.EVENT_LOG_MISMATCH)


def _parse_header(data: bytes) -> tuple[dict[int, int], int]:
    """Digest sizes by algorithm, and where the entries begin."""
    specification, at = _sized(data, _TCG_HEADER.size - 4, "header")
    _, kind, _, _ = _TCG_HEADER.unpack_from(data)
    if kind != EventType.EV_NO_ACTION or not specification.startswith(b"Spec ID Event03\0"):
        raise malformed("an event log begins with a 'Spec ID Event03' header")
    count = _u32(specification, _ALGORITHM_COUNT_AT, "header")
    if not 1 <= count <= _MAX_DIGESTS:
        raise malformed(f"an event log uses 1 to {_MAX_DIGESTS} algorithms, got {count}")
    table = specification[_ALGORITHM_COUNT_AT + 4 :][: count * 4]
    if len(table) != count * 4:
        raise malformed("the event log's list of algorithms is cut off")
    sizes = dict(struct.iter_unpack("<HH", table))
    for number, size in sizes.items():
        if number not in _ALGORITHMS or size != _DIGEST_OCTETS.get(number, size):
            raise malformed(f"event log algorithm {number:#x} with {size} octets is unknown")
    return sizes, at


def _parse_entry(data: bytes, at: int, sizes: dict[int, int]) -> tuple[EventLogEntry, int]:
    start = at
    if at + _ENTRY_HEAD.size > len(data):
        raise malformed(f"event log entry at offset {start} is cut off")
    index, kind, count = _ENTRY_HEAD.unpack_from(data, at)
    at += _ENTRY_HEAD.size
    if count > _MAX_DIGESTS:
        raise malformed(f"event log entry at offset {start} claims {count} digests")
    digests = []
    for _ in range(count):
        digest, at = _parse_digest(data, at, sizes)
        digests.append(digest)
    event, at = _sized(data, at, f"entry at offset {start}")
    return EventLogEntry(index, kind, tuple(digests), event), at


def _parse_digest(
    data: bytes, at: int, sizes: dict[int, int]
) -> tuple[tuple[HashAlgorithm, bytes], int]:
    number = int.from_bytes(data[at : at + 2], "little")
    size = sizes.get(number)
    if size is None:
        raise malformed(f"event log digest at offset {at} has unknown algorithm {number:#x}")
    end = at + 2 + size
    if end > len(data):
        raise malformed(f"event log digest at offset {at} is cut off")
    return (HashAlgorithm(number), data[at + 2 : end]), end


def _sized(data: bytes, at: int, what: str) -> tuple[bytes, int]:
    """Octets after a u32 that counts them, and where they end."""
    start = at + 4
    end = start + _u32(data, at, what)
    if end > len(data):
        raise malformed(f"the event log's {what} is cut off")
    return data[start:end], end


def _u32(data: bytes, at: int, what: str) -> int:
    if at + 4 > len(data):
        raise malformed(f"the event log's {what} is cut off")
    return int.from_bytes(data[at : at + 4], "little")
