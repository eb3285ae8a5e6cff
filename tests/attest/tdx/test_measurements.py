"""Measurements by name, and the reference values that follow from them."""

from __future__ import annotations

import hashlib
import struct

import pytest

from tng.attest.tdx.eventlog import EventLogEntry, EventType, HashAlgorithm, parse_event_log
from tng.attest.tdx.eventlog_types import AAEL_TAG, type_name, type_number
from tng.attest.tdx.measurements import named_measurements, reference_values
from tng.attest.tdx.quote import parse_quote
from tng.errors import UntrustedPeerError

DIGEST = hashlib.sha384(b"measured").digest()


def entry(kind: EventType, event: bytes, index: int = 3) -> EventLogEntry:
    return EventLogEntry(index, kind, ((HashAlgorithm.SHA384, DIGEST),), event)


def tagged(tag: int, content: bytes) -> EventLogEntry:
    data = struct.pack("<II", tag, len(content)) + content
    return entry(EventType.EV_EVENT_TAG, data, 4)


def application(path: str) -> EventLogEntry:
    name = path.encode("utf-16-le") + b"\0\0"
    nodes = struct.pack("<BBH", 4, 4, 4 + len(name)) + name + b"\x7f\xff\x04\0"
    head = struct.pack("<QQQQ", 0, 0, 0, len(nodes))
    return entry(EventType.EV_EFI_BOOT_SERVICES_APPLICATION, head + nodes, 2)


def names(*entries: EventLogEntry) -> list[str]:
    return [measurement.name for measurement in named_measurements(entries)]


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (application(r"\EFI\x\shimx64.efi"), "shim"),
        (application(r"\EFI\x\grubx64.efi"), "grub"),
        (application("kernel"), "kernel"),
        (entry(EventType.EV_IPL, b"grub_linuxefi Kernel\0"), "kernel"),
        (entry(EventType.EV_IPL, b"grub_linuxefi Initrd\0"), "initrd"),
        (entry(EventType.EV_IPL, b"grub_kernel_cmdline Kernel=1\0"), "kernel_cmdline"),
        (entry(EventType.EV_IPL, b"grub_cmd linux /vmlinuz\0"), "kernel_cmdline"),
        (tagged(1, b"LOADED_IMAGE::LoadOptions\0"), "kernel_cmdline"),
        (tagged(1, b"Linux initrd\0"), "initrd"),
        (tagged(AAEL_TAG, b"example.com load x"), "AA.eventlog.example.com.load"),
    ],
)
def test_what_has_a_name(event, name):
    assert names(event) == [name]


@pytest.mark.parametrize(
    "event",
    [
        application(r"\EFI\x\other.efi"),
        entry(EventType.EV_EFI_BOOT_SERVICES_APPLICATION, struct.pack("<QQQQ", 0, 0, 0, 0)),
        entry(EventType.EV_IPL, b"grub_cmd set default\0"),
        entry(EventType.EV_SEPARATOR, b"Kernel"),
        tagged(1, b"Kernel"),
        entry(EventType.EV_IPL, b"grub_linuxefi Kernel\0", 5),
    ],
)
def test_what_has_none(event):
    assert names(event) == []


def test_what_an_agent_said_may_be_null(workshop):
    named = named_measurements([tagged(AAEL_TAG, b"example.com load null")])
    fields = parse_quote(workshop.quote()).body.claims()
    assert reference_values(fields, named)["AA.eventlog.example.com.load"] == [None]


def test_an_event_of_the_wrong_form_is_an_error():
    with pytest.raises(UntrustedPeerError):
        named_measurements([entry(EventType.EV_EVENT_TAG, b"\1")])


def test_every_entry_with_a_name_is_listed(workshop):
    entries = parse_event_log(workshop.log.to_bytes())
    twice = named_measurements((*entries, *entries))
    found = {m.name: m for m in twice if m.content is None}
    assert {name: m.digest.hex() for name, m in found.items()} == workshop.log.digests
    assert len(twice) == 2 * len(named_measurements(entries))
    assert found["shim"].register == "rtmr_1"
    assert found["kernel"].register == "rtmr_2"


def test_reference_values_have_the_names_of_both_kinds_of_trustee(workshop):
    quote = parse_quote(workshop.quote())
    named = named_measurements(parse_event_log(workshop.log.to_bytes()))
    assert [m.name for m in named if m.is_of_agent] == [
        "AA.eventlog.cryptpilot.alibabacloud.com.load_config"
    ]
    values = reference_values(quote.body.claims(), (*named, *named))
    for name, digest in workshop.log.digests.items():
        assert values[f"measurement.{name}.SHA-384"] == [digest]
    assert values["tdx.xfam"] == values["xfam"] == [quote.body.xfam.hex()]
    assert values["rtmr_2"] == [quote.body.rtmr_2.hex()]
    assert values["AA.eventlog.cryptpilot.alibabacloud.com.load_config"] == [{"alg": "sha384"}]
    assert "tdvfkernel" not in values


def test_what_the_firmware_starts_directly_has_names_of_its_own(workshop):
    entries = (application("kernel"), tagged(1, b"LOADED_IMAGE::LoadOptions"))
    fields = parse_quote(workshop.quote()).body.claims()
    values = reference_values(fields, named_measurements(entries))
    assert values["tdvfkernel"] == values["measurement.kernel.SHA-384"] == [DIGEST.hex()]
    assert values["tdvfkernelparams"] == [DIGEST.hex()]


@pytest.mark.parametrize("kind", [*EventType, 0x12345])
def test_types_have_names_and_names_have_types(kind):
    assert type_number(type_name(kind)) == kind


def test_a_name_without_a_type_is_an_error():
    with pytest.raises(ValueError):
        type_number("EV_WHAT")
