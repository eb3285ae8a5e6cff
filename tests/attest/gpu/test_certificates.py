"""Chains of GPUs: one root, every link, every role."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from stage.gpus import FIRMWARE, NOW, certify
from tng.attest.gpu.certificates import NVIDIA_ROOT_SPKI_SHA256, verify_gpu_chain
from tng.errors import ErrorCode, TngError, UntrustedPeerError


def verify(gpu, pem=None, *, now=NOW):
    return verify_gpu_chain(pem or gpu.chain, now=now, root_spki_sha256=gpu.root_spki)


def refused(gpu, code, match, pem=None, *, now=NOW) -> None:
    with pytest.raises(UntrustedPeerError, match=match) as caught:
        verify(gpu, pem, now=now)
    assert caught.value.code is code


def pem(*parts) -> bytes:
    return b"".join(part.certificate.public_bytes(Encoding.PEM) for part in parts)


def test_a_chain_to_the_root_gives_the_key_and_its_firmware(gpu):
    key = verify(gpu)
    assert key.key.public_numbers() == gpu.leaf.key.public_key().public_numbers()
    assert key.firmware_id == FIRMWARE
    assert key.name == "GH100 of a test"


def test_the_root_that_is_built_in_is_another(gpu):
    assert len(NVIDIA_ROOT_SPKI_SHA256) == 64
    with pytest.raises(UntrustedPeerError, match="not the trusted root") as caught:
        verify_gpu_chain(gpu.chain, now=NOW)
    assert caught.value.code is ErrorCode.UNKNOWN_ROOT


def test_a_chain_without_its_root_is_refused(gpu):
    refused(gpu, ErrorCode.UNKNOWN_ROOT, "ends in", pem(gpu.leaf, gpu.authority))


def test_a_link_that_is_missing_is_noticed(gpu):
    refused(gpu, ErrorCode.QUOTE_INVALID, "is not issued by", pem(gpu.leaf, gpu.root))


def test_a_stranger_with_the_same_names_is_refused(gpu):
    stranger = certify("authority of a test", certify("device root of a test"))
    leaf = certify("GH100 of a test", stranger, is_ca=False, firmware=FIRMWARE)
    refused(gpu, ErrorCode.QUOTE_INVALID, "is not issued by", pem(leaf, stranger, gpu.root))


def test_the_order_is_leaf_first(gpu):
    chain = pem(gpu.authority, gpu.leaf, gpu.root)
    refused(gpu, ErrorCode.QUOTE_INVALID, "stands where the GPU's own", chain)


def test_a_leaf_issues_nothing(gpu):
    below = certify("GH100 below", gpu.leaf, is_ca=False, firmware=FIRMWARE)
    chain = pem(below, gpu.leaf, gpu.authority, gpu.root)
    refused(gpu, ErrorCode.QUOTE_INVALID, "stands where an authority's", chain)


def test_an_authority_that_may_not_sign_certificates_is_none(gpu):
    authority = certify("authority of a test", gpu.root, may_sign=False)
    leaf = certify("GH100", authority, is_ca=False, firmware=FIRMWARE)
    chain = pem(leaf, authority, gpu.root)
    refused(gpu, ErrorCode.QUOTE_INVALID, "stands where an authority's", chain)


@pytest.mark.parametrize("days", [-11, 21])
def test_every_certificate_must_be_in_its_time(gpu, days):
    refused(gpu, ErrorCode.QUOTE_INVALID, "is valid from", now=NOW + days * 86_400)


def test_a_key_on_another_curve_is_refused(gpu):
    leaf = certify("GH100", gpu.authority, is_ca=False, firmware=FIRMWARE, curve=ec.SECP256R1())
    refused(gpu, ErrorCode.QUOTE_INVALID, "P-384", pem(leaf, gpu.authority, gpu.root))


@pytest.mark.parametrize("firmware", [None, FIRMWARE[:-1]])
def test_a_leaf_names_its_firmware(gpu, firmware):
    leaf = certify("GH100", gpu.authority, is_ca=False, firmware=firmware)
    refused(gpu, ErrorCode.QUOTE_INVALID, "names no firmware", pem(leaf, gpu.authority, gpu.root))


@given(st.binary(max_size=200))
def test_garbage_gives_an_error_of_ours(data):
    with pytest.raises(TngError):
        verify_gpu_chain(data, now=NOW)
