"""Event logs: parsed, replayed, compared with a quote."""

from __future__ import annotations

import dataclasses
import gzip
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.tdx.eventlog import (
    MAX_ENTRIES,
    MAX_LOG_OCTETS,
    EventType,
    HashAlgorithm,
    check_against_quote,
    parse_event_log,
    replay,
)
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.eventlog import SimulatedEventLog
from tng.errors import ErrorCode, UntrustedPeerError

END = b"\xff" * 8


def header(*algorithms: tuple[int, int]) -> bytes:
    body = b"Spec ID Event03\0" + bytes(8) + struct.pack("<I", len(algorithms))
    body += b"".join(struct.pack("<HH", *a) for a in algorithms) + b"\0"
    return struct.pack("<II20xI", 0, 3, len(body)) + body


def entry(index: int, *, algorithm: int = 0x0C, digest: bytes = bytes(48)) -> bytes:
    return struct.pack("<IIIH", index, 4, 1, algorithm) + digest + bytes(4)


SHA384 = header((0x0C, 48))


def refused(data: bytes, words: str) -> None:
    with pytest.raises(UntrustedPeerError, match=words) as caught:
        parse_event_log(data)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_boot_log_replays_to_the_registers_of_its_quote(workshop):
    entries = parse_event_log(workshop.log.to_bytes())
    assert replay(entries) == dict(enumerate(workshop.log.registers))
    check_against_quote(entries, parse_quote(workshop.quote()).body)


def test_the_padding_of_the_acpi_area_is_no_part_of_the_log(workshop):
    log = workshop.log.to_bytes()
    assert parse_event_log(log.ljust(65536, b"\xff")) == parse_event_log(log)
    assert parse_event_log(log.removesuffix(END) + bytes(100)) == parse_event_log(log)
    assert parse_event_log(log.removesuffix(END)) == parse_event_log(log)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_a_log_that_replays_to_another_register_is_refused(workshop, number):
    rtmrs = list(workshop.domain.rtmrs)
    rtmrs[number] = bytes(48)
    body = parse_quote(workshop.quote(rtmrs=tuple(rtmrs))).body
    with pytest.raises(UntrustedPeerError, match=f"rtmr_{number}") as caught:
        check_against_quote(parse_event_log(workshop.log.to_bytes()), body)
    assert caught.value.code is ErrorCode.EVENT_LOG_MISMATCH


def test_leaving_out_one_entry_is_seen(workshop):
    entries = parse_event_log(workshop.log.to_bytes())
    with pytest.raises(UntrustedPeerError):
        check_against_quote(entries[:-1], parse_quote(workshop.quote()).body)


def test_entries_of_mrtd_are_not_replayed():
    assert replay(parse_event_log(SHA384 + entry(0))) == replay(())


def test_an_entry_of_an_unknown_register_is_refused():
    with pytest.raises(UntrustedPeerError, match="register index 5") as caught:
        replay(parse_event_log(SHA384 + entry(5)))
    assert caught.value.code is ErrorCode.EVENT_LOG_MISMATCH


def test_an_entry_without_a_sha384_digest_cannot_be_replayed():
    log = header((0x0B, 32)) + entry(1, algorithm=0x0B, digest=bytes(32))
    with pytest.raises(UntrustedPeerError, match="no SHA-384"):
        replay(parse_event_log(log))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "header is cut off"),
        (SHA384[:-1], "header is cut off"),
        (SHA384.replace(b"Event03", b"Event02"), "Spec ID Event03"),
        (b"\0\0\0\0\x04" + SHA384[5:], "Spec ID Event03"),
        (header(), "1 to 8 algorithms, got 0"),
        (header(*[(0x0C, 48)] * 9), "got 9"),
        (header((0x0C, 20)), "0xc with 20 octets"),
        (header((0x77, 20)), "0x77 with 20 octets"),
        (SHA384 + bytes(4) + b"\x01" * 7, "offset 65 is cut off"),
        (SHA384 + struct.pack("<III", 1, 4, 9), "claims 9 digests"),
        (SHA384 + entry(1, algorithm=0x0B), "unknown algorithm 0xb"),
        (SHA384 + entry(1)[:40], "digest at offset 77 is cut off"),
        (SHA384 + entry(1)[:-1], "entry at offset 65 is cut off"),
        (SHA384 + entry(1)[:-4] + b"\xff\0\0\0", "entry at offset 65 is cut off"),
        (SHA384 + END + entry(1), "after the event log's end mark"),
        (bytes(MAX_LOG_OCTETS + 1), "at most"),
    ],
)
def test_a_log_of_another_form_is_refused(data, words):
    refused(data, words)


def test_a_list_of_algorithms_longer_than_the_header_is_refused():
    body = b"Spec ID Event03\0" + bytes(8) + struct.pack("<IHH", 2, 0x0C, 48)
    refused(struct.pack("<II20xI", 0, 3, len(body)) + body, "list of algorithms is cut off")


def test_more_entries_than_any_boot_logs_are_refused():
    empty = struct.pack("<IIII", 1, 4, 0, 0)
    assert len(parse_event_log(SHA384 + empty * MAX_ENTRIES)) == MAX_ENTRIES
    refused(SHA384 + empty * (MAX_ENTRIES + 1), "at most 8192 entries")


def test_an_event_type_without_a_name_shows_its_number():
    log = SimulatedEventLog()
    log.add(1, EventType.EV_SEPARATOR, bytes(4))
    (only,) = parse_event_log(log.to_bytes())
    claims = dataclasses.replace(only, kind=0x12345).claims()
    assert claims["type_name"] == "0x00012345"
    assert claims["details"] == {}


def test_algorithms_have_the_names_that_policies_read():
    assert [a.label for a in HashAlgorithm] == [
        "RSA", "TDES", "SHA-1", "SHA-256", "SHA-384", "SHA-512", "SM3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "CCEL_AAEL_alibabacloud",
        "CCEL_data.gz",
        "CCEL_data_csv",
        "CCEL_data_grub",
        "CCEL_data_grub_gke",
        "CCEL_data_ovmf",
    ],
)
@pytest.mark.parametrize("dialect", ["openanolis", "upstream"])
def test_logs_of_real_machines_read_as_a_trustee_reads_them(shared, name, dialect):
    folder = shared / "vectors" / "attestation" / "eventlog"
    data = (folder / name).read_bytes()
    entries = parse_event_log(gzip.decompress(data) if name.endswith(".gz") else data)
    expected = folder / f"{dialect}_expected" / f"{name.removesuffix('.gz')}_out.json"
    logs = json.loads(expected.read_bytes())["uefi_event_logs"]
    for log in logs:
        log.pop("digest_matches_event", None)
    assert [e.claims() for e in entries] == logs


def test_the_log_of_a_real_machine_replays_to_its_registers(shared):
    """The replay of a log recorded on a cloud host equals the claims recorded with it."""
    path = shared / "vectors" / "attestation" / "evidence" / "tng_ear_annotated_evidence.json"
    tdx = json.loads(path.read_bytes())["tdx"]
    log = SimulatedEventLog()
    entries = []
    for event in tdx["uefi_event_logs"]:
        (sample,) = {d["digest"] for d in event["digests"] if d["alg"] == "SHA-384"}
        log.add(event["index"] or 1, EventType.EV_SEPARATOR, b"")
        entries.append((event["index"], bytes.fromhex(sample)))
    parsed = parse_event_log(log.to_bytes())
    real = [
        dataclasses.replace(e, index=i, digests=((HashAlgorithm.SHA384, d),))
        for e, (i, d) in zip(parsed, entries, strict=True)
    ]
    replayed = replay(real)
    assert [replayed[n].hex() for n in range(4)] == [
        tdx["quote"]["body"][f"rtmr_{n}"] for n in range(4)
    ]


@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_gives_defined_errors_only(workshop, garbage, keep):
    for data in (garbage, SHA384 + garbage, workshop.log.to_bytes()[:keep] + garbage):
        try:
            entries = parse_event_log(data)
            replay(entries)
            for entry_ in entries:
                entry_.claims()
        except UntrustedPeerError:
            continue
