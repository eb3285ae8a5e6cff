"""The attribute bits of a trust domain, by name.

Eight octets of a TD report go in, `TdAttributes` comes out.  Source: Intel "TDX Module ABI
Specification", ATTRIBUTES: bits 0 to 7 are "TD under debug", 8 to 31 security, 32 to 63 the rest.
The names in claims are those of Trustee, whose policies read them.

Invariant: `is_debug` is true if any bit of the debug group is set, reserved ones included.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

ATTRIBUTES_OCTETS: Final = 8

_DEBUG_GROUP: Final = 0xFF


class TdAttribute(enum.IntFlag):
    """Bits with a meaning."""

    DEBUG = 1 << 0
    HGS_PLUS_PROFILING = 1 << 4
    PERFORMANCE_PROFILING = 1 << 5
    PMT_PROFILING = 1 << 6
    ICSSD = 1 << 16
    LASS = 1 << 27
    SEPT_VE_DISABLE = 1 << 28
    MIGRATABLE = 1 << 29
    PROTECTION_KEYS = 1 << 30
    KEY_LOCKER = 1 << 31
    TPA = 1 << 62
    PERFMON = 1 << 63


_CLAIMS: Final = {
    "debug": TdAttribute.DEBUG,
    "septve_disable": TdAttribute.SEPT_VE_DISABLE,
    "protection_keys": TdAttribute.PROTECTION_KEYS,
    "key_locker": TdAttribute.KEY_LOCKER,
    "perfmon": TdAttribute.PERFMON,
}
_KNOWN: Final = sum(TdAttribute)


@dataclass(frozen=True, slots=True)
class TdAttributes:
    """Attributes of one trust domain.

    Attributes:
        bits: all 64, known or not.
    """

    bits: int

    @classmethod
    def parse(cls, octets: bytes) -> TdAttributes:
        """Read the field of a TD report: 8 octets, little endian."""
        return cls(int.from_bytes(octets, "little"))

    @property
    def is_debug(self) -> bool:
        """Whether the host may look into the domain: debugging, or profiling of any kind."""
        return bool(self.bits & _DEBUG_GROUP)

    @property
    def names(self) -> tuple[str, ...]:
        """What is set, lowest bit first, e.g. "sept_ve_disable"; "bit 9" where it has no name."""
        known = [a for a in TdAttribute if self.bits & a]
        unknown = [n for n in range(ATTRIBUTES_OCTETS * 8) if self.bits & ~_KNOWN & 1 << n]
        return tuple([str(a.name).lower() for a in known] + [f"bit {n}" for n in unknown])

    def claims(self) -> dict[str, bool]:
        """The five that a Trustee shows as `td_attributes`."""
        return {name: bool(self.bits & bit) for name, bit in _CLAIMS.items()}

    def __str__(self) -> str:
        return ", ".join(self.names) or "none"
