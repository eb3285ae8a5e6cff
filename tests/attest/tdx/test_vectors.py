"""Quotes of real machines and golden quotes of an independent simulator."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

import pytest

from tng.attest.tdx.appraisal import TdxRefused, judge_tdx
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.dcap import appraise_quote, verify_quote
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.vendor_statements import QuoteRefused, check_signers, parse_statements
from tng.errors import ErrorCode, UntrustedPeerError

LATER = int(dt.datetime(2026, 11, 1, tzinfo=dt.UTC).timestamp())


def at(date: str) -> int:
    return int(dt.datetime.fromisoformat(f"{date}T00:00:00+00:00").timestamp())


def load(shared, quote: str, collateral: str) -> tuple[bytes, Collateral]:
    folder = shared / "vectors" / "attestation" / "quotes"
    data = (folder / quote).read_bytes()
    if quote.endswith(".hex"):
        data = bytes.fromhex(data.decode().strip().removeprefix("0x"))
    return data, Collateral.from_json((folder / collateral).read_bytes())


REAL = [
    ("phala_tdx_quote.bin", "phala_tdx_quote_collateral.json", "2025-07-01"),
    ("phala_near_quote.hex", "phala_near_quote_collateral.json", "2025-09-15"),
    ("google_quote_v5_sample.dat", "phala_tdx_quote_outdated_collateral.json", "2026-03-01"),
]


@pytest.mark.parametrize(("quote", "collateral", "date"), REAL)
def test_quotes_of_real_machines_are_good_in_their_time(shared, quote, collateral, date):
    data, statements = load(shared, quote, collateral)
    appraisal = verify_quote(data, statements, now=at(date))
    assert appraisal.tcb_status == "UpToDate"
    assert not appraisal.simulated
    assert "simulated_platform" not in appraisal.claims


@pytest.mark.parametrize(("quote", "collateral", "date"), REAL)
def test_quotes_of_real_machines_are_refused_when_their_collateral_is_old(
    shared, quote, collateral, date
):
    data, statements = load(shared, quote, collateral)
    with pytest.raises(QuoteRefused) as caught:
        verify_quote(data, statements, now=LATER)
    assert caught.value.code is ErrorCode.COLLATERAL_EXPIRED


def test_a_real_debug_domain_is_refused(shared):
    data, collateral = load(
        shared, "trustee_tdx_quote_4.dat", "google_collateral_50806F000000_2023-06.json"
    )
    with pytest.raises(QuoteRefused) as caught:
        verify_quote(data, collateral, now=at("2023-07-01"))
    assert caught.value.code is ErrorCode.DEBUG_TD


def test_a_real_host_below_every_level_is_refused(shared):
    data, collateral = load(
        shared, "phala_tdx_quote_outdated.bin", "phala_tdx_quote_outdated_collateral.json"
    )
    with pytest.raises(QuoteRefused) as caught:
        verify_quote(data, collateral, now=at("2026-03-01"))
    assert caught.value.code is ErrorCode.TCB_NOT_ACCEPTED


def test_a_real_quote_is_refused_under_a_development_root(shared, workshop):
    data, collateral = load(shared, *REAL[0][:2])
    with pytest.raises(QuoteRefused):
        verify_quote(data, collateral, now=at(REAL[0][2]), root_ca_der=workshop.authority.root_der)


def test_an_sgx_quote_is_no_tdx_quote(shared):
    data, _ = load(shared, "phala_sgx_quote.bin", REAL[0][1])
    with pytest.raises(UntrustedPeerError, match="version 4 or 5, got 3"):
        parse_quote(data)


def test_every_stored_tdx_quote_can_be_read(shared):
    folder = shared / "vectors" / "attestation" / "quotes"
    names = ["google_cos-113-tdx-quote.dat", "google_quote_v5_sample.dat"]
    names += [f"trustee_tdx_quote_{n}.dat" for n in (4, 5, 6)]
    for name in [*names, "trustee_az-tdx-vtpm_td-quote.bin"]:
        assert parse_quote((folder / name).read_bytes()).header.tee_type == 0x81


def test_a_stored_quote_with_text_behind_it_is_refused_until_that_is_cut_off(shared):
    folder = shared / "vectors" / "attestation" / "quotes"
    data = (folder / "google_tdx_prod_quote_SPR_E4.dat").read_bytes()
    with pytest.raises(UntrustedPeerError, match="39 octets after the quote"):
        parse_quote(data)
    assert parse_quote(data[:-39]).header.version == 4


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity", "pck_crl"])
def test_under_intels_root_each_signer_must_bear_its_name(shared, member):
    """Chains of genuine certificates, exchanged between the roles."""
    _, collateral = load(shared, *REAL[0][:2])
    check_signers(parse_statements(collateral), None)
    chains = (collateral.pck_crl_issuer_chain, collateral.tcb_info_issuer_chain)
    other = chains[member == "pck_crl"]
    changed = dataclasses.replace(collateral, **{f"{member}_issuer_chain": other})
    with pytest.raises(QuoteRefused) as caught:
        check_signers(parse_statements(changed), None)
    assert (caught.value.code, caught.value.number) == (ErrorCode.QUOTE_INVALID, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")
def test_every_changed_octet_of_a_real_quote_is_refused_or_means_nothing(shared):
    """Accepted are only line ends of the PEM, and the root in it, which is not looked at."""
    data, collateral = load(shared, *REAL[0][:2])
    now = at(REAL[0][2])
    pem = data.index(b"-----BEGIN")
    end = len(parse_quote(data).raw)
    good = appraise_quote(parse_quote(data), collateral, now=now)
    accepted = []
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        try:
            appraisal = verify_quote(bytes(changed), collateral, now=now)
        except UntrustedPeerError:
            continue
        accepted.append(position)
        assert appraisal.claims == good.claims
    assert all(pem <= position < end for position in accepted)
    root = data.rindex(b"-----BEGIN")
    assert {data[position] for position in accepted if position < root} <= set(b"\n")


def test_golden_quotes_are_judged_as_recorded(shared):
    """Save two, which cryptography accepts and a careful caller refuses."""
    folder = shared / "vectors" / "tdx-simulated"
    golden = json.loads((folder / "vectors.json").read_bytes())
    stricter = {"pck_signed_tcb_info"}
    for vector in golden["vectors"]:
        collateral = Collateral.from_json((folder / vector["collateral"]).read_bytes())
        root = (folder / vector["root"]).read_bytes()
        quote = (folder / vector["quote"]).read_bytes()
        try:
            status = verify_quote(quote, collateral, now=golden["now"], root_ca_der=root).tcb_status
        except QuoteRefused:
            status = None
        expected = None if vector["name"] in stricter else vector["status"]
        assert status == expected, vector["name"]


@pytest.mark.parametrize("flipped", [False, True])
def test_golden_evidence_is_bound_to_its_report_data(shared, flipped):
    folder = shared / "vectors" / "tdx-simulated"
    golden = json.loads((folder / "vectors.json").read_bytes())
    report_data = bytearray.fromhex(golden["report_data"])
    report_data[47] ^= flipped
    arguments = {
        "expected_report_data": bytes(report_data),
        "collateral": Collateral.from_json((folder / "collateral_good.json").read_bytes()),
        "now": golden["now"],
        "root_ca_der": (folder / "root_ca.der").read_bytes(),
    }
    evidence = (folder / "evidence_good_v4.json").read_bytes()
    if flipped:
        with pytest.raises(TdxRefused) as caught:
            judge_tdx(evidence, **arguments)
        assert caught.value.code is ErrorCode.BINDING_MISMATCH
        return
    body = judge_tdx(evidence, **arguments).claims["tdx"]["quote"]["body"]
    assert [body[f"rtmr_{n}"] for n in range(4)] == golden["rtmr"]
    assert body["mr_td"] == golden["mr_td"]
