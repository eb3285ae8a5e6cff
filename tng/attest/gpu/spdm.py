"""A GPU's attestation report taken apart: a question for measurements, and the signed answer.

Octets in, a `GpuReport` out.  Layout: DMTF DSP0274 (SPDM 1.1), GET_MEASUREMENTS (section 10.11.1)
followed at once by MEASUREMENTS (10.11.2), as NVIDIA's driver returns both.  Measurements are in
DMTF format (specification 1).  Integers are little endian.

    report = parse_report(octets)
    report.nonce, report.measurements[1], report.signed_part

Every length field must fit exactly.  After the signature only zeros may follow, because drivers
hand out a buffer.  Nothing here is believed yet: `gpu.appraisal` verifies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tng.attest.evidence_text import malformed

MAX_REPORT_OCTETS: Final = 64 * 1024
"""Opaque data has at most 64 KiB by its length field; real reports have 4 KiB."""

NONCE_OCTETS: Final = 32
SIGNATURE_OCTETS: Final = 96
"""r and s of ECDSA P-384."""

_VERSION_11: Final = 0x11
_GET_MEASUREMENTS: Final = 0xE0
_MEASUREMENTS: Final = 0x60
_SIGNATURE_REQUESTED: Final = 0x01
_ALL_MEASUREMENTS: Final = 0xFF
_MAX_SLOT: Final = 7
_DMTF: Final = 0x01


@dataclass(frozen=True, slots=True)
class GpuReport:
    """A report whose form is right and whose truth is open.

    Attributes:
        nonce: 32 octets, from the question.
        measurements: value by index, 1 to 255; as many octets as the device's hash has.
        opaque: NVIDIA's own fields, see `gpu.fields`.
        signed_part: the octets under `signature`: question and answer.
        signature: 96 octets, r and s.
    """

    nonce: bytes
    measurements: dict[int, bytes]
    opaque: bytes
    signed_part: bytes
    signature: bytes


def parse_report(data: bytes) -> GpuReport:
    """Take a report apart.

    Args:
        data: question and answer; at most 64 KiB.

    Raises:
        UntrustedPeerError: not a complete report of this form (evidence_malformed).
    """
    if len(data) > MAX_REPORT_OCTETS:
        raise malformed(f"a report has at most {MAX_REPORT_OCTETS} octets, got {len(data)}")
    reader = Octets(data, "report")
    nonce = _parse_question(reader)
    count = _parse_answer_head(reader)
    record = Octets(reader.take(reader.integer(3, "record length"), "record"), "record")
    measurements = dict(_parse_block(record) for _ in range(count))
    if len(measurements) != count or record.left:
        raise malformed("the measurement record must hold each of its blocks once, and no more")
    reader.take(NONCE_OCTETS, "nonce of the device")
    opaque = reader.take(reader.integer(2, "opaque length"), "opaque data")
    signed_part = data[: len(data) - reader.left]
    signature = reader.take(SIGNATURE_OCTETS, "signature")
    if reader.take(reader.left, "padding").strip(b"\0"):
        raise malformed("octets after the report's signature that are not padding zeros")
    return GpuReport(nonce, measurements, opaque, signed_part, signature)


class Octets:
    """Octets taken one field after another; running out is an error that names the field.

    Args:
        data: all of them.
        what: their name in errors.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    @property
    def left(self) -> int:
        """How many have not been taken."""
        return len(self._data) - self._at

    def take(self, count: int, field: str) -> bytes:
        """The next `count` octets.

        Raises:
            UntrustedPeerError: there are fewer (evidence_malformed).
        """
        if count > self.left:
            raise malformed(f"the {self._what} is cut off in its {field}")
        start, self._at = self._at, self._at + count
        return self._data[start : self._at]

    def integer(self, count: int, field: str) -> int:
        """The next `count` octets as an integer, little endian; raises as `take`."""
        return int.from_bytes(self.take(count, field), "little")


def _parse_question(reader: Octets) -> bytes:
    _expect_code(reader, _GET_MEASUREMENTS, "question")
    wanted = reader.take(2, "parameters")
    if not wanted[0] & _SIGNATURE_REQUESTED or wanted[1] != _ALL_MEASUREMENTS:
        raise malformed("the report must answer a question for all measurements, signed")
    nonce = reader.take(NONCE_OCTETS, "nonce")
    if reader.integer(1, "slot") > _MAX_SLOT:
        raise malformed(f"a certificate slot is 0 to {_MAX_SLOT}")
    return nonce


def _parse_answer_head(reader: Octets) -> int:
    """How many blocks of measurements follow."""
    _expect_code(reader, _MEASUREMENTS, "answer")
    reader.take(2, "parameters")  # 1 counts measurements elsewhere, 2 names a slot again
    count = reader.integer(1, "number of blocks")
    if not count:
        raise malformed("a report has at least one measurement")
    return count


def _expect_code(reader: Octets, code: int, what: str) -> None:
    seen = reader.take(2, what)
    if seen != bytes([_VERSION_11, code]):
        raise malformed(f"the {what} begins with {seen.hex()}, expected 11{code:02x} (SPDM 1.1)")


def _parse_block(record: Octets) -> tuple[int, bytes]:
    """Index and value of one measurement (DSP0274 tables 43 and 44)."""
    index, specification = record.take(2, "block")
    if not index or specification != _DMTF:
        raise malformed(f"block {index} of specification {specification} is no DMTF measurement")
    block = Octets(record.take(record.integer(2, "block size"), "block"), "block")
    block.take(1, "value type")
    value = block.take(block.integer(2, "value size"), "value")
    if block.left:
        raise malformed(f"{block.left} octets after the value of measurement {index}")
    return index, value
