"""The SGX extension of a PCK certificate, encoded.

Layout: Intel "PCK Certificate and CRL Specification", section 1.3.5, OID
1.2.840.113741.1.13.1: a SEQUENCE of SEQUENCE {OID, value}.  The encoder knows the few DER
types that it needs (X.690) and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tng.attest.tdx.simulator.profile import HostProfile

_SGX: Final = (1, 2, 840, 113741, 1, 13, 1)
_BOOLEAN: Final = 0x01
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_OID: Final = 0x06
_ENUMERATED: Final = 0x0A
_SEQUENCE: Final = 0x30
_TRUE: Final = b"\xff"
_FALSE: Final = b"\0"


def encode_sgx_extension(profile: HostProfile) -> bytes:
    """The extension's value for a platform as `profile` describes it."""
    components = [_entry((2, i + 1), _integer(v)) for i, v in enumerate(profile.cpu_svn)]
    components += [
        _entry((2, 17), _integer(profile.pce_svn)),
        _entry((2, 18), _tagged(_OCTETS, profile.cpu_svn)),
    ]
    # A real cloud host states all three: dynamic platform, cached keys, SMT.
    flags = [_entry((7, i), _tagged(_BOOLEAN, _TRUE if i == 3 else _FALSE)) for i in (1, 2, 3)]
    return _tagged(
        _SEQUENCE,
        b"".join(
            (
                _entry((1,), _tagged(_OCTETS, profile.ppid)),
                _entry((2,), _tagged(_SEQUENCE, b"".join(components))),
                _entry((3,), _tagged(_OCTETS, profile.pce_id)),
                _entry((4,), _tagged(_OCTETS, profile.fmspc)),
                _entry((5,), _integer(profile.sgx_type, _ENUMERATED)),
                _entry((6,), _tagged(_OCTETS, profile.platform_instance_id)),
                _entry((7,), _tagged(_SEQUENCE, b"".join(flags))),
            )
        ),
    )


def _tagged(tag: int, contents: bytes) -> bytes:
    length = len(contents)
    if length < 0x80:
        return bytes([tag, length]) + contents
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + contents


def _integer(value: int, tag: int = _INTEGER) -> bytes:
    # One more bit than the value has, so that 128 and above stay positive.
    return _tagged(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _oid(arcs: tuple[int, ...]) -> bytes:
    contents = bytearray([arcs[0] * 40 + arcs[1]])
    for arc in arcs[2:]:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        contents += bytes(reversed(groups))
    return _tagged(_OID, bytes(contents))


def _entry(suffix: tuple[int, ...], value: bytes) -> bytes:
    return _tagged(_SEQUENCE, _oid(_SGX + suffix) + value)
