"""A GPU and its maker in software: a hierarchy of certificates, and reports as a device signs."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import struct
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tng.attest.gpu.fields import Field

NOW = 1_767_225_600
NONCE = hashlib.sha256(b"nonce of a test").digest()
FIRMWARE = hashlib.sha384(b"firmware of a test").digest()
MADE_FOR = x509.ObjectIdentifier("2.23.133.5.4.1")
SHA384 = bytes.fromhex("0609608648016503040202")


def opaque(*fields: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in fields)


FIELDS = (
    (Field.DRIVER_VERSION, b"1.2.3\0"),
    (Field.VBIOS_VERSION, bytes.fromhex("009f009601000000")),
    (Field.FWID, FIRMWARE),
    (Field.MEASUREMENT_COUNT, struct.pack("<II", 7, 8)),
    (Field.FEATURE_FLAG, b"\0\0"),
)


def block(index: int, value: bytes, *, specification: int = 1, tail: bytes = b"") -> bytes:
    inner = struct.pack("<BH", 0, len(value)) + value + tail
    return struct.pack("<BBH", index, specification, len(inner)) + inner


BLOCKS = (block(1, b"\1" * 48), block(2, b"\2" * 48))


@dataclass
class Certified:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def certify(
    name: str,
    issuer: Certified | None = None,
    *,
    is_ca: bool = True,
    curve: ec.EllipticCurve | None = None,
    firmware: bytes | None = None,
    may_sign: bool = True,
    days: int = 30,
) -> Certified:
    key = ec.generate_private_key(curve or ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = dt.datetime.fromtimestamp(NOW, dt.UTC) - dt.timedelta(days=10)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                not is_ca, False, False, False, False, is_ca and may_sign, False, False, False
            )
            if is_ca or not may_sign
            else x509.KeyUsage(True, False, False, False, False, False, False, False, False),
            critical=True,
        )
    )
    if firmware is not None:
        value = b"\x30\x00" + SHA384 + b"\x04\x30" + firmware
        builder = builder.add_extension(x509.UnrecognizedExtension(MADE_FOR, value), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA384())
    return Certified(key, certificate)


@dataclass
class Gpu:
    """One GPU, whose every part a test can replace."""

    root: Certified
    authority: Certified
    leaf: Certified
    fields: tuple[tuple[int, bytes], ...] = FIELDS
    blocks: tuple[bytes, ...] = BLOCKS
    question: bytes = b"\x11\xe0\x01\xff"
    answer: bytes = b"\x11\x60\x00\x00"
    nonce: bytes = NONCE
    slot: int = 0
    arch: str = "HOPPER"
    extra: dict[str, object] = field(default_factory=dict)

    def but(self, **changes: object) -> Gpu:
        return dataclasses.replace(self, **changes)

    @property
    def root_spki(self) -> str:
        key = self.root.certificate.public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).hexdigest()

    @property
    def chain(self) -> bytes:
        parts = (self.leaf, self.authority, self.root)
        return b"".join(part.certificate.public_bytes(Encoding.PEM) for part in parts)

    def report(self) -> bytes:
        record = b"".join(self.blocks)
        own = opaque(*self.fields)
        signed = self.question + self.nonce + bytes([self.slot]) + self.answer
        signed += bytes([len(self.blocks)]) + len(record).to_bytes(3, "little") + record
        signed += b"n" * 32 + struct.pack("<H", len(own)) + own
        r, s = decode_dss_signature(self.leaf.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        size = (self.leaf.key.key_size + 7) // 8
        return signed + r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def member(self) -> dict[str, object]:
        return {
            "arch": self.arch,
            "uuid": "GPU-1",
            "evidence": self.report().hex(),
            "certificate": base64.b64encode(self.chain).decode(),
        } | self.extra

    def evidence(self, *others: Gpu) -> bytes:
        members = [gpu.member() for gpu in (self, *others)]
        return json.dumps({"device_evidence_list": members}).encode()


def make_gpu() -> Gpu:
    """A GPU whose evidence is good under its own root."""
    root = certify("device root of a test")
    authority = certify("authority of a test", root)
    leaf = certify("GH100 of a test", authority, is_ca=False, firmware=FIRMWARE)
    return Gpu(root, authority, leaf)
