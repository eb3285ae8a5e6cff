"""What the octets of an event say, as a Trustee's claims show them (`details`).

One function per family of event types; types without one have no details.  The names and the
two irregularities (marked below) are those of Trustee 1.9, whose policies read them.  Shown to
people and to policies, never used to replay: only digests count there.
"""

from __future__ import annotations

import base64
import json
import struct
import uuid
from typing import TYPE_CHECKING, Final

from tng.attest.evidence_text import malformed
from tng.attest.tdx.eventlog_types import AAEL_TAG, EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Details = dict[str, object]

_VARIABLE_HEAD: Final = struct.Struct("<16sQQ")
_APPLICATION_HEAD: Final = struct.Struct("<QQQQ")
_NODE_HEAD: Final = struct.Struct("<BBH")
_HARD_DRIVE: Final = struct.Struct("<IQQ16sBB")
_TAG_HEAD: Final = struct.Struct("<II")
_END_NODE_OCTETS: Final = 4
_GPT: Final = 2


def describe(kind: int, event: bytes) -> Details:
    """Details of one event; {} for a type that has none.

    Raises:
        UntrustedPeerError: the octets do not have the form of their type (evidence_malformed).
    """
    reader = _READERS.get(kind)
    if reader is None:
        return {}
    try:
        return reader(event)
    except (struct.error, ValueError) as exc:  # cut off, or text that is not Unicode
        raise malformed(f"the data of an event of type {kind:#x} has not the form of it") from exc


def _text(event: bytes) -> Details:
    return {"string": event.decode()}


def _tag(event: bytes) -> Details:
    tag, size = _TAG_HEAD.unpack_from(event)
    content = event[_TAG_HEAD.size : _TAG_HEAD.size + size]
    text = content.decode(errors="replace").replace("\0", "")
    if tag != AAEL_TAG:
        return {"string": text}
    domain, _, rest = text.partition(" ")
    operation, _, value = rest.partition(" ")
    data = {"domain": domain, "operation": operation, "content": _json_or_text(value)}
    return {"string": text, "unicode_name": "AAEL", "data": data}


def _json_or_text(value: str) -> object:
    """The JSON value that `value` spells; `value` itself when a token could not carry it."""
    try:
        parsed: object = json.loads(value)
        json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return value
    return parsed


def _platform_flags(event: bytes) -> Details:
    try:
        text = event.decode()
    except UnicodeDecodeError:
        text = ""
    spaced = text.replace("\x10", " ")
    return {"string": "".join(c for c in spaced if ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0)}


def _ipl(event: bytes) -> Details:
    if event.startswith(b".\0"):
        return {"string": event[2:-2].decode("utf-16-le")}
    try:
        return {"string": event.partition(b"\0")[0].decode()}
    except UnicodeDecodeError:
        return {"string": event.hex()}


def _blob(event: bytes) -> Details:
    if not event:
        raise ValueError("no length octet")
    # The length counts a final NUL, which is left out; where firmware writes none, this leaves
    # out the last letter, as Trustee does.
    return {"string": event[1 : event[0]].decode()}


def _variable(event: bytes) -> Details:
    guid, name_length, data_length = _VARIABLE_HEAD.unpack_from(event)
    name_end = _VARIABLE_HEAD.size + 2 * name_length
    if name_end + data_length > len(event):
        raise ValueError("cut off")
    digits = guid.hex()  # Trustee shows the octets as they lie, not as a GUID is written
    groups = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return {
        "unicode_name": event[_VARIABLE_HEAD.size : name_end].decode("utf-16-le"),
        "unicode_name_length": name_length,
        "variable_data": base64.b64encode(event[name_end : name_end + data_length]).decode(),
        "variable_data_length": data_length,
        "variable_name": "-".join(groups),
    }


def _application(event: bytes) -> Details:
    *_, length = _APPLICATION_HEAD.unpack_from(event)
    if length < _END_NODE_OCTETS:
        return {}
    path = event[_APPLICATION_HEAD.size :][: length - _END_NODE_OCTETS]
    if len(path) != length - _END_NODE_OCTETS:
        raise ValueError("cut off")
    nodes = []
    while path:
        kind, subtype, size = _NODE_HEAD.unpack_from(path)
        if not _NODE_HEAD.size <= size <= len(path):
            raise ValueError("a device path node has an impossible length")
        nodes.append(_node(kind, subtype, path[_NODE_HEAD.size : size]))
        path = path[size:]
    return {"device_paths": nodes}


def _node(kind: int, subtype: int, data: bytes) -> str:
    """One node of a device path, UEFI specification section 10.3."""
    match kind, subtype:
        case 1, 1:
            function, device = struct.unpack("<BB", data)
            return f"Pci({function},{device})"
        case 2, 1:
            hardware, unique = struct.unpack("<II", data)
            return f"ACPI(PNP{hardware >> 16:04X},{unique})"
        case 3, 5:
            port, interface = struct.unpack("<BB", data)
            return f"USB({port},{interface})"
        case 3, 11:
            return f"Mac({data[:6].hex(':')})"
        case 4, 1:
            return _hard_drive(data)
        case 4, 3:
            return f"VenMedia({str(uuid.UUID(bytes_le=data[:16])).upper()},{data[16:].hex()})"
        case 4, 4:
            return f"File({data.decode('utf-16-le').rstrip(chr(0))})"
        case _:
            return f"Path({kind},{subtype},{data.hex()})"


def _hard_drive(data: bytes) -> str:
    number, start, size, signature, table, _ = _HARD_DRIVE.unpack(data)
    if table == _GPT:
        return f"HD({number},GPT,{str(uuid.UUID(bytes_le=signature)).upper()},{start:#x},{size:#x})"
    return f"HD({number},MBR,0x{int.from_bytes(signature[:4], 'little'):08x},{start:#x},{size:#x})"


_READERS: Final[Mapping[int, Callable[[bytes], Details]]] = {
    EventType.EV_POST_CODE: _text,
    EventType.EV_ACTION: _text,
    EventType.EV_COMPACT_HASH: _text,
    EventType.EV_OMIT_BOOT_DEVICE_EVENTS: _text,
    EventType.EV_EFI_ACTION: _text,
    EventType.EV_EVENT_TAG: _tag,
    EventType.EV_PLATFORM_CONFIG_FLAGS: _platform_flags,
    EventType.EV_IPL: _ipl,
    EventType.EV_EFI_VARIABLE_DRIVER_CONFIG: _variable,
    EventType.EV_EFI_VARIABLE_BOOT: _variable,
    EventType.EV_EFI_VARIABLE_BOOT2: _variable,
    EventType.EV_EFI_VARIABLE_AUTHORITY: _variable,
    EventType.EV_EFI_BOOT_SERVICES_APPLICATION: _application,
    EventType.EV_EFI_PLATFORM_FIRMWARE_BLOB2: _blob,
    EventType.EV_EFI_HANDOFF_TABLES2: _blob,
}
