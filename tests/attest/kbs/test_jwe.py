"""Sealing and opening, against jwcrypto and joserfc in both directions."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe as joserfc_jwe
from joserfc import jwk as joserfc_jwk
from jwcrypto import jwe, jwk

from tng.attest.kbs.jwe import MAX_SEALED, open_sealed, seal
from tng.attest.kbs.tee_key import ECDH, RSA_OAEP, RSA_PKCS1, TeeKey, dump_tee_key, parse_tee_key

SECRET = b"alibaba@1688"
ALGORITHMS = ["RSA1_5", "RSA-OAEP-256", "ECDH-ES+A256KW", "A256GCM"]
KEYS = {
    "P-256": (ec.generate_private_key(ec.SECP256R1()), ECDH),
    "P-521": (ec.generate_private_key(ec.SECP521R1()), ECDH),
    "RSA": (rsa.generate_private_key(65537, 2048), RSA_OAEP),
    "old RSA": (rsa.generate_private_key(65537, 2048), RSA_PKCS1),
}
kinds = pytest.mark.parametrize("kind", KEYS)
ours = pytest.mark.parametrize("kind", ["P-256", "P-521", "RSA"])


def recipient(kind: str) -> TeeKey:
    private, algorithm = KEYS[kind]
    return TeeKey(algorithm, private.public_key())


@kinds
@pytest.mark.parametrize("secret", [b"x", SECRET, b"x" * 100_000])
def test_jwcrypto_opens_what_we_seal(kind, secret):
    opened = jwe.JWE(algs=ALGORITHMS)
    opened.deserialize(seal(secret, recipient(kind)).decode(), jwk.JWK.from_pyca(KEYS[kind][0]))
    assert opened.payload == secret


@ours
def test_joserfc_opens_what_we_seal(kind):
    from cryptography.hazmat.primitives import serialization as s

    private = KEYS[kind][0]
    pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    importer = joserfc_jwk.RSAKey if "RSA" in kind else joserfc_jwk.ECKey
    sealed = json.loads(seal(SECRET, recipient(kind)))
    opened = joserfc_jwe.decrypt_json(sealed, importer.import_key(pem), algorithms=ALGORITHMS)
    assert opened.plaintext == SECRET


@ours
def test_we_open_what_jwcrypto_seals(kind):
    private, algorithm = KEYS[kind]
    sealed = jwe.JWE(SECRET, json.dumps({"alg": algorithm, "enc": "A256GCM"}))
    sealed.add_recipient(jwk.JWK.from_pyca(private.public_key()))
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    members = dict(zip(names, sealed.serialize(compact=True).split("."), strict=True))
    assert open_sealed(json.dumps(members).encode(), private) == SECRET


@ours
def test_we_open_what_we_seal_and_nobody_else_does(kind):
    sealed = seal(SECRET, recipient(kind))
    assert open_sealed(sealed, KEYS[kind][0]) == SECRET
    others = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
    )
    for other in others:
        with pytest.raises(ValueError, match="JWE"):
            open_sealed(sealed, other)


@ours
@pytest.mark.parametrize("member", ["encrypted_key", "iv", "ciphertext", "tag", "protected"])
def test_every_part_is_authentic_and_failures_look_alike(kind, member):
    members = json.loads(seal(SECRET, recipient(kind)))
    octets = bytearray(base64.urlsafe_b64decode(members[member] + "=="))
    if member == "protected":
        octets = bytearray(octets[:-1] + b" }")
    else:
        octets[len(octets) // 2] ^= 1
    members[member] = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
    with pytest.raises(ValueError, match="does not open with our key"):
        open_sealed(json.dumps(members).encode(), KEYS[kind][0])


def changed_header(**changes):
    members = json.loads(seal(SECRET, recipient("P-256")))
    header = json.loads(base64.urlsafe_b64decode(members["protected"] + "=="))
    text = json.dumps({**header, **changes}).encode()
    members["protected"] = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return members


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"protected": "e30"},
        {**changed_header(), "recipients": []},
        {**changed_header(), "iv": "AAAA"},
        {**changed_header(), "tag": "AAAA"},
        {**changed_header(), "ciphertext": 1},
        changed_header(enc="A128GCM"),
        changed_header(alg="dir"),
        changed_header(zip="DEF"),
        changed_header(crit=["x"]),
        changed_header(epk=None),
        changed_header(epk={"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
        changed_header(epk={"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}),
        changed_header(
            epk={
                "kty": "EC",
                **{k: v for k, v in dump_tee_key(recipient("P-521")).items() if k in "crvxy"},
            }
        ),
    ],
)
def test_another_form_is_refused(members):
    with pytest.raises(ValueError):
        open_sealed(json.dumps(members).encode(), KEYS["P-256"][0])


def test_a_jwe_has_a_size():
    with pytest.raises(ValueError, match="at most"):
        open_sealed(b" " * (MAX_SEALED + 1), KEYS["P-256"][0])


@given(st.binary(max_size=60))
def test_garbage_is_a_value_error(data):
    with pytest.raises(ValueError):
        open_sealed(data, KEYS["P-256"][0])


@kinds
def test_a_key_is_read_and_written(kind):
    key = recipient(kind)
    dumped = dump_tee_key(key)
    assert dump_tee_key(parse_tee_key(dumped)) == dumped
    assert len(bytes.fromhex(key.thumbprint)) == 32
    assert parse_tee_key(dumped).thumbprint == key.thumbprint


GOOD_EC = dump_tee_key(recipient("P-256"))
GOOD_RSA = dump_tee_key(recipient("RSA"))


def b64url(number: int) -> str:
    octets = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {**GOOD_EC, "alg": "ECDH-ES"},
        {**GOOD_EC, "alg": RSA_OAEP},
        {**GOOD_EC, "alg": ["x"]},
        {**GOOD_EC, "crv": "P-384"},
        {**GOOD_EC, "crv": ["P-256"]},
        {**GOOD_EC, "d": "AAAA"},
        {**GOOD_EC, "x": GOOD_EC["y"], "y": GOOD_EC["x"]},
        {**GOOD_EC, "x": 1},
        {**GOOD_EC, "x": ""},
        {**GOOD_EC, "x": "A" * 48},
        {**GOOD_EC, "x": "A" * 1000},
        {**GOOD_EC, "x": "!"},
        {**GOOD_EC, "kty": "OKP"},
        {**GOOD_RSA, "alg": "RSA-OAEP"},
        {**GOOD_RSA, "p": "AAAA"},
        {**GOOD_RSA, "e": "AA"},
        {**GOOD_RSA, "e": "A" * 8},
        {**GOOD_RSA, "n": b64url(1 << 1023 | 1)},
        {**GOOD_RSA, "n": b64url(1 << 4096 | 1)},
    ],
)
def test_another_key_is_refused(value):
    with pytest.raises(ValueError):
        parse_tee_key(value)
