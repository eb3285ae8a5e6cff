"""tng.wire.hkdf: RFC 5869's examples, and the range of lengths."""

from __future__ import annotations

import hmac

import pytest

from tng.errors import LocalProtocolError
from tng.wire.hkdf import MAX_DERIVED, hkdf_expand, hkdf_extract


def test_example_1_of_rfc_5869() -> None:
    key = hkdf_extract(bytes(range(13)), b"\x0b" * 22)
    assert key.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert hkdf_expand(key, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_example_3_of_rfc_5869_without_salt_and_info() -> None:
    key = hkdf_extract(b"", b"\x0b" * 22)
    assert key.hex() == "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"
    assert hkdf_expand(key, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@pytest.mark.parametrize("length", [-1, 0, MAX_DERIVED + 1, 1 << 20])
def test_lengths_that_cannot_be_derived_are_refused(length: int) -> None:
    with pytest.raises(LocalProtocolError, match=r"1 to 8160"):
        hkdf_expand(bytes(32), b"", length)


def test_as_much_as_can_be_derived_is_derived() -> None:
    derived = hkdf_expand(bytes(32), b"info", MAX_DERIVED)
    assert len(derived) == MAX_DERIVED
    assert derived.startswith(hkdf_expand(bytes(32), b"info", 33))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 63, 64, 65, 200])
def test_the_extraction_is_the_hmac_of_the_standard_library(size: int) -> None:
    salt = bytes(range(size))
    assert hkdf_extract(salt, b"secret") == hmac.digest(salt, b"secret", "sha256")
