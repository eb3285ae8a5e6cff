"""tng.wire.ohttp_keys: lists as egresses send them, and what a client makes of odd ones."""

from __future__ import annotations

import json
import pathlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import LocalProtocolError, RemoteProtocolError
from tng.wire.ohttp_keys import (
    ADVERTISED_SUITES,
    MAX_KEY_CONFIG_LIST,
    KeyConfig,
    Suite,
    choose,
    dump_key_config_list,
    parse_key_config_list,
)

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
AES_128, AES_256, CHACHA = (1, 1), (1, 2), (1, 3)


def encoded(*suites: tuple[int, int], key_id: int = 0, kem: int = 0x20, key: bytes = KEY) -> bytes:
    """One configuration of a list, without any check."""
    pairs = b"".join(struct.pack(">HH", *suite) for suite in suites)
    config = struct.pack(">BH", key_id, kem) + key + struct.pack(">H", len(pairs)) + pairs
    return struct.pack(">H", len(config)) + config


def test_the_lists_of_the_references_egresses(shared: pathlib.Path) -> None:
    vectors = json.loads((shared / "vectors/ohttp/00-key-configs.json").read_text())
    for vector in vectors["configs"]:
        data = bytes.fromhex(vector["hex"])
        configs = parse_key_config_list(data)
        assert [config.public_key.hex() for config in configs] == [vectors["egress_public_key"]]
        assert [config.key_id for config in configs] == [vector["key_id"]]
        assert [[suite.kdf, suite.aead] for suite in configs[0].suites] == vector["suites"]
        assert dump_key_config_list(configs) == data


def test_what_an_egress_of_ours_offers() -> None:
    offered = KeyConfig(7, KEY)
    assert offered.suites == (Suite(*AES_128), Suite(*CHACHA))
    assert dump_key_config_list([offered]) == encoded(AES_128, CHACHA, key_id=7)


def test_an_empty_list_is_a_list_but_gives_no_key() -> None:
    assert parse_key_config_list(b"") == ()
    with pytest.raises(RemoteProtocolError, match="none of 0 usable"):
        choose([])


CONFIGS = st.builds(
    KeyConfig,
    st.integers(0, 255),
    st.binary(min_size=32, max_size=32),
    st.lists(st.sampled_from(ADVERTISED_SUITES), min_size=1, max_size=4).map(tuple),
)


@given(st.lists(CONFIGS, max_size=4))
def test_round_trip(configs: list[KeyConfig]) -> None:
    assert parse_key_config_list(dump_key_config_list(configs)) == tuple(configs)


@pytest.mark.parametrize(
    ("data", "key", "suite"),
    [
        (encoded(AES_128) + encoded(CHACHA, key=OTHER_KEY), KEY, AES_128),
        (encoded(CHACHA, AES_128), KEY, CHACHA),
        (
            encoded(AES_128, kem=0x10, key=bytes(65)) + encoded(CHACHA, key=OTHER_KEY),
            OTHER_KEY,
            CHACHA,
        ),
        (encoded(AES_256, CHACHA), KEY, CHACHA),
        (encoded(AES_256) + encoded(CHACHA, key=OTHER_KEY), OTHER_KEY, CHACHA),
        (encoded((3, 1), AES_128), KEY, AES_128),
        (encoded(AES_128, (1, 0xFFFF)) + encoded(CHACHA, key=OTHER_KEY), OTHER_KEY, CHACHA),
        (encoded(AES_128, (9, 1)) + encoded(CHACHA, key=OTHER_KEY), OTHER_KEY, CHACHA),
    ],
    ids=[
        "the first of two",
        "the egress's order counts",
        "another KEM is passed over",
        "AES-256 is left out",
        "only AES-256 is no configuration",
        "HKDF-SHA512 is left out",
        "an unknown AEAD spoils its configuration",
        "an unknown KDF spoils its configuration",
    ],
)
def test_a_client_takes_the_first_that_it_can_use(
    data: bytes, key: bytes, suite: tuple[int, int]
) -> None:
    config, chosen = choose(parse_key_config_list(data))
    assert config.public_key == key
    assert chosen == Suite(*suite)


@pytest.mark.parametrize(
    "data",
    [
        encoded(AES_256),
        encoded(AES_128, (1, 0xFFFF)),
        encoded((2, 1), (3, 3)),
        encoded(AES_128, kem=0x21, key=bytes(56)),
    ],
)
def test_a_list_without_a_usable_key_is_refused_when_one_is_chosen(data: bytes) -> None:
    assert parse_key_config_list(data) == ()
    with pytest.raises(RemoteProtocolError, match="expected X25519, HKDF-SHA256 and AES-128-GCM"):
        choose(parse_key_config_list(data))


def test_choosing_passes_over_suites_that_are_not_supported() -> None:
    config = KeyConfig(0, KEY, (Suite(*AES_256), Suite(*CHACHA)))
    assert choose([KeyConfig(1, OTHER_KEY, (Suite(*AES_256),)), config]) == (config, Suite(1, 3))


LIST = encoded(AES_128, CHACHA)


@pytest.mark.parametrize("size", range(1, len(LIST)))
def test_a_list_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_key_config_list(LIST[:size])
    with pytest.raises(RemoteProtocolError):
        parse_key_config_list(LIST + LIST[:size])


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (LIST + b"\0", "cut short"),
        (b"\0\0", "only 0 octets"),
        (b"\0\2\0\0", "only 2 octets"),
        (b"\0\x2e" + LIST[2:] + b"\0", "1 octets left over"),
        (b"\0\x2c" + LIST[2:-1], "list of suites is cut short"),
        (encoded(), "list of suites has 0 octets"),
        (b"\0\x2b" + LIST[2:37] + b"\0\6" + LIST[39:45], "list of suites has 6 octets"),
        (b"\0\x24\0\0\x20" + KEY + b"\0", "list of suites is cut short"),
    ],
)
def test_a_list_with_wrong_lengths_is_refused(data: bytes, word: str) -> None:
    with pytest.raises(RemoteProtocolError, match=word):
        parse_key_config_list(data)


def test_a_list_at_the_limit_is_read_and_one_octet_more_is_refused() -> None:
    ignored = b"\0" + b"\x00\x10" + bytes(MAX_KEY_CONFIG_LIST - len(LIST) - 5)
    data = LIST + len(ignored).to_bytes(2, "big") + ignored
    assert len(data) == MAX_KEY_CONFIG_LIST
    assert len(parse_key_config_list(data)) == 1
    with pytest.raises(RemoteProtocolError, match="limit 16384"):
        parse_key_config_list(data + b"\0")


@given(st.binary(max_size=200) | st.binary(max_size=20).map(lambda tail: LIST[:-8] + tail))
def test_garbage_gives_configurations_or_a_refusal(data: bytes) -> None:
    try:
        configs = parse_key_config_list(data)
    except RemoteProtocolError:
        return
    for config in configs:
        assert len(config.public_key) == 32
        assert config.suites
        assert all(suite.is_supported for suite in config.suites)


@pytest.mark.parametrize(
    "config",
    [
        KeyConfig(-1, KEY),
        KeyConfig(256, KEY),
        KeyConfig(0, KEY[:-1]),
        KeyConfig(0, KEY + b"\0"),
        KeyConfig(0, KEY, ()),
        KeyConfig(0, KEY, ADVERTISED_SUITES * 9000),
    ],
)
def test_what_is_no_configuration_is_not_written(config: KeyConfig) -> None:
    with pytest.raises(LocalProtocolError):
        dump_key_config_list([config])
