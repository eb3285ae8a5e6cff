"""The vendor's part of the simulated platform: root, PCK CA, TCB signer, revocation lists.

Certificates have the shape of Intel's (Intel "PCK Certificate and CRL Specification"), with
names that say who made them: "Simulated SGX ...", organisation "TDX simulator, not Intel".
A verifier accepts them only when it is given this root; no verifier has it built in.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from tng.attest.key_usage import ISSUER_USES, KeyUse, key_usage
from tng.attest.tdx.certificates import SGX_EXTENSION, SIMULATED_ORGANISATION
from tng.attest.tdx.simulator.der import encode_sgx_extension
from tng.attest.tdx.simulator.keys import PrivateKey, make_key, sign_raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from tng.attest.tdx.simulator.profile import HostProfile

DAY_S: Final = 86400
_BACKDATED_S: Final = 30 * DAY_S  # a verifier whose clock is behind must not trip over it
_YEAR_S: Final = 365 * DAY_S
_LEAF_USES: Final[tuple[KeyUse, ...]] = ("digital_signature", "content_commitment")


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its certificate."""

    key: PrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Authority:
    """The three identities of the vendor.

    Attributes:
        root: the anchor; signs the other two and the root revocation list.
        pck_ca: signs PCK certificates and their revocation list.
        tcb_signer: signs TCB info and QE identity.
    """

    root: Identity
    pck_ca: Identity
    tcb_signer: Identity

    @classmethod
    def create(cls, now: int) -> Authority:
        """A vendor with fresh keys.

        Args:
            now: Unix time, seconds; certificates hold from a month before to years after.
        """
        root_key, ca_key, signer_key = make_key(), make_key(), make_key()
        root_name, root_public = _name("Root CA"), root_key.public_key()
        root = _Request(root_name, root_public, now, 20 * _YEAR_S, path_length=1)
        ca = _Request(_name("PCK Platform CA"), ca_key.public_key(), now, 15 * _YEAR_S, 0)
        signer = _Request(_name("TCB Signing"), signer_key.public_key(), now, 7 * _YEAR_S)
        return cls(
            Identity(root_key, _issue(root, root_name, root_key)),
            Identity(ca_key, _issue(ca, root_name, root_key)),
            Identity(signer_key, _issue(signer, root_name, root_key)),
        )

    @property
    def root_der(self) -> bytes:
        """The trust anchor to give a verifier, DER."""
        return self.root.certificate.public_bytes(serialization.Encoding.DER)

    def issue_pck(
        self, profile: HostProfile, public_key: EllipticCurvePublicKey, now: int
    ) -> x509.Certificate:
        """A PCK certificate for a machine as `profile` describes it."""
        request = _Request(
            _name("PCK Certificate"),
            public_key,
            now,
            7 * _YEAR_S,
            sgx_extension=encode_sgx_extension(profile),
        )
        return _issue(request, self.pck_ca.certificate.subject, self.pck_ca.key)

    def sign_json(self, statement: Mapping[str, object]) -> tuple[str, bytes]:
        """The JSON text of a statement, and 64 octets of signature over exactly that text."""
        text = json.dumps(statement, separators=(",", ":"))
        return text, sign_raw(self.tcb_signer.key, text.encode())


def make_crl(
    issuer: Identity, issued: int, valid_s: int, revoked: Iterable[x509.Certificate] = ()
) -> bytes:
    """A revocation list, DER.

    Args:
        issuer: the CA whose certificates it covers.
        issued: Unix time, seconds.
        valid_s: seconds until the next one is due.
        revoked: certificates on the list.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_utc(issued))
        .next_update(_utc(issued + valid_s))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(_authority_key(issuer.key), critical=False)
    )
    for certificate in revoked:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.serial_number)
            .revocation_date(_utc(issued))
            .add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        )
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def dump_pem(*certificates: x509.Certificate) -> str:
    """PEM text of certificates, in the order given."""
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a certificate is to say; `path_length` makes it a CA's."""

    subject: x509.Name
    public_key: EllipticCurvePublicKey
    now: int
    valid_s: int
    path_length: int | None = None
    sgx_extension: bytes | None = None


def _issue(request: _Request, issuer: x509.Name, issuer_key: PrivateKey) -> x509.Certificate:
    is_ca = request.path_length is not None
    key_id = x509.SubjectKeyIdentifier.from_public_key(request.public_key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(issuer)
        .public_key(request.public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_utc(request.now - _BACKDATED_S))
        .not_valid_after(_utc(request.now + request.valid_s))
        .add_extension(_authority_key(issuer_key), critical=False)
        .add_extension(key_id, critical=False)
        .add_extension(key_usage(*(ISSUER_USES if is_ca else _LEAF_USES)), critical=True)
        .add_extension(x509.BasicConstraints(is_ca, request.path_length), critical=True)
    )
    if request.sgx_extension is not None:
        extension = x509.UnrecognizedExtension(SGX_EXTENSION, request.sgx_extension)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _authority_key(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Simulated SGX {role}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATED_ORGANISATION),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _utc(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)
