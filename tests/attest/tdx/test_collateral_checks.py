"""Which collateral is worth keeping."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tng.attest.tdx.certificates import pck_certificate
from tng.attest.tdx.collateral_checks import check_collateral
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.authority import Authority
from tng.attest.tdx.simulator.collateral import make_collateral
from tng.errors import AppraiserError, ErrorCode

DAY_S = 86_400


@pytest.fixture
def check(workshop):
    pck = pck_certificate(parse_quote(workshop.quote()))

    def check(collateral=None, *, now=workshop.now, root=None):
        return check_collateral(
            collateral or workshop.collateral,
            pck,
            now=now,
            root_ca_der=root or workshop.authority.root_der,
        )

    return check


def test_good_collateral_says_when_it_ends(check, workshop):
    end = check()
    assert end > workshop.now
    check(now=int(end) - 2)
    with pytest.raises(AppraiserError) as caught:
        check(now=int(end) + 2)
    assert caught.value.code is ErrorCode.COLLATERAL_EXPIRED


def test_collateral_of_the_future_is_out_of_date(check, workshop):
    with pytest.raises(AppraiserError) as caught:
        check(make_collateral(workshop.authority, workshop.now + 30 * DAY_S))
    assert caught.value.code is ErrorCode.COLLATERAL_EXPIRED


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("tcb_info_signature", "TCB info does not bear its signer's signature"),
        ("qe_identity_signature", "QE identity does not bear its signer's signature"),
    ],
)
def test_a_signature_of_somebody_else_is_refused(check, workshop, member, words):
    other = make_collateral(Authority.create(workshop.now), workshop.now)
    bad = dataclasses.replace(workshop.collateral, **{member: getattr(other, member)})
    with pytest.raises(AppraiserError, match=words) as caught:
        check(bad)
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE
    short = dataclasses.replace(workshop.collateral, **{member: b"x" * 63})
    with pytest.raises(AppraiserError, match="not signed with ECDSA"):
        check(short)


@pytest.mark.parametrize("member", ["root_ca_crl", "pck_crl", "tcb_info", "pck_crl_issuer_chain"])
def test_a_part_of_another_authority_is_refused(check, workshop, member):
    other = make_collateral(Authority.create(workshop.now), workshop.now)
    bad = dataclasses.replace(workshop.collateral, **{member: getattr(other, member)})
    if member == "tcb_info":
        changed = workshop.collateral.tcb_info.replace('"fmspc":"', '"fmspc":"f', 1)
        bad = dataclasses.replace(workshop.collateral, tcb_info=changed)
    with pytest.raises(AppraiserError) as caught:
        check(bad)
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE


def test_another_root_is_refused(check, workshop):
    with pytest.raises(AppraiserError):
        check(root=Authority.create(workshop.now).root_der)


def test_octets_that_are_no_collateral_are_refused(check, workshop):
    with pytest.raises(AppraiserError):
        check(dataclasses.replace(workshop.collateral, pck_crl=b"x"))


def test_a_list_of_another_ca_is_refused(check, workshop):
    root = x509.load_der_x509_certificate(workshop.authority.root_der)
    bad = dataclasses.replace(
        workshop.collateral,
        pck_crl=workshop.collateral.root_ca_crl,
        pck_crl_issuer_chain=root.public_bytes(Encoding.PEM).decode(),
    )
    with pytest.raises(AppraiserError, match="not by the CA of the PCK certificate"):
        check(bad)
