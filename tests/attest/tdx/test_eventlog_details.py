"""What events say, by type, as a Trustee shows it."""

from __future__ import annotations

import json
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.tdx.eventlog_details import describe
from tng.attest.tdx.eventlog_types import AAEL_TAG, EventType
from tng.errors import ErrorCode, UntrustedPeerError

GUID = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def tagged(tag: int, content: bytes) -> bytes:
    return struct.pack("<II", tag, len(content)) + content


def application(*nodes: tuple[int, int, bytes]) -> bytes:
    path = b"".join(struct.pack("<BBH", k, s, 4 + len(d)) + d for k, s, d in nodes)
    return struct.pack("<QQQQ", 1, 2, 3, len(path) + 4) + path + b"\x7f\xff\x04\0"


@pytest.mark.parametrize(
    ("kind", "event", "details"),
    [
        (EventType.EV_EFI_ACTION, b"Exit", {"string": "Exit"}),
        (EventType.EV_SEPARATOR, b"\0\0\0\0", {}),
        (EventType.EV_PLATFORM_CONFIG_FLAGS, b"a\x10b\0\x7f", {"string": "a b"}),
        (EventType.EV_PLATFORM_CONFIG_FLAGS, b"\xff", {"string": ""}),
        (EventType.EV_IPL, b"MokList\0rest", {"string": "MokList"}),
        (EventType.EV_IPL, b"\xff\xfe", {"string": "fffe"}),
        (EventType.EV_IPL, ".linux\0".encode("utf-16-le"), {"string": "linux"}),
        (EventType.EV_EFI_HANDOFF_TABLES2, b"\x04abc\0tail", {"string": "abc"}),
        (EventType.EV_EFI_HANDOFF_TABLES2, b"\x03abc", {"string": "ab"}),
        (EventType.EV_EVENT_TAG, tagged(1, b"Load\0Options"), {"string": "LoadOptions"}),
        (EventType.EV_EFI_BOOT_SERVICES_APPLICATION, struct.pack("<QQQQ", 1, 2, 3, 0), {}),
    ],
)
def test_details_of_simple_types(kind, event, details):
    assert describe(kind, event) == details


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("dom op text here", "text here"),
        ('dom op {"a":[1]}', {"a": [1]}),
        ("dom op", ""),
        ("dom op NaN", "NaN"),
        ("dom op 1e999", "1e999"),
        (r'dom op "\ud800"', r'"\ud800"'),
        ("dom op " + "[" * 50_000, "[" * 50_000),
    ],
)
def test_agent_events_are_split_and_their_content_parsed(content, data):
    details = describe(EventType.EV_EVENT_TAG, tagged(AAEL_TAG, content.encode()))
    assert details["unicode_name"] == "AAEL"
    assert details["data"] == {"domain": "dom", "operation": "op", "content": data}
    json.dumps(details, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ((1, 1, b"\x02\x03"), "Pci(2,3)"),
        ((2, 1, struct.pack("<II", 0x0A0341D0, 7)), "ACPI(PNP0A03,7)"),
        ((3, 5, b"\x01\x02"), "USB(1,2)"),
        ((3, 11, bytes(range(32)) + b"\x01"), "Mac(00:01:02:03:04:05)"),
        (
            (4, 1, struct.pack("<IQQ16sBB", 2, 0x800, 0x1000, GUID.bytes_le, 2, 2)),
            f"HD(2,GPT,{str(GUID).upper()},0x800,0x1000)",
        ),
        (
            (4, 1, struct.pack("<IQQ16sBB", 1, 1, 2, b"\x78\x56\x34\x12".ljust(16, b"\0"), 1, 1)),
            "HD(1,MBR,0x12345678,0x1,0x2)",
        ),
        ((4, 3, GUID.bytes_le + b"\xab"), f"VenMedia({str(GUID).upper()},ab)"),
        ((4, 4, "\\EFI\0".encode("utf-16-le")), "File(\\EFI)"),
        ((9, 9, b"\x01"), "Path(9,9,01)"),
    ],
)
def test_nodes_of_device_paths(node, text):
    details = describe(EventType.EV_EFI_BOOT_SERVICES_APPLICATION, application(node, node))
    assert details == {"device_paths": [text, text]}


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (EventType.EV_EFI_ACTION, b"\xff"),
        (EventType.EV_EVENT_TAG, b"\0"),
        (EventType.EV_EFI_HANDOFF_TABLES2, b""),
        (EventType.EV_EFI_VARIABLE_BOOT, bytes(16) + struct.pack("<QQ", 1, 1) + b"a\0"),
        (EventType.EV_EFI_VARIABLE_BOOT, bytes(10)),
        (EventType.EV_EFI_BOOT_SERVICES_APPLICATION, struct.pack("<QQQQ", 1, 2, 3, 99)),
        (EventType.EV_EFI_BOOT_SERVICES_APPLICATION, application((1, 1, b"\x01"))),
        (EventType.EV_EFI_BOOT_SERVICES_APPLICATION, application((4, 3, b"\x01"))),
        (
            EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
            struct.pack("<QQQQ", 1, 2, 3, 8) + b"\x01\x01\x03\0" + bytes(4),
        ),
    ],
)
def test_data_that_is_not_of_its_type_is_refused(kind, event):
    with pytest.raises(UntrustedPeerError) as caught:
        describe(kind, event)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


@given(st.sampled_from(list(EventType)), st.binary(max_size=120))
def test_garbage_gives_details_that_a_token_can_carry_or_a_defined_error(kind, event):
    try:
        details = describe(kind, event)
    except UntrustedPeerError:
        return
    json.dumps(details, ensure_ascii=False, allow_nan=False).encode()
