"""The table of certificates: 58 hand-made ones, what the reference says of each, and what we say.

Every row is a whole certificate, judged as in production by a verifier with the builtin service and
the policy that trusts everything, so that the row's own fault is the only one.  `reference` is the
outcome of `tng tools rats-tls verify` of 2.12.0; the last test asks it again where it is installed.
Rows where both differ are those of docs/TESTING.md: refused here, accepted there, never the other
way round.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import pathlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stage.attested import REFERENCE
from tng.attest.binding import report_data, runtime_data_for
from tng.attest.certificate import ENDORSEMENT_OID, EVIDENCE_OID
from tng.attest.key_usage import key_usage
from tng.attest.verifier.factory import make_verifier
from tng.clock import FixedClock
from tng.config.model import Verify
from tng.errors import ErrorCode, UntrustedPeerError
from tng.wire.dice import HashAlgorithm

NOW = 1_800_000_000
DAY = 86_400
KEY = ec.derive_private_key(5001, ec.SECP256R1())
OTHER = ec.derive_private_key(5002, ec.SECP256R1())
P384 = ec.derive_private_key(5003, ec.SECP384R1())
ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"\5" * 32)
COCO, COCO_TOKEN, ITA = 0xC0C000, 0xC0C001, 0x17A000

BAD, STALE = ErrorCode.EVIDENCE_MALFORMED, ErrorCode.STALE
MISSING, BINDING = ErrorCode.EVIDENCE_MISSING, ErrorCode.BINDING_MISMATCH

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Fields = dict[object, object]


def name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Inclavare Containers"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, text),
        ]
    )


def spki_of(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sample(digest: bytes) -> bytes:
    text = base64.b64encode(digest).decode()
    return json.dumps({"svn": "1", "report_data": text, "measure_register": "00" * 32}).encode()


def coco(fields: Fields) -> bytes:
    return tagged([cbor2.dumps(fields), b""])


def tagged(value: object, tag: int = COCO) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(tag, value))


def fields_of(
    key: Key,
    *,
    runtime: str | None = None,
    hashed: str | None = None,
    algorithm: HashAlgorithm = HashAlgorithm.SHA384,
    **changes: object,
) -> Fields:
    """The evidence map for a key; `runtime` is written, `hashed` is what the TEE vouches for."""
    text = runtime_data_for(spki_of(key)) if runtime is None else runtime
    digest = report_data((hashed or text).encode(), algorithm)
    fields: Fields = {
        "tee_type": "sample",
        "aa_evidence": sample(digest),
        "aa_additional_evidence": None,
        "aa_runtime_data": text,
        "aa_runtime_data_hash_algo": int(algorithm),
    }
    return {k: v for k, v in (fields | changes).items() if v is not ABSENT}


ABSENT = object()


@dataclass(frozen=True)
class Shape:
    """A certificate, all of it open to change; the rest as the reference makes it."""

    key: Key = KEY
    signer: Key | None = None
    subject: str = "TNG"
    issuer: str = "TNG"
    serial: int = 42
    begin: int = NOW
    end: int = NOW + 6 * 3600
    extension: Callable[[Key], bytes | None] = field(default=lambda key: coco(fields_of(key)))
    is_critical: bool = False
    without: tuple[type[x509.ExtensionType] | x509.ObjectIdentifier, ...] = ()
    hash_with: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    pss: bool = False

    def der(self) -> bytes:
        public = self.key.public_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        usages = ("digital_signature", "content_commitment", "key_encipherment", "key_agreement")
        extensions = [
            (identifier, False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (key_usage(*usages), True),
        ]
        kept = [(e, critical) for e, critical in extensions if type(e) not in self.without]
        value = self.extension(self.key)
        if value is not None:
            kept.append((x509.UnrecognizedExtension(EVIDENCE_OID, value), self.is_critical))
        if ENDORSEMENT_OID not in self.without:
            kept.append((x509.UnrecognizedExtension(ENDORSEMENT_OID, b""), False))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(self.subject))
            .issuer_name(name(self.issuer))
            .serial_number(self.serial)
            .not_valid_before(dt.datetime.fromtimestamp(self.begin, dt.UTC))
            .not_valid_after(dt.datetime.fromtimestamp(self.end, dt.UTC))
            .public_key(public)
        )
        for extension, critical in kept:
            builder = builder.add_extension(extension, critical=critical)
        signing = self.signer or self.key
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if self.pss else None
        hash_with = None if isinstance(signing, ed25519.Ed25519PrivateKey) else self.hash_with
        certificate = builder.sign(signing, hash_with, rsa_padding=pss)  # type: ignore[arg-type]
        return certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True)
class Row:
    """One certificate of the table.

    Attributes:
        title: what is special about it.
        make: the certificate, given RSA keys by their size.
        reference: whether the reference accepts it.
        code: how we refuse it; None if we accept it.
    """

    title: str
    make: Callable[[Callable[[int], rsa.RSAPrivateKey]], bytes]
    reference: bool
    code: ErrorCode | None


def of(shape: Shape) -> Callable[[object], bytes]:
    return lambda _: shape.der()


def with_fields(**changes: object) -> Callable[[object], bytes]:
    return of(Shape(extension=lambda key: coco(fields_of(key, **changes))))  # type: ignore[arg-type]


def with_extension(make: Callable[[bytes], bytes | None]) -> Callable[[object], bytes]:
    """`make` turns the good evidence map into the extension's value."""
    return of(Shape(extension=lambda key: make(cbor2.dumps(fields_of(key)))))


def rsa_shape(size: int, hash_with: hashes.HashAlgorithm, *, pss: bool = False) -> object:
    return lambda keys: Shape(key=keys(size), hash_with=hash_with, pss=pss).der()


CLAIMS = json.loads(runtime_data_for(spki_of(KEY)))
MORE = json.dumps(CLAIMS | {"z": 1}, separators=(",", ":"))
SPACED = json.dumps(CLAIMS, indent=1)
BY_SHA384 = {
    "pubkey-hash": base64.b64encode(
        cbor2.dumps([7, hashlib.sha384(spki_of(KEY)).digest()])
    ).decode()
}


def claims(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def as_numbers(key: Key) -> bytes:
    fields = fields_of(key)
    return coco(fields | {"aa_evidence": list(fields["aa_evidence"])})  # type: ignore[arg-type]


ROWS = [
    Row("as the reference makes it", of(Shape()), True, None),
    # Stricter here: in RA-TLS the age of the key is all there is of freshness.
    Row("expired", of(Shape(begin=NOW - 2 * DAY, end=NOW - DAY)), True, STALE),
    Row("not yet valid", of(Shape(begin=NOW + DAY, end=NOW + 2 * DAY)), True, STALE),
    Row("valid for a hundred years", of(Shape(end=NOW + 36_500 * DAY)), True, None),
    Row("another name on both sides", of(Shape(subject="x", issuer="x")), True, None),
    Row("another serial number", of(Shape(serial=2**158)), True, None),
    Row("no key identifier", of(Shape(without=(x509.SubjectKeyIdentifier,))), True, None),
    Row("no authority identifier", of(Shape(without=(x509.AuthorityKeyIdentifier,))), True, None),
    Row("no basic constraints", of(Shape(without=(x509.BasicConstraints,))), True, None),
    Row("no key usage", of(Shape(without=(x509.KeyUsage,))), True, None),
    Row("no endorsement extension", of(Shape(without=(ENDORSEMENT_OID,))), True, None),
    Row("critical evidence extension", of(Shape(is_critical=True)), True, None),
    # Stricter here: nothing is let in that nobody judges.
    Row("claims buffer in use", with_extension(lambda m: tagged([m, b"x"])), True, BAD),
    Row("RSA 2048 with SHA-256", rsa_shape(2048, hashes.SHA256()), True, None),
    Row("RSA 2048 with SHA-384", rsa_shape(2048, hashes.SHA384()), True, None),
    Row("RSA 2048 with SHA-512", rsa_shape(2048, hashes.SHA512()), True, None),
    Row("RSA 3072 with SHA-256", rsa_shape(3072, hashes.SHA256()), True, None),
    Row("RSA 4096 with SHA-512", rsa_shape(4096, hashes.SHA512()), True, None),
    Row(
        "keys of the map in another order",
        of(Shape(extension=lambda key: coco(dict(reversed(fields_of(key).items()))))),
        True,
        None,
    ),
    Row("an unknown key in the map", with_fields(something_new=1), True, None),
    Row("no additional evidence", with_fields(aa_additional_evidence=ABSENT), True, None),
    Row("additional evidence of nobody", with_fields(aa_additional_evidence=b"{}"), True, None),
    # Stricter here: one spelling of a byte string.
    Row("evidence as an array of numbers", of(Shape(extension=as_numbers)), True, BAD),
    Row("runtime data hashed by SHA-256", with_fields(algorithm=HashAlgorithm.SHA256), True, None),
    Row("runtime data hashed by SHA-512", with_fields(algorithm=HashAlgorithm.SHA512), True, None),
    Row("further claims in the runtime data", with_fields(runtime=MORE), True, None),
    Row(
        "runtime data with blanks, hashed without",
        with_fields(runtime=SPACED, hashed=runtime_data_for(spki_of(KEY))),
        True,
        None,
    ),
    Row(
        "tag in eight octets",
        with_extension(lambda m: b"\xdb" + bytes(4) + tagged([m, b""])[1:]),
        True,
        None,
    ),
    # Stricter here, both: one spelling of the item, and nothing behind it.
    Row(
        "array without a length",
        with_extension(lambda m: tagged(0)[:-1] + b"\x9f" + cbor2.dumps(m) + b"\x40\xff"),
        True,
        BAD,
    ),
    Row("octets behind the item", with_extension(lambda m: tagged([m, b""]) + b"\0"), True, BAD),
    Row("certificates behind it in the chain", of(Shape()), True, None),
    Row("read from DER instead of PEM", of(Shape()), True, None),
    Row("issuer and subject differ", of(Shape(issuer="x")), False, BAD),
    Row("no evidence extension", of(Shape(extension=lambda _: None)), False, MISSING),
    Row("signed by another key", of(Shape(signer=OTHER)), False, BAD),
    Row("P-384 with SHA-256", of(Shape(key=P384)), False, BAD),
    Row("P-384 with SHA-384", of(Shape(key=P384, hash_with=hashes.SHA384())), False, BAD),
    Row("P-256 with SHA-384", of(Shape(hash_with=hashes.SHA384())), False, BAD),
    Row("Ed25519", of(Shape(key=ED25519)), False, BAD),
    Row("RSA with PSS", rsa_shape(2048, hashes.SHA256(), pss=True), False, BAD),
    Row(
        "extension wrapped in an octet string",
        with_extension(
            lambda m: b"\x04\x82" + len(tagged([m, b""])).to_bytes(2, "big") + tagged([m, b""])
        ),
        False,
        BAD,
    ),
    Row("array of one", with_extension(lambda m: tagged([m])), False, BAD),
    Row("array of three", with_extension(lambda m: tagged([m, b"", b""])), False, BAD),
    Row("unknown tag", with_extension(lambda m: tagged([m, b""], 0xC0C0FF)), False, BAD),
    Row("tag of another provider", with_extension(lambda m: tagged([m, b""], ITA)), False, BAD),
    Row("tag of another model", with_extension(lambda m: tagged([m, b""], COCO_TOKEN)), False, BAD),
    Row("hash algorithm 9", with_fields(aa_runtime_data_hash_algo=9), False, BAD),
    Row("hash algorithm by name", with_fields(aa_runtime_data_hash_algo="sha384"), False, BAD),
    Row("no hash algorithm", with_fields(aa_runtime_data_hash_algo=ABSENT), False, BAD),
    Row("unknown TEE", with_fields(tee_type="enclave"), False, BAD),
    Row("TEE with a capital", with_fields(tee_type="Sample"), False, BAD),
    Row("evidence as text", with_fields(aa_evidence="{}"), False, BAD),
    Row("runtime data as octets", with_fields(aa_runtime_data=b"{}"), False, BAD),
    Row(
        "array instead of the map",
        of(Shape(extension=lambda key: tagged([cbor2.dumps([*fields_of(key).values()]), b""]))),
        False,
        BAD,
    ),
    Row("report data of something else", with_fields(hashed="{}"), False, BINDING),
    Row("no hash of the key", with_fields(runtime="{}"), False, BINDING),
    Row(
        "hash of another key",
        with_fields(runtime=runtime_data_for(spki_of(OTHER))),
        False,
        BINDING,
    ),
    Row("key hashed by SHA-384", with_fields(runtime=claims(BY_SHA384)), False, BINDING),
]
SLOW = ("RSA 3072 with SHA-256", "RSA 4096 with SHA-512")
"""Making such keys takes long."""

NUMBERED = [
    pytest.param(
        row,
        id=f"{number} {row.title}",
        marks=[pytest.mark.slow] if row.title in SLOW else [],
    )
    for number, row in enumerate(ROWS, start=1)
]


@pytest.fixture(scope="module")
def rsa_keys() -> Callable[[int], rsa.RSAPrivateKey]:
    made: dict[int, rsa.RSAPrivateKey] = {}

    def get(size: int) -> rsa.RSAPrivateKey:
        if size not in made:
            made[size] = rsa.generate_private_key(65537, size)
        return made[size]

    return get


async def judged(der: bytes) -> ErrorCode | None:
    section = {"as_type": "builtin", "attestation_policy": {"type": "trust_all"}, "policy_ids": []}
    verifier = make_verifier(Verify.model_validate(section), FixedClock(NOW + 60.0))
    try:
        assert (await verifier.judge(der, "peer")).verdict.accepted
    except UntrustedPeerError as exc:
        return exc.code
    finally:
        await verifier.aclose()
    return None


def reference_accepts(folder: pathlib.Path, row: Row, der: bytes) -> bool:
    file = folder / "peer"
    chain = [der, Shape(subject="x", issuer="x").der()] if "chain" in row.title else [der]
    pem = b"".join(
        x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in chain
    )
    file.write_bytes(der if "DER" in row.title else pem)
    section = {
        "model": "background_check",
        "as_provider": "coco",
        "as_type": "builtin",
        "attestation_policy": {"type": "trust_all"},
        "policy_ids": [],
    }
    words = ["tools", "rats-tls", "verify", "--cert", str(file), "--verify", json.dumps(section)]
    ended = subprocess.run([REFERENCE, *words], capture_output=True, timeout=60, check=False)
    return ended.returncode == 0


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 58
    assert len({row.title for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", NUMBERED)
async def test_every_row_is_judged_as_the_table_says(row: Row, rsa_keys) -> None:
    assert await judged(row.make(rsa_keys)) is row.code


@pytest.mark.parametrize("row", NUMBERED)
def test_nothing_is_accepted_here_that_the_reference_refuses(row: Row) -> None:
    assert row.reference or row.code is not None


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference is not there: tools/reference")
@pytest.mark.parametrize("row", NUMBERED)
def test_the_reference_says_what_the_table_says(row: Row, rsa_keys, tmp_path) -> None:
    assert reference_accepts(tmp_path, row, row.make(rsa_keys)) is row.reference
