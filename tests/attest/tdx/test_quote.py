"""Taking quotes apart: every field, every length, nothing but defined errors."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.tdx.quote import MAX_QUOTE_OCTETS, parse_quote
from tng.errors import ErrorCode, UntrustedPeerError


def patched(quote: bytes, at: int, octets: bytes) -> bytes:
    return quote[:at] + octets + quote[at + len(octets) :]


@pytest.mark.parametrize("version", [4, 5])
def test_fields_come_out_as_the_platform_put_them_in(workshop, version):
    domain, profile = workshop.domain, workshop.host.profile
    quote = parse_quote(workshop.quote(version=version, mr_config_id=b"c" * 48))
    assert quote.header.version == version
    assert quote.body.tcb_svn == profile.tee_tcb_svn
    assert quote.body.mr_td == domain.mr_td
    assert quote.body.mr_config_id == b"c" * 48
    assert quote.body.rtmrs == domain.rtmrs
    assert quote.body.report_data.startswith(b"report data of a test")
    assert quote.td_attributes.bits == domain.td_attributes
    assert not quote.is_debug
    assert quote.certification.pck_chain_pem.startswith(b"-----BEGIN CERTIFICATE-----")
    assert len(quote.signature) == len(quote.attestation_key) == 64
    assert quote.raw.startswith(quote.signed_part)


def test_version_4_has_no_fields_of_version_5(workshop):
    quote = parse_quote(workshop.quote(version=4))
    assert quote.body_type is None
    assert quote.body.tee_tcb_svn2 is None
    assert "type" not in quote.claims()
    assert "mr_servicetd" not in quote.claims()["body"]


def test_version_5_claims_its_body_type_and_service_td(workshop):
    claims = parse_quote(workshop.quote(version=5)).claims()
    assert claims["type"] == "0300"
    assert claims["size"] == "88020000"
    assert claims["body"]["mr_servicetd"] == "00" * 48
    assert claims["header"]["version"] == "0500"
    assert claims["header"]["tee_type"] == "81000000"


def test_a_td_report_1_0_in_a_version_5_quote_is_read(workshop):
    version_4 = workshop.quote(version=4)
    prefix = struct.pack("<H", 5) + version_4[2:48] + struct.pack("<HI", 2, 584)
    quote = parse_quote(prefix + version_4[48:])
    assert quote.body_type == 2
    assert quote.body.tee_tcb_svn2 is None


def test_the_debug_bit_is_seen(workshop):
    assert parse_quote(workshop.quote(td_attributes=1 | 1 << 28)).is_debug


def test_padding_zeros_after_a_quote_are_dropped(workshop):
    quote = workshop.quote()
    assert parse_quote(quote + bytes(70)).raw == quote


@pytest.mark.parametrize(
    ("at", "octets", "words"),
    [
        (0, b"\x03\0", "version 4 or 5, got 3"),
        (2, b"\x03\0", "attestation key type"),
        (4, b"\0", "TEE type"),
        (12, bytes(16), "vendor"),
        (632, b"\xff\xff\xff\x7f", "signature data"),
        (632, b"\0\0\0\0", "quote signature"),
        (764, b"\x05", "certification type must be 6"),
        (766, b"\xff\xff\xff\x7f", "QE report certification data"),
        (766, b"\0\0\0\0", "octets after the QE report certification data"),
        (1218, b"\x1f\0", "32 octets, got 31"),
        (1252, b"\x06", "certification type must be 5"),
        (1254, b"\x01\0\0\0", "octets after the PCK chain"),
    ],
)
def test_a_field_that_does_not_fit_is_named(workshop, at, octets, words):
    with pytest.raises(UntrustedPeerError, match=words) as caught:
        parse_quote(patched(workshop.quote(), at, octets))
    assert caught.value.code is ErrorCode.EVIDENCE_MALFORMED


@pytest.mark.parametrize(("kind", "size"), [(1, 384), (4, 648), (3, 584), (2, 648)])
def test_other_bodies_of_version_5_are_refused(workshop, kind, size):
    quote = patched(workshop.quote(version=5), 48, struct.pack("<HI", kind, size))
    with pytest.raises(UntrustedPeerError, match="no TD report"):
        parse_quote(quote)


def test_octets_after_a_quote_that_are_not_zero_are_refused(workshop):
    with pytest.raises(UntrustedPeerError, match="not padding zeros"):
        parse_quote(workshop.quote() + b"\0\0\x01")


def test_a_quote_longer_than_any_kernel_gives_is_refused():
    with pytest.raises(UntrustedPeerError, match="at most"):
        parse_quote(bytes(MAX_QUOTE_OCTETS + 1))


@pytest.mark.parametrize("version", [4, 5])
def test_every_prefix_of_a_quote_is_refused(workshop, version):
    quote = workshop.quote(version=version)
    for length in range(len(quote)):
        with pytest.raises(UntrustedPeerError):
            parse_quote(quote[:length])


@given(st.binary(max_size=2000), st.integers(0, 1400))
def test_garbage_gives_defined_errors_only(workshop, garbage, keep):
    for data in (garbage, workshop.quote()[:keep] + garbage):
        try:
            parse_quote(data)
        except UntrustedPeerError:
            continue
