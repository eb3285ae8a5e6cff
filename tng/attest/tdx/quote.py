"""A TDX quote taken apart: what the hardware said, who signed it, with which certificates.

Octets in, a `Quote` out.  Layout: Intel "TDX DCAP Quoting Library API", quote formats 4 and 5
(TD report 1.0 and 1.5), ECDSA P-256 attestation keys, certification data of type 6 holding
type 5.  Integers are little endian; signatures and keys are raw 32 + 32 octets.

    quote = parse_quote(octets)
    quote.body.report_data, quote.is_debug, quote.claims()

Every length field must fit exactly.  After the quote only zeros may follow, because kernels
hand out a padded buffer.  Nothing here is believed yet: `tdx.dcap` verifies.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from tng.attest.evidence_text import malformed
from tng.attest.tdx.attributes import TdAttributes

MAX_QUOTE_OCTETS: Final = 32 * 1024
"""The largest buffer Linux' configfs-tsm hands out; real quotes are near 5 KiB."""

INTEL_QE_VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Vendor id of Intel's quoting enclave; the only one whose quotes are understood."""

TDX_TEE_TYPE: Final = 0x81
REPORT_DATA_OCTETS: Final = 64
MEASUREMENT_OCTETS: Final = 48

_ECDSA_P256: Final = 2
_HEADER: Final = struct.Struct("<HHI4s16s20s")
_BODY_PREFIX: Final = struct.Struct("<HI")
_BODY_10: Final = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_BODY_15_TAIL: Final = struct.Struct("<16s48s")
_BODY_SIZES: Final = {2: _BODY_10.size, 3: _BODY_10.size + _BODY_15_TAIL.size}
_QE_REPORT_OCTETS: Final = 384
_QE_AUTHENTICATION_OCTETS: Final = 32
_CERTIFIED_BY_QE_REPORT: Final = 6
_CERTIFIED_BY_PCK_CHAIN: Final = 5


@dataclass(frozen=True, slots=True)
class QuoteHeader:
    """The first 48 octets.

    Attributes:
        version: 4 or 5.
        attestation_key_type: 2, ECDSA P-256.
        tee_type: 0x81, TDX.
        reserved: 4 octets.
        vendor_id: 16 octets, the maker of the quoting enclave.
        user_data: 20 octets, free text of the quoting enclave.
    """

    version: int
    attestation_key_type: int
    tee_type: int
    reserved: bytes
    vendor_id: bytes
    user_data: bytes


@dataclass(frozen=True, slots=True)
class TdReport:
    """What the TDX module says about one trust domain; octets in the order of the quote.

    `tee_tcb_svn2` and `mr_servicetd` are None in a TD report 1.0.
    """

    tcb_svn: bytes
    mr_seam: bytes
    mrsigner_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr_0: bytes
    rtmr_1: bytes
    rtmr_2: bytes
    rtmr_3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_servicetd: bytes | None = None

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        """The four run-time measurement registers, 48 octets each."""
        return self.rtmr_0, self.rtmr_1, self.rtmr_2, self.rtmr_3

    def claims(self) -> dict[str, str]:
        """Every field as lower-case hexadecimal, under the names a Trustee uses."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value.hex() for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Certification:
    """Why the attestation key is to be believed.

    Attributes:
        qe_report: 384 octets, the report of the quoting enclave.
        qe_report_signature: 64 octets, by the PCK key.
        qe_authentication: 32 octets that the report binds together with the attestation key.
        pck_chain_pem: PEM certificates, leaf first.
    """

    qe_report: bytes
    qe_report_signature: bytes
    qe_authentication: bytes
    pck_chain_pem: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote whose form is right and whose truth is open.

    Attributes:
        raw: the quote without what followed it.
        header: the first 48 octets.
        body_type: 2 or 3 in version 5; None in version 4, which has no such field.
        body: the TD report.
        signed_part: the octets under `signature`: header and body.
        signature: 64 octets, by the attestation key.
        attestation_key: 64 octets, x and y.
        certification: where that key comes from.
    """

    raw: bytes
    header: QuoteHeader
    body_type: int | None
    body: TdReport
    signed_part: bytes
    signature: bytes
    attestation_key: bytes
    certification: Certification

    @property
    def td_attributes(self) -> TdAttributes:
        """The attributes of the trust domain."""
        return TdAttributes.parse(self.body.td_attributes)

    @property
    def is_debug(self) -> bool:
        """Whether the host may look into the trust domain: debugging or profiling."""
        return self.td_attributes.is_debug

    def claims(self) -> dict[str, object]:
        """The tree a Trustee puts under `tdx.quote`: hexadecimal text in octet order."""
        header = {
            "version": self.header.version.to_bytes(2, "little").hex(),
            "att_key_type": self.header.attestation_key_type.to_bytes(2, "little").hex(),
            "tee_type": self.header.tee_type.to_bytes(4, "little").hex(),
            "reserved": self.header.reserved.hex(),
            "vendor_id": self.header.vendor_id.hex(),
            "user_data": self.header.user_data.hex(),
        }
        claims: dict[str, object] = {"header": header, "body": self.body.claims()}
        if self.body_type is not None:
            claims["type"] = self.body_type.to_bytes(2, "little").hex()
            claims["size"] = _BODY_SIZES[self.body_type].to_bytes(4, "little").hex()
        return claims


def parse_quote(data: bytes) -> Quote:
    """Take a TDX quote apart.

    Args:
        data: the quote, and perhaps the zeros a kernel pads it with; at most 32 KiB.

    Raises:
        UntrustedPeerError: not a complete TDX quote of version 4 or 5 (evidence_malformed).
    """
    if len(data) > MAX_QUOTE_OCTETS:
        raise malformed(f"a quote has at most {MAX_QUOTE_OCTETS} octets, got {len(data)}")
    reader = _Reader(bytes(data), "quote")
    header = _parse_header(reader)
    body_type, body = _parse_body(reader, header.version)
    signed_part = reader.consumed
    signature_data = _Reader(reader.take(reader.u32("signature length"), "signature data"), "quote")
    quote = Quote(
        raw=reader.consumed,
        header=header,
        body_type=body_type,
        body=body,
        signed_part=signed_part,
        signature=signature_data.take(64, "quote signature"),
        attestation_key=signature_data.take(64, "attestation key"),
        certification=_parse_certification(signature_data),
    )
    if reader.rest.strip(b"\0"):
        raise malformed(f"{len(reader.rest)} octets after the quote that are not padding zeros")
    return quote


class _Reader:
    """Octets taken one field after another; running out is an error that names the field."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def take(self, count: int, field: str) -> bytes:
        end = self._at + count
        if end > len(self._data):
            missing = end - len(self._data)
            raise malformed(f"{self._what} is cut off: {missing} octets missing in the {field}")
        value = self._data[self._at : end]
        self._at = end
        return value

    def u16(self, field: str) -> int:
        return int.from_bytes(self.take(2, field), "little")

    def u32(self, field: str) -> int:
        return int.from_bytes(self.take(4, field), "little")

    @property
    def consumed(self) -> bytes:
        return self._data[: self._at]

    @property
    def rest(self) -> bytes:
        return self._data[self._at :]


def _parse_header(reader: _Reader) -> QuoteHeader:
    header = QuoteHeader(*_HEADER.unpack(reader.take(_HEADER.size, "header")))
    if header.version not in {4, 5}:
        raise malformed(f"a TDX quote has version 4 or 5, got {header.version}")
    if header.attestation_key_type != _ECDSA_P256:
        raise malformed(f"attestation key type must be 2, got {header.attestation_key_type}")
    if header.tee_type != TDX_TEE_TYPE:
        raise malformed(f"TEE type must be 0x81 (TDX), got {header.tee_type:#x}")
    if header.vendor_id != INTEL_QE_VENDOR:
        raise malformed(f"unknown quoting enclave vendor {header.vendor_id.hex()}")
    return header


def _parse_body(reader: _Reader, version: int) -> tuple[int | None, TdReport]:
    body_type: int | None = None
    if version == 5:
        body_type, size = _BODY_PREFIX.unpack(reader.take(_BODY_PREFIX.size, "body type"))
        if _BODY_SIZES.get(body_type) != size:
            raise malformed(f"body type {body_type} with {size} octets is no TD report 1.0 or 1.5")
    fields = _BODY_10.unpack(reader.take(_BODY_10.size, "TD report"))
    if body_type == 3:
        fields += _BODY_15_TAIL.unpack(reader.take(_BODY_15_TAIL.size, "TD report 1.5"))
    return body_type, TdReport(*fields)


def _parse_certification(reader: _Reader) -> Certification:
    outer = _typed(reader, _CERTIFIED_BY_QE_REPORT, "QE report certification data")
    report = outer.take(_QE_REPORT_OCTETS, "QE report")
    signature = outer.take(64, "QE report signature")
    authentication = outer.take(outer.u16("QE authentication length"), "QE authentication data")
    if len(authentication) != _QE_AUTHENTICATION_OCTETS:
        raise malformed(f"QE authentication data must have 32 octets, got {len(authentication)}")
    chain = _typed(outer, _CERTIFIED_BY_PCK_CHAIN, "PCK chain")
    if outer.rest:
        raise malformed(f"{len(outer.rest)} octets after the PCK chain")
    return Certification(report, signature, authentication, chain.rest)


def _typed(reader: _Reader, expected: int, field: str) -> _Reader:
    """The contents of one certification data structure: type, length, octets."""
    kind = reader.u16(field)
    if kind != expected:
        raise malformed(f"{field}: certification type must be {expected}, got {kind}")
    contents = _Reader(reader.take(reader.u32(field), field), "quote")
    if expected == _CERTIFIED_BY_QE_REPORT and reader.rest:
        raise malformed(f"{len(reader.rest)} octets after the {field}")
    return contents
