"""Key usage: granted is what is named."""

from __future__ import annotations

from tng.attest.key_usage import ISSUER_USES, key_usage


def test_what_is_not_named_is_not_granted() -> None:
    usage = key_usage("digital_signature", "key_agreement")
    assert usage.digital_signature
    assert usage.key_agreement
    assert not usage.content_commitment
    assert not usage.key_cert_sign
    assert not usage.encipher_only


def test_an_authority_signs_certificates_and_revocation_lists_alone() -> None:
    usage = key_usage(*ISSUER_USES)
    assert usage.key_cert_sign
    assert usage.crl_sign
    assert not usage.digital_signature
