"""Key configurations of OHTTP (RFC 9458 section 3, `application/ohttp-keys`).

A list of configurations  <->  octets:

    (u16 length, u8 key id, u16 KEM, public key, u16 length, (u16 KDF, u16 AEAD)*)*

Parsing follows what the reference's client accepts (2.12.0): a configuration for another KEM is
passed over, suites that are registered but cannot be used here are left out, a suite of unknown
numbers makes its whole configuration unusable, and a list that is cut short is refused.

Invariant: what is parsed has an X25519 key of 32 octets and at least one suite, all supported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.hpke import KEM_X25519, PUBLIC_KEY_SIZE
from tng.wire.hpke_aead import AEAD_AES_128_GCM, AEAD_CHACHA20_POLY1305, KDF_SHA256, Suite

__all__ = [
    "ADVERTISED_SUITES",
    "MAX_KEY_CONFIG_LIST",
    "KeyConfig",
    "Suite",
    "choose",
    "dump_key_config_list",
    "parse_key_config_list",
]

ADVERTISED_SUITES: Final = (
    Suite(KDF_SHA256, AEAD_AES_128_GCM),
    Suite(KDF_SHA256, AEAD_CHACHA20_POLY1305),
)
"""What an egress of ours offers, in this order; a client takes the first that it knows."""

MAX_KEY_CONFIG_LIST: Final = 16 << 10
"""Octets of a list; an egress sends one configuration of 47."""

_KNOWN_KDFS: Final = frozenset({1, 2, 3})  # RFC 9180 section 7.2
_KNOWN_AEADS: Final = frozenset({1, 2, 3})  # RFC 9180 section 7.3, without export-only
_ID_AND_KEM: Final = struct.Struct(">BH")
_SUITE: Final = struct.Struct(">HH")


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One public key of an egress, and how to encrypt to it.

    Attributes:
        key_id: 0-255.
        public_key: X25519, 32 octets.
        suites: in the order of the egress's preference.
    """

    key_id: int
    public_key: bytes
    suites: tuple[Suite, ...] = ADVERTISED_SUITES


def dump_key_config_list(configs: Iterable[KeyConfig]) -> bytes:
    """Write a list.

    Raises:
        LocalProtocolError: a key id outside 0-255, a key that is not 32 octets, or no suite.
    """
    return b"".join(_dump_config(config) for config in configs)


def parse_key_config_list(data: bytes) -> tuple[KeyConfig, ...]:
    """Read the configurations that can be used, in their order; there may be none.

    Raises:
        RemoteProtocolError: the list is cut short, has octets left over, or more than
            `MAX_KEY_CONFIG_LIST` of them.
    """
    if len(data) > MAX_KEY_CONFIG_LIST:
        raise RemoteProtocolError(
            f"key configuration list has {len(data)} octets, limit {MAX_KEY_CONFIG_LIST}"
        )
    configs: list[KeyConfig] = []
    at = 0
    while at < len(data):
        encoded, at = _read_vector(data, at, "key configuration")
        config = _parse_config(encoded)
        if config is not None:
            configs.append(config)
    return tuple(configs)


def choose(configs: Sequence[KeyConfig]) -> tuple[KeyConfig, Suite]:
    """The first configuration with a supported suite, and the first such suite of it.

    Raises:
        RemoteProtocolError: there is none.
    """
    for config in configs:
        for suite in config.suites:
            if suite.is_supported:
                return config, suite
    raise RemoteProtocolError(
        f"none of {len(configs)} usable key configurations has a suite that is supported here: "
        "expected X25519, HKDF-SHA256 and AES-128-GCM or ChaCha20-Poly1305"
    )


def _dump_config(config: KeyConfig) -> bytes:
    if not 0 <= config.key_id <= 0xFF:
        raise LocalProtocolError(f"key id is {config.key_id}, expected 0-255")
    if len(config.public_key) != PUBLIC_KEY_SIZE:
        raise LocalProtocolError(f"public key has {len(config.public_key)} octets, expected 32")
    if not config.suites:
        raise LocalProtocolError(f"key configuration {config.key_id} has no suite")
    suites = b"".join(_SUITE.pack(suite.kdf, suite.aead) for suite in config.suites)
    head = _ID_AND_KEM.pack(config.key_id, KEM_X25519)
    return _vector(head + config.public_key + _vector(suites))


def _parse_config(encoded: bytes) -> KeyConfig | None:
    if len(encoded) < _ID_AND_KEM.size:
        raise RemoteProtocolError(f"key configuration has only {len(encoded)} octets")
    key_id, kem = _ID_AND_KEM.unpack_from(encoded)
    if kem != KEM_X25519:
        return None  # how long its key is, is not known
    suites_at = _ID_AND_KEM.size + PUBLIC_KEY_SIZE
    encoded_suites, end = _read_vector(encoded, suites_at, "list of suites")
    if end != len(encoded):
        raise RemoteProtocolError(f"key configuration has {len(encoded) - end} octets left over")
    if not encoded_suites or len(encoded_suites) % _SUITE.size:
        raise RemoteProtocolError(f"list of suites has {len(encoded_suites)} octets")
    suites = [Suite(kdf, aead) for kdf, aead in _SUITE.iter_unpack(encoded_suites)]
    if any(not _is_registered(suite) for suite in suites):
        return None
    usable = tuple(suite for suite in suites if suite.is_supported)
    return KeyConfig(key_id, encoded[_ID_AND_KEM.size : suites_at], usable) if usable else None


def _is_registered(suite: Suite) -> bool:
    return suite.kdf in _KNOWN_KDFS and suite.aead in _KNOWN_AEADS


def _vector(octets: bytes) -> bytes:
    if len(octets) > 0xFFFF:
        raise LocalProtocolError(f"key configuration has {len(octets)} octets, at most 65535 fit")
    return len(octets).to_bytes(2, "big") + octets


def _read_vector(data: bytes, at: int, what: str) -> tuple[bytes, int]:
    start = at + 2
    end = start + int.from_bytes(data[at:start], "big")
    if len(data) < start or len(data) < end:
        raise RemoteProtocolError(f"{what} is cut short: {len(data) - at} octets are there")
    return data[start:end], end
