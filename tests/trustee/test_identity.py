from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tng.attest.signer_identity import LIFETIME_S
from tng.errors import StartError
from tng.trustee.identity import dump_identity, make_identity, parse_identity
from tng.trustee.pem import dump_certificate, dump_private_key, parse_private_keys

NOW = 1_795_000_000.0


@pytest.fixture(scope="module")
def identity():
    return make_identity(NOW)


def test_what_is_dumped_is_read_back(identity):
    again = parse_identity(dump_identity(identity), "f")
    assert again.certificate == identity.certificate
    assert again.ca_certificate == identity.ca_certificate
    assert again.key.private_numbers() == identity.key.private_numbers()


def test_the_chain_is_leaf_then_ca_and_holds_for_ten_years(identity):
    leaf, ca = x509.load_pem_x509_certificates(identity.chain_pem)
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(ca)
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert identity.not_after == NOW + LIFETIME_S
    assert leaf.not_valid_before_utc.timestamp() == NOW - 3600


def test_no_secret_shows_in_its_text(identity):
    assert "PRIVATE" not in repr(identity)
    assert str(identity.key.private_numbers().private_value) not in repr(identity)


def _parts(identity):
    return (
        dump_private_key(identity.key),
        dump_certificate(identity.certificate),
        dump_certificate(identity.ca_certificate),
        dump_private_key(identity.ca_key),
    )


@pytest.mark.parametrize("missing", range(4))
def test_an_identity_with_a_part_missing_is_refused(identity, missing):
    parts = [part for index, part in enumerate(_parts(identity)) if index != missing]
    with pytest.raises(StartError, match="expected two"):
        parse_identity(b"".join(parts), "f")


@pytest.mark.parametrize("foreign", range(4))
def test_an_identity_with_a_foreign_part_is_refused(identity, foreign):
    parts = list(_parts(identity))
    parts[foreign] = _parts(make_identity(NOW))[foreign]
    with pytest.raises(StartError, match=r"does not belong|not issued"):
        parse_identity(b"".join(parts), "f")


def test_another_kind_of_key_is_refused(identity):
    parts = list(_parts(identity))
    parts[0] = dump_private_key(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(StartError, match="P-256"):
        parse_identity(b"".join(parts), "f")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_damaged_text_is_a_start_error(data):
    with pytest.raises(StartError):
        parse_identity(data, "f")


def test_a_damaged_key_is_named_without_showing_it():
    data = b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----"
    with pytest.raises(StartError, match=r"signer\.pem") as caught:
        parse_private_keys(data, "signer.pem")
    assert "QUJD" not in str(caught.value)
