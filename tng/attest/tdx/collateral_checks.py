"""Whether collateral is worth keeping: signed by the vendor, in force, about this platform.

Collateral and the PCK certificate of a quote in; the end of its validity out, or an
`AppraiserError` that says what is wrong with it.  A cache, a bundle or a PCCS is believed only
after this; what the collateral then says about a quote is `tdx.appraisal`'s, which verifies it
once more.  Sources: Intel "PCS API v4"; RFC 5280.

Invariant: what passes can be refused later for what it says of the platform, never for who said
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tng.attest.tdx.collateral import unavailable
from tng.attest.tdx.vendor_statements import (
    QuoteRefused,
    check_freshness,
    check_platform,
    check_signers,
    parse_statements,
)
from tng.errors import AppraiserError, ErrorCode

if TYPE_CHECKING:
    from cryptography import x509

    from tng.attest.tdx.certificates import PckCertificate
    from tng.attest.tdx.collateral import Collateral
    from tng.attest.tdx.vendor_statements import DatedStatement, VendorStatements

_HALF: int = 32  # octets of half a P-256 signature


def check_collateral(
    collateral: Collateral, pck: PckCertificate, *, now: int, root_ca_der: bytes | None = None
) -> float:
    """Require that collateral may be used for a platform at `now`.

    Args:
        collateral: from anywhere.
        pck: names the platform.
        now: Unix time, seconds.
        root_ca_der: the trusted root, DER; None for Intel's.

    Returns:
        Unix time at which the first part of it ends, seconds.

    Raises:
        AppraiserError: it may not: collateral_expired if it is out of date, collateral_unavailable
            for everything else.
    """
    statements = parse_statements(collateral)
    try:
        check_freshness(statements, now)
        check_platform(statements, pck)
        check_signers(statements, root_ca_der)
    except QuoteRefused as exc:
        is_expired = exc.code is ErrorCode.COLLATERAL_EXPIRED
        code = ErrorCode.COLLATERAL_EXPIRED if is_expired else ErrorCode.COLLATERAL_UNAVAILABLE
        raise AppraiserError(str(exc), code=code) from exc
    _check_signature(statements.tcb_info, collateral.tcb_info, collateral.tcb_info_signature)
    _check_signature(
        statements.qe_identity, collateral.qe_identity, collateral.qe_identity_signature
    )
    _check_lists(statements, pck)
    return _end(statements)


def _check_signature(statement: DatedStatement, text: str, signature: bytes) -> None:
    key = statement.issuers[0].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 2 * _HALF:
        raise unavailable(statement.what, "is not signed with ECDSA P-256")
    r, s = (int.from_bytes(half, "big") for half in (signature[:_HALF], signature[_HALF:]))
    try:
        key.verify(encode_dss_signature(r, s), text.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as exc:
        raise unavailable(statement.what, "does not bear its signer's signature") from exc


def _check_lists(statements: VendorStatements, pck: PckCertificate) -> None:
    """Require that the root signed its list, and that the other is of the right CA."""
    root = statements.tcb_info.issuers[-1]
    key = root.public_key()
    crl = statements.root_crl
    signed = isinstance(key, ec.EllipticCurvePublicKey) and crl.is_signature_valid(key)
    if not signed or crl.issuer != root.subject:
        raise unavailable("root CA CRL", "is not signed by the root")
    if statements.pck_crl.issuer != pck.leaf.issuer:
        raise unavailable("PCK CRL", "is not by the CA of the PCK certificate")


def _end(statements: VendorStatements) -> float:
    return min(
        statements.tcb_info.next_update,
        statements.qe_identity.next_update,
        *(_end_of_list(crl) for crl in (statements.root_crl, statements.pck_crl)),
    )


def _end_of_list(crl: x509.CertificateRevocationList) -> float:
    # A list without a nextUpdate would hold for ever; it is taken to be dead already.
    return (crl.next_update_utc or crl.last_update_utc).timestamp()
