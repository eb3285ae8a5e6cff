"""NVIDIA's own fields in a GPU's report: versions, serial texts, states, by name.

The opaque data of a report go in, a dictionary as a Trustee's claims show it (`config`) comes
out.  Layout: fields of type, length (16 bits each, little endian) and value.  Names and forms are
those of the `nvidia` verifier of upstream Trustee, whose policies read them.

Invariant: every field is known and stands once, or the report is refused.
"""

from __future__ import annotations

import enum
from typing import Final

from tng.attest.evidence_text import malformed
from tng.attest.gpu.spdm import Octets

Config = dict[str, "str | int | list[str] | dict[str, int]"]
"""Fields by name."""


class Field(enum.IntEnum):
    """Types of fields; the name in lower case is the claim's."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4
    ID_SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MEASUREMENT_COUNT = 12
    CPR_INFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    FLOORSWEPT_PORTS = 23
    POSITION_ID = 24
    LOCK_SWITCH_STATUS = 25
    GPU_LINK_CONN = 32
    SYS_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36


_TEXTS: Final = frozenset(
    {
        Field.DRIVER_VERSION,
        Field.NVDEC0_STATUS,
        Field.CHIP_SKU,
        Field.CHIP_SKU_MOD,
        Field.PROJECT,
        Field.PROJECT_SKU,
        Field.PROTECTED_PCIE_STATUS,
        Field.CHIP_INFO,
    }
)
_MODES: Final = {0: "SPT", 1: "MPT", 2: "PPCIE"}
_COUNT_OCTETS: Final = 4
_SWITCH_ID_OCTETS: Final = 8


def parse_fields(opaque: bytes) -> Config:
    """Every field by name.

    Raises:
        UntrustedPeerError: cut off, an unknown type, or one that stands twice
            (evidence_malformed).
    """
    reader = Octets(opaque, "opaque data")
    config: Config = {}
    while reader.left:
        number = reader.integer(2, "field type")
        value = reader.take(reader.integer(2, "field length"), "field")
        try:
            field = Field(number)
        except ValueError as exc:
            raise malformed(f"the report has a field of unknown type {number}") from exc
        name = field.name.lower()
        if name in config:
            raise malformed(f"the report has the field {name} twice")
        config[name] = _show(field, value)
    return config


def _show(field: Field, value: bytes) -> str | int | list[str] | dict[str, int]:
    if field in _TEXTS:
        return value.decode(errors="replace").rstrip("\0")
    match field:
        case Field.VBIOS_VERSION:
            return _vbios_version(value)
        case Field.MEASUREMENT_COUNT:
            starts = range(0, len(value) - _COUNT_OCTETS + 1, _COUNT_OCTETS)
            return {
                str(number): int.from_bytes(value[at : at + _COUNT_OCTETS], "little")
                for number, at in enumerate(starts, 1)
            }
        case Field.SWITCH_PDI:
            starts = range(0, len(value), _SWITCH_ID_OCTETS)
            return [value[at : at + _SWITCH_ID_OCTETS].hex() for at in starts]
        case Field.OPAQUE_DATA_VERSION:
            return int.from_bytes(value, "little")
        case Field.FEATURE_FLAG:
            return _MODES.get(int.from_bytes(value, "little"), "unknown")
        case _:
            return value.hex()


def _vbios_version(value: bytes) -> str:
    """The first half backwards, then the first octet of the second, as in "96.00.9f.00.01"."""
    half = len(value) // 2
    if not half:
        raise malformed("the VBIOS version has fewer than 2 octets")
    return ".".join(f"{octet:02x}" for octet in (*reversed(value[:half]), value[half]))
