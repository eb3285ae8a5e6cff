"""NVIDIA's fields: names and forms, and that what is not known is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.gpu.fields import Field, parse_fields
from tng.errors import TngError, UntrustedPeerError


def opaque(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in fields)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Field.DRIVER_VERSION, b"550.90.07\0", "550.90.07"),
        (Field.VBIOS_VERSION, bytes.fromhex("009f009601000000"), "96.00.9f.00.01"),
        (Field.MEASUREMENT_COUNT, struct.pack("<III", 0, 1, 130), {"1": 0, "2": 1, "3": 130}),
        (Field.SWITCH_PDI, bytes(8) + b"\1" * 8, ["00" * 8, "01" * 8]),
        (Field.OPAQUE_DATA_VERSION, b"\2\0", 2),
        (Field.FEATURE_FLAG, b"\0\0", "SPT"),
        (Field.FEATURE_FLAG, b"\2\0", "PPCIE"),
        (Field.FEATURE_FLAG, b"\7\0", "unknown"),
        (Field.BOARD_ID, b"\xb1\3\0\0", "b1030000"),
    ],
)
def test_fields_are_shown_as_a_trustee_shows_them(kind, value, shown):
    assert parse_fields(opaque((kind, value))) == {kind.name.lower(): shown}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (opaque((999, b"")), "unknown type 999"),
        (opaque((Field.SMC, b"a"), (Field.SMC, b"b")), "smc twice"),
        (opaque((Field.VBIOS_VERSION, b"a")), "fewer than 2"),
        (opaque((Field.SMC, b"ab"))[:-1], "cut off"),
        (b"\1", "cut off"),
    ],
)
def test_other_fields_are_refused(data, match):
    with pytest.raises(UntrustedPeerError, match=match):
        parse_fields(data)


@given(st.binary(max_size=200))
def test_garbage_gives_an_error_of_ours(data):
    try:
        parse_fields(data)
    except TngError:
        return
