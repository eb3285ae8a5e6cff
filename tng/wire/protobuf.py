"""Protocol Buffers messages, as far as small fixed messages need them.

Fields (number, value) in, octets out, and back (protobuf.dev, "Encoding"):

    data = dump_fields([(1, b"tdx"), (4, 50)])
    parse_fields(data)                 # [(1, b"tdx"), (4, 50)]

Lengths, unsigned numbers and fixed-width fields only; groups are refused.

Invariant: parsing takes time and memory proportional to the octets given, and octets that are
no message end in `RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tng.errors import LocalProtocolError, RemoteProtocolError

Field = tuple[int, int | bytes]
"""A field number, 1 to 2**29 - 1, and an unsigned number or the octets of anything else."""

MAX_FIELDS: Final = 4096
"""Fields of one message; those read here have five, newer versions may add some."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_NUMBER: Final = (1 << 29) - 1
_MAX_VARINT: Final = (1 << 64) - 1
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}


def dump_fields(fields: Iterable[Field]) -> bytes:
    """Write a message; numbers as varints, octets length-delimited, in the order given.

    Raises:
        LocalProtocolError: a field number or a value outside its range.
    """
    out = bytearray()
    for number, value in fields:
        if not 1 <= number <= _MAX_NUMBER:
            raise LocalProtocolError(f"protobuf has no field number {number}")
        if isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(value)
        else:
            out += _varint(number << 3 | _LENGTH) + _varint(len(value)) + value
    return bytes(out)


def parse_fields(data: bytes) -> list[Field]:
    """Read a message; fixed-width fields come as their octets.

    Raises:
        RemoteProtocolError: cut short, a number beyond 64 bits, a group, field number 0, or more
            than `MAX_FIELDS` fields.
    """
    fields: list[Field] = []
    at = 0
    while at < len(data):
        if len(fields) == MAX_FIELDS:
            raise RemoteProtocolError(f"protobuf message has more than {MAX_FIELDS} fields")
        key, at = _read_varint(data, at)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number <= _MAX_NUMBER:
            raise RemoteProtocolError(f"protobuf message has a field with number {number}")
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            fields.append((number, value))
            continue
        if wire_type == _LENGTH:
            size, at = _read_varint(data, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise RemoteProtocolError(f"protobuf field {number} has wire type {wire_type}")
        if size > len(data) - at:
            raise RemoteProtocolError(f"protobuf field {number} is cut short")
        fields.append((number, data[at : at + size]))
        at += size
    return fields


def last_bytes(fields: Sequence[Field], number: int) -> bytes:
    """The octets of a field: the last one counts, absent means empty (proto3).

    Raises:
        RemoteProtocolError: the field holds a number.
    """
    value = _last(fields, number, b"")
    if isinstance(value, int):
        raise RemoteProtocolError(f"protobuf field {number} is a number, expected octets")
    return value


def last_text(fields: Sequence[Field], number: int) -> str:
    """The text of a field, as `last_bytes`.

    Raises:
        RemoteProtocolError: the field holds a number, or octets that are not UTF-8.
    """
    try:
        return last_bytes(fields, number).decode()
    except UnicodeDecodeError as exc:
        raise RemoteProtocolError(f"protobuf field {number} is not UTF-8 text") from exc


def last_number(fields: Sequence[Field], number: int) -> int:
    """The unsigned number of a field: the last one counts, absent means 0 (proto3).

    Raises:
        RemoteProtocolError: the field holds octets.
    """
    value = _last(fields, number, 0)
    if not isinstance(value, int):
        raise RemoteProtocolError(f"protobuf field {number} is octets, expected a number")
    return value


def _last(fields: Sequence[Field], number: int, default: int | bytes) -> int | bytes:
    return next((value for key, value in reversed(fields) if key == number), default)


def _varint(value: int) -> bytes:
    if not 0 <= value <= _MAX_VARINT:
        raise LocalProtocolError(f"protobuf has no varint for {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):  # ten octets carry 64 bits
        if at == len(data):
            raise RemoteProtocolError("protobuf message is cut short within a number")
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if value > _MAX_VARINT:
                break
            return value, at
    raise RemoteProtocolError("protobuf message has a number of more than 64 bits")
