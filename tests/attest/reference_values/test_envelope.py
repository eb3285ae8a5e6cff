from __future__ import annotations

import base64
import contextlib
import copy

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.reference_values.envelope import (
    MAX_KEYS,
    MAX_SIGNATURES,
    load_key,
    open_envelope,
)

KIND = "application/x"


def pem(key) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_payload_leaves_an_envelope_that_a_trusted_key_signed(seal, trusted) -> None:
    assert open_envelope(seal(KIND, b"data"), (KIND,), (trusted,)) == b"data"


@pytest.mark.parametrize(
    ("curve", "digest"), [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())]
)
def test_ecdsa_keys_sign_too(seal_by, curve, digest) -> None:
    key = ec.generate_private_key(curve)
    document = seal_by(lambda data: key.sign(data, ec.ECDSA(digest)), KIND, b"data")
    assert open_envelope(document, (KIND,), (load_key(pem(key.public_key())),)) == b"data"
    other = ec.generate_private_key(curve).public_key()
    with pytest.raises(ValueError, match="none of 1 signatures"):
        open_envelope(document, (KIND,), (other,))


def test_one_of_several_signatures_and_keys_is_enough(seal, seal_by_stranger, trusted) -> None:
    document = seal(KIND, b"data")
    stranger = seal_by_stranger(KIND, b"data")
    document["signatures"] = [*stranger["signatures"], *document["signatures"]]
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert open_envelope(document, (KIND,), (other, trusted)) == b"data"


def test_a_signature_by_a_stranger_is_refused(seal_by_stranger, trusted) -> None:
    with pytest.raises(ValueError, match="none of 1 signatures is by one of 1 trusted keys"):
        open_envelope(seal_by_stranger(KIND, b"data"), (KIND,), (trusted,))


def test_a_changed_payload_or_type_is_refused(seal, trusted) -> None:
    document = seal(KIND, b"data")
    document["payload"] = base64.b64encode(b"date").decode()
    with pytest.raises(ValueError, match="none of 1 signatures"):
        open_envelope(document, (KIND,), (trusted,))
    document = seal(KIND, b"data")
    document["payloadType"] = "application/y"
    with pytest.raises(ValueError, match="none of 1 signatures"):
        open_envelope(document, ("application/y",), (trusted,))
    with pytest.raises(ValueError, match="payloadType is 'application/y', expected application/x"):
        open_envelope(document, (KIND,), (trusted,))


def test_without_trusted_keys_nothing_is_opened(seal, trusted) -> None:
    with pytest.raises(ValueError, match="no public key is trusted"):
        open_envelope(seal(KIND, b"data"), (KIND,), ())
    with pytest.raises(ValueError, match="more than 16 trusted keys"):
        open_envelope(seal(KIND, b"data"), (KIND,), (trusted,) * (MAX_KEYS + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"payload": None},
        {"payload": "%"},
        {"payloadType": 1},
        {"signatures": None},
        {"signatures": []},
        {"signatures": [{}]},
        {"signatures": ["text"]},
        {"signatures": [{"sig": 1}]},
        {"signatures": [{"sig": "%"}]},
        {"signatures": [{"sig": "YQ=="}] * (MAX_SIGNATURES + 1)},
    ],
)
def test_what_is_no_envelope_is_refused(seal, trusted, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|base64"):
        open_envelope(seal(KIND, b"data") | change, (KIND,), (trusted,))


@given(
    st.dictionaries(
        st.sampled_from(["payload", "payloadType", "signatures"]),
        st.none() | st.text(max_size=8) | st.lists(st.dictionaries(st.just("sig"), st.text())),
    )
)
def test_garbage_is_a_value_error(document: dict[str, object]) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    with contextlib.suppress(ValueError):
        open_envelope(copy.deepcopy(document), (KIND,), (key,))
        raise AssertionError("garbage was opened")


def test_keys_of_other_kinds_are_refused() -> None:
    keys = (
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP521R1()).public_key(),
    )
    for key in keys:
        with pytest.raises(ValueError, match="expected an Ed25519 key, or an ECDSA key"):
            load_key(pem(key))
    for data in (b"", b"text", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(ValueError, match="expected a public key in PEM"):
            load_key(data)
