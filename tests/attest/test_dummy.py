"""tng.attest.dummy: the constant that every copy shares."""

from __future__ import annotations

import pathlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tng.attest import dummy
from tng.attest.certificate import parse_peer_certificate
from tng.errors import ErrorCode, UntrustedPeerError


def test_key_and_certificate_belong_together() -> None:
    key, certificate = dummy.load_dummy()
    assert key.public_key() == certificate.public_key()


def test_it_is_the_reference_certificate_and_key(shared: pathlib.Path) -> None:
    folder = shared / "vectors" / "ratls"
    key, certificate = dummy.load_dummy()
    assert certificate.public_bytes(Encoding.DER) == (folder / "dummy.der").read_bytes()
    theirs = load_pem_private_key((folder / "dummy.key").read_bytes(), password=None)
    assert theirs.public_key() == key.public_key()


def test_a_verifier_refuses_it_for_want_of_evidence() -> None:
    _, certificate = dummy.load_dummy()
    with pytest.raises(UntrustedPeerError) as refused:
        parse_peer_certificate(certificate.public_bytes(Encoding.DER), 1_800_000_000)
    assert refused.value.code is ErrorCode.EVIDENCE_MISSING


def test_its_docstring_says_that_the_key_is_public() -> None:
    assert "PRIVATE KEY BELOW IS PUBLIC" in (dummy.__doc__ or "")
