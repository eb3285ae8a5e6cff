"""tng.attest.attester.boot_log: whole events, then the end marker."""

from __future__ import annotations

import gzip
import pathlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.attester.boot_log import END_MARKER, MAX_LOG, cut_at_end, read_boot_log
from tng.errors import EvidenceError

SHA384 = 0x0C


def first_event(algorithms: dict[int, int], count: int | None = None) -> bytes:
    pairs = b"".join(struct.pack("<HH", *pair) for pair in algorithms.items())
    declared = len(algorithms) if count is None else count
    data = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", declared) + pairs + b"\0"
    return struct.pack("<II20sI", 0, 3, bytes(20), len(data)) + data


def event(data: bytes, algorithm: int = SHA384, digests: int = 1) -> bytes:
    digest = struct.pack("<H", algorithm) + bytes(48)
    return (
        struct.pack("<III", 4, 0x0D, digests)
        + digest * digests
        + struct.pack("<I", len(data))
        + data
    )


EVENTS = first_event({SHA384: 48}) + event(b"one") + event(b"two" * 100)


@pytest.mark.parametrize("rest", [b"\xff" * 500, bytes(500), b"", END_MARKER + b"\x01" * 20])
def test_the_log_is_cut_at_its_end_marker(rest: bytes) -> None:
    assert cut_at_end(EVENTS + rest) == EVENTS


def test_the_agent_log_and_the_end_marker_follow_the_firmware_log(tmp_path: pathlib.Path) -> None:
    ccel, aael = tmp_path / "CCEL", tmp_path / "eventlog"
    ccel.write_bytes(EVENTS + b"\xff" * 100)
    assert read_boot_log(ccel, aael) == EVENTS + END_MARKER
    aael.write_bytes(event(b"AAEL"))
    assert read_boot_log(ccel, aael) == EVENTS + event(b"AAEL") + END_MARKER


def test_a_machine_without_a_table_has_no_log(tmp_path: pathlib.Path) -> None:
    assert read_boot_log(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(
    "log",
    [
        b"",
        EVENTS[:20],
        EVENTS[:50],
        EVENTS[:-1],
        EVENTS[:-301],
        first_event({SHA384: 48}) + event(b"", algorithm=0x0B),
        first_event({SHA384: 48}) + event(b"", digests=17),
        first_event({SHA384: 48}, count=17) + event(b""),
        first_event({SHA384: 48}) + b"\x01" * 11,
    ],
)
def test_a_log_with_half_an_event_or_an_undeclared_hash_is_refused(
    tmp_path: pathlib.Path, log: bytes
) -> None:
    path = tmp_path / "CCEL"
    path.write_bytes(log)
    with pytest.raises(EvidenceError, match="malformed"):
        read_boot_log(path, path)


def test_a_file_that_cannot_be_read_or_is_too_long_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(EvidenceError, match="cannot be read"):
        read_boot_log(tmp_path, tmp_path)
    path = tmp_path / "CCEL"
    path.write_bytes(bytes(MAX_LOG + 1))
    with pytest.raises(EvidenceError, match="longer"):
        read_boot_log(path, path)


@pytest.mark.parametrize(
    "name", ["CCEL_data.gz", "CCEL_data_csv", "CCEL_data_gcp", "CCEL_data_grub", "CCEL_data_ovmf"]
)
def test_real_tables_are_cut_where_their_events_end(shared: pathlib.Path, name: str) -> None:
    data = (shared / "vectors" / "attestation" / "eventlog" / name).read_bytes()
    table = gzip.decompress(data) if name.endswith(".gz") else data
    events = cut_at_end(table)
    assert 1000 < len(events) < len(table)
    assert table.startswith(events)
    assert table[len(events) :][:8] in (END_MARKER, bytes(8))


def test_a_real_joined_log_has_our_shape(shared: pathlib.Path) -> None:
    log = (shared / "vectors" / "attestation" / "eventlog" / "CCEL_AAEL_alibabacloud").read_bytes()
    events = cut_at_end(log)
    assert log[len(events) :] in (END_MARKER, b"")
    assert b"LEAA" in events  # 0x4141454c, little endian: the tag of AAEL events


@given(st.binary(max_size=300), st.booleans())
def test_garbage_gives_whole_events_or_a_defined_error(data: bytes, headed: bool) -> None:
    log = EVENTS + data if headed else data
    try:
        events = cut_at_end(log)
    except (ValueError, struct.error):
        return
    assert log.startswith(events)
