"""Whether collateral is fresh, unrevoked, about this platform, and signed by who may sign it.

The questions that stand beside the cryptography of `tdx.dcap`: some of them it leaves to its
caller (who signed, PCE id, issue date of revocation lists), the others are asked here first so
that each refusal has its own code.  A question is a function that returns or raises
`QuoteRefused`, which carries the number of the check (see `tdx.appraisal`).

Sources: Intel "PCS API v4"; Intel "PCK Certificate and CRL Specification"; RFC 5280.
Boundaries: a revocation list is dead at its nextUpdate, TCB info and QE identity one second
later, as everywhere in the DCAP world.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tng.attest.tdx.certificates import common_name, has_sgx_extension, parse_chain
from tng.attest.tdx.collateral import unavailable
from tng.errors import ErrorCode, UntrustedPeerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tng.attest.tdx.certificates import PckCertificate
    from tng.attest.tdx.collateral import Collateral

INTEL_ROOT_SHA256: Final = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER of "Intel SGX Root CA", valid until 2049."""

_INTEL_TCB_SIGNER: Final = "Intel SGX TCB Signing"
_INTEL_PCK_CAS: Final = frozenset({"Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"})

_YEARS: Final = range(2000, 9999)  # further out, dates of another time zone cannot be shown

SIGNATURE_CHECK: Final = 3
FRESHNESS_CHECK: Final = 4
REVOCATION_CHECK: Final = 5


class QuoteRefused(UntrustedPeerError):  # noqa: N818 - says what happened
    """A quote that is not to be trusted.

    Attributes:
        number: which check of `tdx.appraisal` failed.
    """

    def __init__(self, number: int, message: str, code: ErrorCode) -> None:
        super().__init__(message, code=code)
        self.number = number


@dataclass(frozen=True, slots=True)
class DatedStatement:
    """A signed JSON document of the vendor: TCB info or QE identity.

    Attributes:
        what: its name for people.
        members: the document.
        issued: Unix time, seconds.
        next_update: Unix time, seconds.
        issuers: the chain of its signer, leaf first.
    """

    what: str
    members: dict[str, object]
    issued: float
    next_update: float
    issuers: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class VendorStatements:
    """Collateral, parsed; nothing in it is believed yet."""

    tcb_info: DatedStatement
    qe_identity: DatedStatement
    root_crl: x509.CertificateRevocationList
    pck_crl: x509.CertificateRevocationList
    pck_crl_issuers: tuple[x509.Certificate, ...]


def parse_statements(collateral: Collateral) -> VendorStatements:
    """Parse every member of a collateral.

    Raises:
        AppraiserError: one cannot be parsed (collateral_unavailable); the message names it.
    """
    return VendorStatements(
        _parse_dated("TCB info", collateral.tcb_info, collateral.tcb_info_issuer_chain),
        _parse_dated("QE identity", collateral.qe_identity, collateral.qe_identity_issuer_chain),
        _parse_crl("root CA CRL", collateral.root_ca_crl),
        _parse_crl("PCK CRL", collateral.pck_crl),
        _parse_issuers("PCK CRL", collateral.pck_crl_issuer_chain),
    )


def check_freshness(statements: VendorStatements, now: int) -> str:
    """Require that every statement holds at `now` (Unix time, seconds); say until when.

    Raises:
        QuoteRefused: one has expired, or is from the future (collateral_expired).
    """
    ends = []
    for what, issued, end in _validities(statements):
        if now < issued:
            raise _stale(f"{what} is from the future: issued {_utc(issued)}, now {_utc(now)}")
        if now > end:
            raise _stale(f"{what} expired {_utc(end)}, now {_utc(now)}")
        ends.append(end)
    return f"valid until {_utc(min(ends))}"


def check_revocation(statements: VendorStatements, pck: PckCertificate) -> None:
    """Require that no certificate involved is on a revocation list.

    Raises:
        QuoteRefused: one is (revoked), or the list is another CA's (quote_invalid).
    """
    if statements.pck_crl.issuer != pck.leaf.issuer:
        message = (
            f"the PCK CRL is by {common_name(statements.pck_crl.issuer)!r}, the PCK certificate "
            f"by {common_name(pck.leaf.issuer)!r}: whether it is revoked is unknown"
        )
        raise QuoteRefused(REVOCATION_CHECK, message, ErrorCode.QUOTE_INVALID)
    _refuse_if_listed(pck.leaf, statements.pck_crl, "PCK certificate")
    for what, chain in (
        ("PCK CA", pck.chain[1:]),
        ("TCB info issuer", statements.tcb_info.issuers),
        ("QE identity issuer", statements.qe_identity.issuers),
        ("PCK CRL issuer", statements.pck_crl_issuers),
    ):
        for certificate in chain:
            _refuse_if_listed(certificate, statements.root_crl, what)


def check_pck_validity(pck: PckCertificate, now: int) -> None:
    """Require that the certificates in the quote hold at `now` (Unix time, seconds).

    Raises:
        QuoteRefused: one does not (quote_invalid).
    """
    for certificate in pck.chain:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin.timestamp() <= now <= end.timestamp():
            raise _invalid(
                f"{common_name(certificate.subject)!r} in the quote is valid from "
                f"{_utc(begin.timestamp())} to {_utc(end.timestamp())}, now {_utc(now)}"
            )


def check_platform(statements: VendorStatements, pck: PckCertificate) -> None:
    """Require that the TCB info is about the platform that the PCK certificate names.

    Raises:
        QuoteRefused: it is about another (quote_invalid).
    """
    members = statements.tcb_info.members
    for member, expected in (("fmspc", pck.fmspc.hex()), ("pceId", pck.pce_id.hex())):
        seen = members.get(member)
        if not isinstance(seen, str) or seen.lower() != expected:
            raise _invalid(
                f"TCB info is for {member} {seen!r:.40}, the PCK certificate for {expected!r}"
            )


def check_signers(statements: VendorStatements, root_ca_der: bytes | None) -> None:
    """Require that each statement's signer was made for that by the root itself.

    Under one root there are keys of many roles; a PCK key that signs TCB info would judge its
    own machine.

    Args:
        statements: what was signed.
        root_ca_der: the trusted root; None for Intel's.

    Raises:
        QuoteRefused: a signer has another role, or is not issued by the root (quote_invalid).
    """
    for statement in (statements.tcb_info, statements.qe_identity):
        signer = _issued_by_root(statement.issuers, root_ca_der, statement.what)
        if root_ca_der is None and common_name(signer.subject) != _INTEL_TCB_SIGNER:
            raise _invalid(f"{statement.what} is not signed by {_INTEL_TCB_SIGNER!r}")
        if has_sgx_extension(signer) or _is_ca(signer):
            raise _invalid(f"{statement.what} is signed by a certificate of another role")
    issuer = _issued_by_root(statements.pck_crl_issuers, root_ca_der, "PCK CRL")
    if root_ca_der is None and common_name(issuer.subject) not in _INTEL_PCK_CAS:
        raise _invalid("the PCK CRL is not by one of Intel's PCK CAs")
    key = issuer.public_key()
    signed = isinstance(key, ec.EllipticCurvePublicKey) and statements.pck_crl.is_signature_valid(
        key
    )
    if not signed:
        raise _invalid("the PCK CRL is not signed by its issuer")


def is_intel_root(der: bytes) -> bool:
    """Whether this is the certificate of Intel's root."""
    return hmac.compare_digest(hashlib.sha256(der).hexdigest(), INTEL_ROOT_SHA256)


def refuse_unknown_root(
    statements: VendorStatements, pck: PckCertificate, root_ca_der: bytes | None
) -> None:
    """Say so if the machine's certificates lead to another root than the trusted one.

    Only for quotes that were refused already: this tells why, and accepts nothing.

    Raises:
        QuoteRefused: they lead elsewhere (unknown_root).
    """
    if root_ca_der is None:
        known = {*pck.chain, *statements.tcb_info.issuers, *statements.pck_crl_issuers}
        anchors = [c for c in known if _is_trusted(c, None)]
    else:
        try:
            anchors = [x509.load_der_x509_certificate(root_ca_der)]
        except ValueError:
            return  # the operator's root is broken, which is not the machine's fault
    if any(_is_issued_by(ca, anchor) for ca in pck.chain[1:] for anchor in anchors):
        return
    maker = common_name(pck.chain[-1].issuer)
    raise QuoteRefused(
        SIGNATURE_CHECK,
        f"the machine's PCK certificate leads to {maker!r}, which is not the trusted root",
        ErrorCode.UNKNOWN_ROOT,
    )


def _is_trusted(certificate: x509.Certificate, root_ca_der: bytes | None) -> bool:
    der = certificate.public_bytes(Encoding.DER)
    return is_intel_root(der) if root_ca_der is None else hmac.compare_digest(der, root_ca_der)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _issued_by_root(
    chain: tuple[x509.Certificate, ...], root_ca_der: bytes | None, what: str
) -> x509.Certificate:
    """The chain's leaf, after checking that the trusted root issued it directly."""
    signer, root = chain[0], chain[-1]
    if not _is_trusted(root, root_ca_der):
        raise _invalid(f"the issuer chain of {what} does not end in the trusted root")
    if not _is_issued_by(signer, root):
        raise _invalid(f"the issuer of {what} is not issued directly by the root")
    return signer


def _is_ca(certificate: x509.Certificate) -> bool:
    return any(
        isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in certificate.extensions
    )


def _refuse_if_listed(
    certificate: x509.Certificate, crl: x509.CertificateRevocationList, what: str
) -> None:
    if certificate.issuer != crl.issuer:
        return
    if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        raise QuoteRefused(
            REVOCATION_CHECK,
            f"{what} with serial {certificate.serial_number:x} is revoked by "
            f"{common_name(crl.issuer)!r}",
            ErrorCode.REVOKED,
        )


def _validities(statements: VendorStatements) -> Iterator[tuple[str, float, float]]:
    """Name, first and last second of everything dated, signers' certificates included."""
    for statement in (statements.tcb_info, statements.qe_identity):
        yield statement.what, statement.issued, statement.next_update
        signer = statement.issuers[0]
        begin, end = signer.not_valid_before_utc, signer.not_valid_after_utc
        yield f"{statement.what} issuer certificate", begin.timestamp(), end.timestamp()
    for what, crl in (("root CA CRL", statements.root_crl), ("PCK CRL", statements.pck_crl)):
        # A list without a nextUpdate would hold for ever; it is taken to be dead already.
        end_of_crl = crl.next_update_utc or crl.last_update_utc
        yield what, crl.last_update_utc.timestamp(), end_of_crl.timestamp() - 1


def _parse_dated(what: str, text: str, chain: str) -> DatedStatement:
    try:
        members = json.loads(text)
        dates = [dt.datetime.fromisoformat(members[n]) for n in ("issueDate", "nextUpdate")]
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise unavailable(what, "is not a dated JSON document") from exc
    if any(d.tzinfo is None or d.year not in _YEARS for d in dates):
        raise unavailable(what, "has a date without a time zone, or out of range")
    issued, update = (d.timestamp() for d in dates)
    return DatedStatement(what, members, issued, update, _parse_issuers(what, chain))


def _parse_issuers(what: str, chain: str) -> tuple[x509.Certificate, ...]:
    try:
        return parse_chain(chain.encode())
    except ValueError as exc:
        raise unavailable(what, "has no readable issuer chain") from exc


def _parse_crl(what: str, der: bytes) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        _ = crl.issuer, crl.last_update_utc, crl.next_update_utc  # parsed when first asked for
    except (ValueError, TypeError, x509.InvalidVersion) as exc:
        raise unavailable(what, "is no certificate revocation list in DER") from exc
    return crl


def _stale(message: str) -> QuoteRefused:
    return QuoteRefused(FRESHNESS_CHECK, message, ErrorCode.COLLATERAL_EXPIRED)


def _invalid(message: str) -> QuoteRefused:
    return QuoteRefused(SIGNATURE_CHECK, message, ErrorCode.QUOTE_INVALID)


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
