"""Quotes against collateral: every kind of wrongness has its own code."""

from __future__ import annotations

import base64
import dataclasses

import pytest

from tng.attest.tdx.certificates import parse_chain, pck_certificate
from tng.attest.tdx.dcap import verify_quote
from tng.attest.tdx.library import LibraryError, guarded
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.authority import DAY_S, Authority, Identity, dump_pem, make_crl
from tng.attest.tdx.simulator.collateral import (
    VALID_S,
    make_collateral,
    qe_identity_statement,
    tcb_info_statement,
)
from tng.attest.tdx.simulator.keys import make_key, sign_raw
from tng.attest.tdx.simulator.profile import TD_SEPT_VE_DISABLE
from tng.attest.tdx.vendor_statements import QuoteRefused
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError

NOW = 1_767_225_600
ISSUED = NOW - 3600


def verify(workshop, quote=None, collateral=None, *, now=NOW, root=None):
    return verify_quote(
        quote or workshop.quote(),
        collateral or workshop.collateral,
        now=now,
        root_ca_der=root or workshop.authority.root_der,
    )


def refused(code: ErrorCode, number: int, words: str, *arguments, **named) -> None:
    with pytest.raises(QuoteRefused, match=words) as caught:
        verify(*arguments, **named)
    assert (caught.value.code, caught.value.number) == (code, number)


@pytest.mark.parametrize("version", [4, 5])
def test_a_good_quote_is_up_to_date(workshop, version):
    appraisal = verify(workshop, workshop.quote(version=version))
    assert appraisal.tcb_status == "UpToDate"
    assert appraisal.advisory_ids == ()
    assert appraisal.simulated
    assert appraisal.claims["simulated_platform"] is True
    assert appraisal.tcb_verification == {
        "tcb_status": "UpToDate",
        "tcb_status_code": 0,
        "collateral_expired": False,
        "earliest_issue_date": NOW - 30 * DAY_S,
        "latest_issue_date": ISSUED,
        "earliest_expiration_date": ISSUED + VALID_S,
        "tcb_level_date_tag": 1710288000,
        "tcb_eval_ref_num": 17,
        "advisory_ids": "",
        "tee_type": 129,
    }


def test_a_quote_in_a_kernels_buffer_is_good(workshop):
    assert verify(workshop, workshop.quote() + bytes(70)).tcb_status == "UpToDate"


@pytest.mark.parametrize(
    ("status", "number"),
    [
        ("SWHardeningNeeded", 0xA007),
        ("ConfigurationNeeded", 0xA001),
        ("ConfigurationAndSWHardeningNeeded", 0xA008),
        ("OutOfDate", 0xA002),
        ("OutOfDateConfigurationNeeded", 0xA003),
    ],
)
def test_other_statuses_are_told_and_left_to_the_caller(workshop, status, number):
    collateral = workshop.signed_tcb_info(tcb_info_statement(ISSUED, status=status))
    appraisal = verify(workshop, collateral=collateral)
    assert appraisal.tcb_status == status
    assert appraisal.tcb_verification["tcb_status_code"] == number


def test_an_older_host_is_out_of_date_and_its_advisories_are_told(workshop):
    old = workshop.other_host(pce_svn=9)
    appraisal = verify(workshop, old.quote(bytes(64), workshop.domain))
    assert (appraisal.tcb_status, appraisal.advisory_ids) == ("OutOfDate", ("SIMULATED-SA-00001",))
    assert appraisal.tcb_verification["advisory_ids"] == "SIMULATED-SA-00001"


# --- texts of the library, a row of the table each ---


def test_a_revoked_tcb_level_is_refused(workshop):
    collateral = workshop.signed_tcb_info(tcb_info_statement(ISSUED, status="Revoked"))
    refused(ErrorCode.REVOKED, 6, "Revoked", workshop, collateral=collateral)


def test_a_host_below_every_level_is_refused(workshop):
    quote = workshop.other_host(pce_svn=4).quote(bytes(64), workshop.domain)
    refused(ErrorCode.TCB_NOT_ACCEPTED, 6, "No matching TCB level", workshop, quote)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"qe_isv_svn": 3}, "below minimum"),
        ({"tee_tcb_svn": bytes([1, 1, 3]) + bytes(13)}, "TDX module TCB level"),
        ({"tee_tcb_svn": bytes([6, 3, 3]) + bytes(13)}, "TDX module TCB level"),
    ],
)
def test_an_enclave_or_module_below_every_level_is_refused(workshop, profile, words):
    quote = workshop.other_host(**profile).quote(bytes(64), workshop.domain)
    refused(ErrorCode.TCB_NOT_ACCEPTED, 6, words, workshop, quote)


def test_a_module_that_fell_below_every_level_since_launch_is_refused(workshop):
    quote = bytearray(workshop.quote(version=5))
    quote[638:654] = bytes(16)
    quote[706:770] = sign_raw(workshop.host.attestation_key, bytes(quote[:702]))
    refused(ErrorCode.TCB_NOT_ACCEPTED, 6, "current TDX TCB", workshop, bytes(quote))


# --- revocation ---


def test_a_revoked_pck_certificate_is_refused(workshop):
    collateral = make_collateral(workshop.authority, NOW, revoked=[workshop.host.pck.certificate])
    refused(ErrorCode.REVOKED, 5, "PCK certificate with serial", workshop, collateral=collateral)


@pytest.mark.parametrize("role", ["pck_ca", "tcb_signer", "root"])
def test_an_issuer_revoked_by_the_root_is_refused(workshop, role):
    certificate = getattr(workshop.authority, role).certificate
    crl = make_crl(workshop.authority.root, ISSUED, VALID_S, [certificate])
    collateral = workshop.with_members(root_ca_crl=crl)
    refused(ErrorCode.REVOKED, 5, "is revoked by", workshop, collateral=collateral)


def test_another_revoked_pck_certificate_does_not_matter(workshop):
    other = workshop.other_host().pck.certificate
    collateral = make_collateral(workshop.authority, NOW, revoked=[other])
    assert verify(workshop, collateral=collateral).tcb_status == "UpToDate"


def test_a_revocation_list_of_another_ca_is_refused(workshop):
    crl = make_crl(workshop.authority.root, ISSUED, VALID_S)
    collateral = workshop.with_members(pck_crl=crl)
    refused(ErrorCode.QUOTE_INVALID, 5, "is unknown", workshop, collateral=collateral)


def test_a_revocation_list_signed_by_a_stranger_is_refused(workshop):
    stranger = Authority.create(NOW)
    crl = make_crl(stranger.pck_ca, ISSUED, VALID_S)
    refused(
        ErrorCode.QUOTE_INVALID,
        3,
        "certificate chain",
        workshop,
        collateral=workshop.with_members(pck_crl=crl),
    )


# --- time ---


def expired(workshop, member):
    authority, past = workshop.authority, NOW - 40 * DAY_S
    match member:
        case "tcb_info":
            return workshop.signed_tcb_info(tcb_info_statement(past))
        case "qe_identity":
            return workshop.signed_qe_identity(qe_identity_statement(past))
        case "pck_crl":
            return workshop.with_members(pck_crl=make_crl(authority.pck_ca, past, VALID_S))
        case _:
            return workshop.with_members(root_ca_crl=make_crl(authority.root, past, VALID_S))


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity", "pck_crl", "root_ca_crl"])
def test_expired_collateral_is_refused(workshop, member):
    collateral = expired(workshop, member)
    refused(ErrorCode.COLLATERAL_EXPIRED, 4, "expired", workshop, collateral=collateral)


def test_collateral_from_the_future_is_refused(workshop):
    authority, future = workshop.authority, NOW + 60
    for collateral in (
        workshop.signed_tcb_info(tcb_info_statement(future)),
        workshop.signed_qe_identity(qe_identity_statement(future)),
        workshop.with_members(pck_crl=make_crl(authority.pck_ca, future, VALID_S)),
        workshop.with_members(root_ca_crl=make_crl(authority.root, future, VALID_S)),
    ):
        refused(ErrorCode.COLLATERAL_EXPIRED, 4, "future", workshop, collateral=collateral)


def test_the_last_good_second_of_collateral(workshop):
    end = ISSUED + VALID_S
    assert verify(workshop, now=end - 1).freshness.startswith("valid until 2026-01-30")
    refused(ErrorCode.COLLATERAL_EXPIRED, 4, "root CA CRL expired", workshop, now=end)


def test_tcb_info_is_good_at_its_next_update_and_not_one_second_later(workshop):
    long_lived = workshop.with_members(
        root_ca_crl=make_crl(workshop.authority.root, ISSUED, 99 * DAY_S),
        pck_crl=make_crl(workshop.authority.pck_ca, ISSUED, 99 * DAY_S),
    )
    end = ISSUED + VALID_S
    assert verify(workshop, collateral=long_lived, now=end).tcb_status == "UpToDate"
    refused(
        ErrorCode.COLLATERAL_EXPIRED, 4, "TCB info", workshop, collateral=long_lived, now=end + 1
    )


def test_an_expired_pck_certificate_is_refused(workshop):
    key = make_key()
    long_ago = NOW - 8 * 365 * DAY_S
    certificate = workshop.authority.issue_pck(workshop.host.profile, key.public_key(), long_ago)
    host = type(workshop.host)(
        workshop.authority, Identity(key, certificate), workshop.host.profile
    )
    quote = host.quote(bytes(64), workshop.domain)
    refused(ErrorCode.QUOTE_INVALID, 3, "in the quote is valid from", workshop, quote)


# --- attributes ---


@pytest.mark.parametrize("bit", range(8))
def test_a_domain_under_debug_is_refused_profiling_and_reserved_bits_included(workshop, bit):
    quote = workshop.quote(td_attributes=1 << bit | TD_SEPT_VE_DISABLE)
    refused(ErrorCode.DEBUG_TD, 7, "debug mode", workshop, quote)


@pytest.mark.parametrize("attributes", [0, 256 | TD_SEPT_VE_DISABLE, 1 << 29 | TD_SEPT_VE_DISABLE])
def test_other_unsafe_attributes_are_refused(workshop, attributes):
    quote = workshop.quote(td_attributes=attributes)
    refused(ErrorCode.POLICY_DENIED, 7, "attributes are set|SEPT_VE|migration", workshop, quote)


def test_harmless_attributes_are_accepted(workshop):
    attributes = TD_SEPT_VE_DISABLE | 1 << 30 | 1 << 31 | 1 << 63
    assert verify(workshop, workshop.quote(td_attributes=attributes)).tcb_status == "UpToDate"


def test_a_service_domain_is_refused(workshop):
    quote = workshop.quote(version=5, mr_servicetd=b"s" * 48)
    refused(ErrorCode.POLICY_DENIED, 7, "service TD: a service domain", workshop, quote)
    changed = bytearray(quote)
    changed[60] ^= 1  # under the signature, which is asked about first
    refused(ErrorCode.QUOTE_INVALID, 3, "signature", workshop, bytes(changed))


# --- signatures, chains, roles ---


def test_a_platform_of_another_vendor_with_the_same_names_is_refused(workshop):
    stranger = Authority.create(NOW)
    quote = workshop.other_host(authority=stranger).quote(bytes(64), workshop.domain)
    theirs = make_collateral(stranger, NOW)
    refused(ErrorCode.UNKNOWN_ROOT, 3, "not the trusted root", workshop, quote)
    refused(ErrorCode.UNKNOWN_ROOT, 3, "not the trusted root", workshop, quote, theirs)
    refused(ErrorCode.QUOTE_INVALID, 3, "root CA CRL", workshop, None, theirs)
    assert verify(workshop, quote, theirs, root=stranger.root_der).tcb_status == "UpToDate"


def test_another_root_is_refused(workshop):
    root = Authority.create(NOW).root_der
    refused(ErrorCode.UNKNOWN_ROOT, 3, "not the trusted root", workshop, root=root)


def test_a_simulated_quote_is_called_so_when_intels_root_is_trusted(workshop):
    with pytest.raises(QuoteRefused, match="in software") as caught:
        verify_quote(workshop.quote(), workshop.collateral, now=NOW)
    assert caught.value.code is ErrorCode.SIMULATED_EVIDENCE


def test_a_quote_signed_by_another_key_is_refused(workshop):
    quote = bytearray(workshop.quote())
    quote[636:700] = sign_raw(make_key(), bytes(quote[:632]))
    refused(ErrorCode.QUOTE_INVALID, 3, "signature is invalid", workshop, bytes(quote))


def test_an_attestation_key_that_no_enclave_vouches_for_is_refused(workshop):
    from tng.attest.tdx.simulator.keys import public_point

    key, quote = make_key(), bytearray(workshop.quote())
    quote[636:700] = sign_raw(key, bytes(quote[:632]))
    quote[700:764] = public_point(key)
    refused(ErrorCode.QUOTE_INVALID, 3, "hash mismatch", workshop, bytes(quote))


def test_a_quoting_enclave_in_debug_mode_is_refused(workshop):
    debug = bytes.fromhex("1700000000000000e700000000000000")
    quote = workshop.other_host(qe_attributes=debug).quote(bytes(64), workshop.domain)
    refused(ErrorCode.QUOTE_INVALID, 3, "QE report", workshop, quote)


@pytest.mark.parametrize("profile", [{"qe_mr_signer": b"x" * 32}, {"qe_isv_prod_id": 1}])
def test_another_quoting_enclave_is_refused(workshop, profile):
    quote = workshop.other_host(**profile).quote(bytes(64), workshop.domain)
    refused(ErrorCode.QUOTE_INVALID, 3, "mismatch", workshop, quote)


def signed_by(workshop, member, key, *chain):
    """Collateral whose TCB info or QE identity is signed by another key of the same root."""
    text = getattr(workshop.collateral, member)
    return workshop.with_members(
        **{
            f"{member}_signature": sign_raw(key, text.encode()),
            f"{member}_issuer_chain": dump_pem(*chain),
        }
    )


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_statements_signed_by_a_pck_key_are_refused(workshop, member):
    """The key's chain leads to the root; its role is another."""
    authority, pck = workshop.authority, workshop.host.pck
    chain = (pck.certificate, authority.pck_ca.certificate, authority.root.certificate)
    collateral = signed_by(workshop, member, pck.key, *chain)
    refused(ErrorCode.QUOTE_INVALID, 3, "directly", workshop, collateral=collateral)


@pytest.mark.parametrize("role", ["pck_ca", "pck"])
def test_statements_signed_by_a_certificate_of_another_role_are_refused(workshop, role):
    """Even one that the root issued itself."""
    authority, root = workshop.authority, workshop.authority.root
    if role == "pck_ca":
        signer = authority.pck_ca
    else:
        key = make_key()
        by_root = dataclasses.replace(authority, pck_ca=root)
        signer = Identity(key, by_root.issue_pck(workshop.host.profile, key.public_key(), NOW))
    collateral = signed_by(workshop, "tcb_info", signer.key, signer.certificate, root.certificate)
    refused(
        ErrorCode.QUOTE_INVALID,
        3,
        "another role|certificate chain",
        workshop,
        collateral=collateral,
    )


def test_an_issuer_chain_without_the_root_is_refused(workshop):
    chain = dump_pem(workshop.authority.tcb_signer.certificate)
    collateral = workshop.with_members(tcb_info_issuer_chain=chain)
    refused(ErrorCode.QUOTE_INVALID, 3, "end in the trusted root", workshop, collateral=collateral)


@pytest.mark.parametrize("role", ["tcb_signer", "root"])
def test_a_revocation_list_with_the_chain_of_another_issuer_is_refused(workshop, role):
    authority = workshop.authority
    chain = dump_pem(getattr(authority, role).certificate, authority.root.certificate)
    collateral = workshop.with_members(pck_crl_issuer_chain=chain)
    refused(ErrorCode.QUOTE_INVALID, 3, "not signed by its issuer", workshop, collateral=collateral)


def test_tcb_info_changed_after_signing_is_refused(workshop):
    spaced = workshop.collateral.tcb_info.replace(",", ", ", 1)
    collateral = workshop.with_members(tcb_info=spaced)
    refused(
        ErrorCode.QUOTE_INVALID,
        3,
        "Signature is invalid for tcb_info",
        workshop,
        collateral=collateral,
    )


def test_tcb_info_for_another_pce_is_refused(workshop):
    statement = tcb_info_statement(ISSUED) | {"pceId": "0001"}
    collateral = workshop.signed_tcb_info(statement)
    refused(ErrorCode.QUOTE_INVALID, 3, "pceId '0001'", workshop, collateral=collateral)


@pytest.mark.parametrize("change", [{"fmspc": "00906ED50000"}, {"id": "SGX"}])
def test_tcb_info_for_another_platform_is_refused(workshop, change):
    collateral = workshop.signed_tcb_info(tcb_info_statement(ISSUED) | change)
    refused(ErrorCode.QUOTE_INVALID, 3, "Fmspc|non-TDX", workshop, collateral=collateral)


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tcb_info", "{"),
        ("tcb_info", "[]"),
        ("tcb_info", "[" * 50_000),
        ("tcb_info", '{"issueDate":1,"nextUpdate":2}'),
        ("tcb_info", '{"issueDate":"2025-01-01T00:00:00","nextUpdate":"2027-01-01T00:00:00"}'),
        ("qe_identity", '{"issueDate":"0001-01-01T00:00:00Z","nextUpdate":"2027-01-01T00:00:00Z"}'),
        ("tcb_info_issuer_chain", ""),
        (
            "qe_identity_issuer_chain",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        ),
        ("pck_crl_issuer_chain", "none"),
        ("pck_crl", b"\x30\x80"),
        ("root_ca_crl", b""),
    ],
)
def test_collateral_that_cannot_be_read_is_the_appraisers_fault(workshop, member, value):
    with pytest.raises(AppraiserError) as caught:
        verify(workshop, collateral=workshop.with_members(**{member: value}))
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE


def test_a_chain_of_too_many_certificates_is_not_read(workshop):
    chain = workshop.collateral.tcb_info_issuer_chain * 5
    with pytest.raises(AppraiserError):
        verify(workshop, collateral=workshop.with_members(tcb_info_issuer_chain=chain))


def test_a_quote_without_a_readable_pck_chain_is_malformed(workshop):
    quote = workshop.quote().replace(b"-----BEGIN", b"-----begin")
    with pytest.raises(UntrustedPeerError) as caught:
        verify(workshop, quote)
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_chain_without_an_sgx_extension_is_malformed(workshop):
    quote = workshop.quote()
    at = quote.index(b"-----BEGIN")
    second = quote.index(b"-----BEGIN", at + 1)
    swapped = quote[:at] + quote[second:] + quote[at:second]
    with pytest.raises(UntrustedPeerError) as caught:
        pck_certificate(parse_quote(swapped))
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_a_root_that_is_no_certificate_is_refused(workshop):
    refused(ErrorCode.QUOTE_INVALID, 3, "load root ca", workshop, root=b"no certificate")


# --- the door to the library ---


class PanicException(BaseException):
    """What a panic of Rust code looks like."""


@pytest.mark.parametrize(
    "failure",
    [ValueError("a\n b"), RuntimeError("x"), TypeError(), OverflowError(), PanicException()],
)
def test_every_failure_of_the_library_is_translated(failure):
    def call() -> None:
        raise failure

    with pytest.raises(LibraryError):
        guarded(call)


def test_an_interrupt_is_not_taken_for_a_failure_of_the_library():
    def call() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(call)


def test_the_librarys_text_is_bounded_and_on_one_line():
    def call() -> None:
        raise ValueError("Verification failed: " + "a\n" * 500)

    with pytest.raises(LibraryError) as caught:
        guarded(call)
    assert len(str(caught.value)) == 200
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("a a")


def test_a_certificate_that_repeats_an_extension_is_not_read(workshop):
    """It parses as a certificate and fails only when its extensions are looked at."""
    from cryptography.hazmat.primitives.serialization import Encoding

    der = workshop.authority.tcb_signer.certificate.public_bytes(Encoding.DER)
    key_usage, constraints = b"\x06\x03\x55\x1d\x0f", b"\x06\x03\x55\x1d\x13"
    twice = der.replace(key_usage, constraints)
    body = base64.encodebytes(twice).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError, match="impossible extensions"):
        parse_chain(pem.encode())
