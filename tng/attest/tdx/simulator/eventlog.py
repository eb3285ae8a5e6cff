"""A confidential-computing event log (CCEL) written by the simulated firmware and boot loader.

Format: TCG "PC Client Platform Firmware Profile", crypto agile log with SHA-384, as the UEFI
specification's section on confidential computing uses it.  Register index 1 to 4 is RTMR 0 to
3.  `tdx.eventlog` reads it; replaying it gives the registers that `registers` returns.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from tng.attest.tdx.eventlog import AAEL_TAG, EventType

_SHA384: Final = 0x0C
_DIGEST_OCTETS: Final = 48
_END: Final = b"\xff" * 8
_GLOBAL_VARIABLE: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_SECURITY_DATABASE: Final = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
_COMMAND_LINE: Final = "/boot/vmlinuz root=/dev/vda3 ro console=ttyS0"


class SimulatedEventLog:
    """A log that grows event by event, and the registers that follow from it."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._registers = [bytes(_DIGEST_OCTETS)] * 5
        self.digests: dict[str, str] = {}
        """Digests of the named parts that were booted, lower-case hexadecimal."""

    @property
    def registers(self) -> tuple[bytes, bytes, bytes, bytes]:
        """RTMR 0 to 3."""
        _, *rtmrs = self._registers
        return rtmrs[0], rtmrs[1], rtmrs[2], rtmrs[3]

    def add(
        self,
        index: int,
        kind: EventType,
        data: bytes,
        *,
        measured: bytes | None = None,
        name: str | None = None,
    ) -> None:
        """Log an event and extend its register.

        Args:
            index: 1 to 4.
            kind: the event type.
            data: what the log shows.
            measured: what the digest covers, where that is not `data`.
            name: keep the digest under this name.
        """
        digest = hashlib.sha384(data if measured is None else measured).digest()
        self._registers[index] = hashlib.sha384(self._registers[index] + digest).digest()
        head = struct.pack("<IIIH", index, kind, 1, _SHA384)
        self._entries.append(head + digest + struct.pack("<I", len(data)) + data)
        if name is not None:
            self.digests[name] = digest.hex()

    def to_bytes(self) -> bytes:
        """The log as an attestation agent sends it."""
        algorithms = struct.pack("<IHH", 1, _SHA384, _DIGEST_OCTETS)
        specification = b"Spec ID Event03\0" + struct.pack("<IBBBB", 0, 0, 2, 0, 2)
        specification += algorithms + b"\0"
        header = struct.pack("<II20xI", 0, EventType.EV_NO_ACTION, len(specification))
        return header + specification + b"".join(self._entries) + _END


def make_boot_log() -> SimulatedEventLog:
    """The log of one ordinary boot: firmware, shim, grub, Linux, attestation agent."""
    log = SimulatedEventLog()
    _measure_firmware(log)
    _measure_loaders(log)
    _measure_kernel(log)
    content = b'cryptpilot.alibabacloud.com load_config {"alg":"sha384"}'
    tagged = struct.pack("<II", AAEL_TAG, len(content)) + content
    log.add(4, EventType.EV_EVENT_TAG, tagged)
    return log


def _measure_firmware(log: SimulatedEventLog) -> None:
    table = _described("TdxTable") + struct.pack("<Q", 1)
    log.add(1, EventType.EV_EFI_HANDOFF_TABLES2, table, measured=b"simulated TD hob")
    for name, value in (("SecureBoot", b"\0"), ("PK", b""), ("KEK", b"")):
        variable = _variable(name, value, _GLOBAL_VARIABLE)
        log.add(1, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, variable)
    for name in ("db", "dbx"):
        variable = _variable(name, b"", _SECURITY_DATABASE)
        log.add(1, EventType.EV_EFI_VARIABLE_DRIVER_CONFIG, variable)
    log.add(1, EventType.EV_SEPARATOR, bytes(4))


def _measure_loaders(log: SimulatedEventLog) -> None:
    order = _variable("BootOrder", bytes(2), _GLOBAL_VARIABLE)
    log.add(2, EventType.EV_EFI_VARIABLE_BOOT, order, measured=bytes(2))
    log.add(2, EventType.EV_EFI_ACTION, b"Calling EFI Application from Boot Option")
    log.add(2, EventType.EV_SEPARATOR, bytes(4))
    for name, path in (("shim", r"\EFI\BOOT\shimx64.efi"), ("grub", r"\EFI\alinux\grubx64.efi")):
        log.add(
            2,
            EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
            _application(path),
            measured=f"simulated {name} image".encode(),
            name=name,
        )
    for action in ("Exit Boot Services Invocation", "Exit Boot Services Returned with Success"):
        log.add(2, EventType.EV_EFI_ACTION, action.encode())


def _measure_kernel(log: SimulatedEventLog) -> None:
    for shown, measured, name in (
        ("grub_linuxefi Kernel", "simulated kernel image", "kernel"),
        (f"grub_kernel_cmdline {_COMMAND_LINE}", _COMMAND_LINE, "kernel_cmdline"),
        ("grub_linuxefi Initrd", "simulated initrd image", "initrd"),
    ):
        text = shown.encode() + b"\0"
        log.add(3, EventType.EV_IPL, text, measured=measured.encode(), name=name)


def _described(text: str) -> bytes:
    data = text.encode() + b"\0"
    return bytes([len(data)]) + data


def _variable(name: str, value: bytes, guid: bytes) -> bytes:
    return guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def _application(path: str) -> bytes:
    name = path.encode("utf-16-le") + b"\0\0"
    nodes = struct.pack("<BBH", 4, 4, 4 + len(name)) + name + b"\x7f\xff\x04\0"
    return struct.pack("<QQQQ", 0x7E000000, 0x10000, 0, len(nodes)) + nodes
