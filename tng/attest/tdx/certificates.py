"""The certificates inside quotes and collateral, and what a PCK certificate says of its platform.

PEM in, `cryptography` certificates out.  The SGX extension (Intel "PCK Certificate and CRL
Specification", section 1.3.5) names the platform: FMSPC, PCE id, and which of the two PCK CAs
issued it.  Nothing here decides trust; a chain is merely read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from tng.attest.evidence_text import malformed
from tng.attest.tdx.library import LibraryError, guarded

if TYPE_CHECKING:
    from tng.attest.tdx.quote import Quote

SGX_EXTENSION: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")

SIMULATED_ORGANISATION: Final = "TDX simulator, not Intel"
"""Organisation in every certificate that `tdx.simulator` issues, and in no other."""

MAX_CHAIN_CERTIFICATES: Final = 8
"""Real chains have three; more would only make us work."""


@dataclass(frozen=True, slots=True)
class PckCertificate:
    """The certificate of the key that vouches for a quoting enclave.

    Attributes:
        chain: leaf first, as the quote carries it.
        fmspc: 6 octets, the kind of platform.
        pce_id: 2 octets, little endian as stored.
        ca: "platform" or "processor".
        says_simulated: the leaf names the TDX simulator as its maker.
    """

    chain: tuple[x509.Certificate, ...]
    fmspc: bytes
    pce_id: bytes
    ca: str
    says_simulated: bool

    @property
    def leaf(self) -> x509.Certificate:
        """The PCK certificate itself."""
        return self.chain[0]


def pck_certificate(quote: Quote) -> PckCertificate:
    """The PCK certificate that `quote` carries.

    Raises:
        UntrustedPeerError: no readable chain with an SGX extension (evidence_malformed).
    """
    return _read_pck(quote.certification.pck_chain_pem)


def parse_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Certificates of a PEM text, in its order: 1 to 8.

    Raises:
        ValueError: not PEM, not certificates, none, too many, or one of them cannot be read in all
            its parts.
    """
    try:
        # Quoting enclaves end the text with a NUL.
        chain = tuple(x509.load_pem_x509_certificates(pem.rstrip(b"\0")))
        for certificate in chain:
            # Parsed when first asked for: asked here, so that no later caller meets the error.
            _ = certificate.subject, certificate.issuer, certificate.extensions
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            _ = certificate.public_key()
            if certificate.serial_number < 1:
                # RFC 5280 section 4.1.2.2; no revocation list can be searched for another one.
                raise ValueError("a certificate has a serial number below 1")
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise ValueError("a certificate has impossible extensions") from exc
    except (x509.InvalidVersion, UnsupportedAlgorithm, TypeError, Warning) as exc:
        # A TypeError for a name that is a bit string; a Warning only where the process turns them
        # into errors: a serial below 1.
        raise ValueError("a certificate of another version, or of another kind of key") from exc
    if len(chain) > MAX_CHAIN_CERTIFICATES:
        raise ValueError(f"a chain has at most {MAX_CHAIN_CERTIFICATES} certificates")
    return chain


def common_name(name: x509.Name) -> str:
    """The common name, or "" when there is none."""
    return next((str(a.value) for a in name.get_attributes_for_oid(NameOID.COMMON_NAME)), "")


def has_sgx_extension(certificate: x509.Certificate) -> bool:
    """Whether this is a PCK certificate, which must never sign anything but QE reports."""
    return any(e.oid == SGX_EXTENSION for e in certificate.extensions)


@lru_cache(maxsize=64)  # one machine sends the same chain with each of its quotes
def _read_pck(pem: bytes) -> PckCertificate:
    try:
        chain = parse_chain(pem)
        extension = guarded(lambda: dcap_qvl.parse_pck_extension_from_pem(pem))
        fmspc, pce_id = bytes(extension.fmspc), bytes(extension.pce_id)
        issuer = common_name(chain[0].issuer)
        organisations = chain[0].subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except (ValueError, LibraryError) as exc:
        raise malformed("the quote's PCK certificate chain cannot be read") from exc
    return PckCertificate(
        chain=chain,
        fmspc=fmspc,
        pce_id=pce_id,
        ca="platform" if "Platform" in issuer else "processor",
        says_simulated=any(o.value == SIMULATED_ORGANISATION for o in organisations),
    )
