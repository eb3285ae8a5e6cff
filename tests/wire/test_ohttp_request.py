"""tng.wire.ohttp_request: the header, and what an ingress seals."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.errors import LocalProtocolError
from tng.wire.hpke import PublicKeyError, setup_recipient
from tng.wire.ohttp_keys import KeyConfig, Suite
from tng.wire.ohttp_request import HEADER_SIZE, RequestHeader, RequestSealer, parse_request_header

RECIPIENT = X25519PrivateKey.from_private_bytes(b"\x22" * 32)
EPHEMERAL = X25519PrivateKey.from_private_bytes(b"\x11" * 32)
CONFIG = KeyConfig(3, RECIPIENT.public_key().public_bytes_raw())


def test_a_header_is_39_octets_and_parsed_as_it_was_dumped() -> None:
    header = RequestHeader(3, 0x20, 1, 3, bytes(range(32)))
    encoded = header.dump()
    assert encoded == bytes.fromhex("03002000010003") + bytes(range(32))
    assert len(encoded) == HEADER_SIZE == 39
    assert parse_request_header(encoded) == header
    assert header.suite == Suite(1, 3)
    assert header.info == b"message/bhttp chunked request\0" + encoded[:7]


@pytest.mark.parametrize("size", [0, 7, 38, 40])
def test_a_header_of_another_length_is_no_header(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"of {size} octets"):
        parse_request_header(bytes(size))


@pytest.mark.parametrize("aead", [1, 3])
def test_a_request_names_its_key_and_opens_with_plain_hpke(aead: int) -> None:
    sealer = RequestSealer(CONFIG, Suite(1, aead), EPHEMERAL)
    header = parse_request_header(sealer.header)
    assert (header.key_id, header.kem, header.suite) == (3, 0x20, Suite(1, aead))
    context = setup_recipient(header.suite, RECIPIENT, header.enc, header.info)
    assert context.open(sealer.seal(b"data")[1:]) == b"data"
    assert context.open(sealer.finish()[1:], b"final") == b""


def test_nothing_is_sealed_after_the_end_but_the_answer_can_still_be_opened() -> None:
    sealer = RequestSealer(CONFIG, Suite(1, 1), EPHEMERAL)
    assert sealer.seal(b"") == b""
    sealer.finish()
    with pytest.raises(LocalProtocolError):
        sealer.seal(b"more")
    with pytest.raises(LocalProtocolError):
        sealer.finish()
    assert not sealer.response_opener().is_final


def test_a_suite_or_key_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="no HPKE suite"):
        RequestSealer(CONFIG, Suite(1, 2), EPHEMERAL)
    with pytest.raises(PublicKeyError, match="low order"):
        RequestSealer(KeyConfig(3, bytes(32)), Suite(1, 1), EPHEMERAL)
    with pytest.raises(PublicKeyError, match="has 31 octets"):
        RequestSealer(KeyConfig(3, bytes(31)), Suite(1, 1), EPHEMERAL)
