"""Collateral as JSON and from a PCCS."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import urllib.parse

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.tdx.collateral import (
    INTEL_PCS_URL,
    MAX_COLLATERAL_OCTETS,
    MAX_ITEM_OCTETS,
    Collateral,
    fetch_collateral,
)
from tng.attest.tdx.quote import parse_quote
from tng.errors import AppraiserError, ErrorCode

CRL = "/sgx/certification/v4/pckcrl"
TCB = "/tdx/certification/v4/tcb"
IDENTITY = "/tdx/certification/v4/qe/identity"
ROOT_CRL = "/sgx/certification/v4/rootcacrl"
ITEMS = {CRL: "PCK CRL", TCB: "TCB info", IDENTITY: "QE identity", ROOT_CRL: "root CA CRL"}


def answers(collateral: Collateral) -> dict[str, httpx.Response]:
    def signed(member: str, text: str, signature: bytes) -> bytes:
        return f'{{"{member}": {text} , "signature":"{signature.hex()}"}}'.encode()

    chain = urllib.parse.quote
    return {
        CRL: httpx.Response(
            200,
            content=collateral.pck_crl,
            headers={"SGX-PCK-CRL-Issuer-Chain": chain(collateral.pck_crl_issuer_chain)},
        ),
        TCB: httpx.Response(
            200,
            content=signed("tcbInfo", collateral.tcb_info, collateral.tcb_info_signature),
            headers={"TCB-Info-Issuer-Chain": chain(collateral.tcb_info_issuer_chain)},
        ),
        IDENTITY: httpx.Response(
            200,
            content=signed(
                "enclaveIdentity", collateral.qe_identity, collateral.qe_identity_signature
            ),
            headers={
                "SGX-Enclave-Identity-Issuer-Chain": chain(collateral.qe_identity_issuer_chain)
            },
        ),
        ROOT_CRL: httpx.Response(200, content=collateral.root_ca_crl.hex().encode()),
    }


class Pccs:
    """A PCCS without a socket; remembers what it was asked."""

    def __init__(self, collateral: Collateral) -> None:
        self.answers = answers(collateral)
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return self.answers[request.url.path]


async def fetch(workshop, pccs, url=INTEL_PCS_URL) -> Collateral:
    async with httpx.AsyncClient(transport=httpx.MockTransport(pccs)) as client:
        return await fetch_collateral(client, parse_quote(workshop.quote()), url=url)


async def refused(workshop, pccs, words: str) -> None:
    with pytest.raises(AppraiserError, match=words) as caught:
        await fetch(workshop, pccs)
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE
    assert caught.value.retryable


def test_json_goes_out_and_in_unchanged(workshop):
    text = workshop.collateral.to_json()
    assert Collateral.from_json(text) == workshop.collateral
    assert Collateral.from_json(text.encode()) == workshop.collateral


def test_a_pck_chain_beside_the_collateral_is_not_used(workshop):
    members = json.loads(workshop.collateral.to_json()) | {"pck_certificate_chain": "x"}
    assert Collateral.from_json(json.dumps(members)) == workshop.collateral


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"surprise": "x"}, "unknown member 'surprise'"),
        ({"tcb_info": None}, "'tcb_info'"),
        ({"pck_crl": "zz"}, "'pck_crl' is not hexadecimal"),
    ],
)
def test_json_of_another_form_is_refused(workshop, change, words):
    members = json.loads(workshop.collateral.to_json()) | change
    with pytest.raises(AppraiserError, match=words):
        Collateral.from_json(json.dumps(members))


@pytest.mark.parametrize("text", ["", "[]", "[" * 50_000, "x" * (MAX_COLLATERAL_OCTETS + 1)])
def test_what_is_no_collateral_is_refused(text):
    with pytest.raises(AppraiserError):
        Collateral.from_json(text)


@given(st.binary(max_size=100))
def test_garbage_gives_a_defined_error(garbage):
    with pytest.raises(AppraiserError):
        Collateral.from_json(garbage)


async def test_a_pccs_is_asked_four_times_and_the_signed_text_kept(workshop):
    pccs = Pccs(workshop.collateral)
    assert await fetch(workshop, pccs) == workshop.collateral
    assert pccs.asked == [
        f"{INTEL_PCS_URL}{CRL}?ca=platform&encoding=der",
        f"{INTEL_PCS_URL}{TCB}?fmspc=50806F000000",
        f"{INTEL_PCS_URL}{IDENTITY}?update=standard",
        f"{INTEL_PCS_URL}{ROOT_CRL}",
    ]


def test_fetching_works_under_asyncio_as_well(workshop):
    assert asyncio.run(fetch(workshop, Pccs(workshop.collateral))) == workshop.collateral


@pytest.mark.parametrize(
    "url", ["http://pccs:8081", "http://pccs:8081/", "http://pccs:8081/sgx/certification/v4/"]
)
async def test_addresses_as_in_qcnl_files_are_understood(workshop, url):
    pccs = Pccs(workshop.collateral)
    await fetch(workshop, pccs, url)
    assert pccs.asked[1] == f"http://pccs:8081{TCB}?fmspc=50806F000000"


async def test_revocation_lists_may_be_der_or_hexadecimal(workshop):
    pccs = Pccs(workshop.collateral)
    pccs.answers[ROOT_CRL] = httpx.Response(200, content=workshop.collateral.root_ca_crl)
    headers = pccs.answers[CRL].headers
    body = workshop.collateral.pck_crl.hex().encode()
    headers["content-length"] = str(len(body))
    pccs.answers[CRL] = httpx.Response(200, content=body, headers=headers)
    assert await fetch(workshop, pccs) == workshop.collateral


async def test_the_older_name_of_a_header_is_read(workshop):
    pccs = Pccs(workshop.collateral)
    headers = pccs.answers[TCB].headers
    headers["SGX-TCB-Info-Issuer-Chain"] = headers.pop("TCB-Info-Issuer-Chain")
    assert await fetch(workshop, pccs) == workshop.collateral


@pytest.mark.parametrize("path", list(ITEMS))
async def test_an_item_that_a_pccs_does_not_have_is_named(workshop, path):
    pccs = Pccs(workshop.collateral)
    pccs.answers[path] = httpx.Response(404, content=b"No cache data for this platform.")
    await refused(workshop, pccs, f"{ITEMS[path]} expected status 200 .* got 404")


@pytest.mark.parametrize("path", list(ITEMS))
async def test_an_item_without_end_is_cut_short(workshop, path):
    pccs = Pccs(workshop.collateral)
    pccs.answers[path] = httpx.Response(200, content=bytes(MAX_ITEM_OCTETS + 1))
    await refused(workshop, pccs, f"{ITEMS[path]} .* exceeds")


@pytest.mark.parametrize("path", [CRL, TCB, IDENTITY])
async def test_an_item_without_its_chain_is_named(workshop, path):
    pccs = Pccs(workshop.collateral)
    pccs.answers[path] = httpx.Response(200, content=pccs.answers[path].content)
    await refused(workshop, pccs, f"{ITEMS[path]} came without the header")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"tcbInfo":{},"signature":1}',
        b'{"tcbInfo":{},"signature":"zz"}',
        b'{"tcbInfo":{},"signature":"00","more":1}',
        b'{"tcbInfo":1,"signature":"00"}',
        b'{"x":{"tcbInfo":{"a":1}},"tcbInfo":{"b":1},"signature":"00"}',
        b'{"tcbInfo":{"a":1},"tcbInfo":{"b":1},"signature":"00"}',
        b'{"signature":"00","tcbInfo":' + b"[" * 50_000,
    ],
)
async def test_a_statement_of_another_form_is_refused(workshop, body):
    pccs = Pccs(workshop.collateral)
    pccs.answers[TCB] = httpx.Response(
        200, content=body, headers={"TCB-Info-Issuer-Chain": "chain"}
    )
    await refused(workshop, pccs, "TCB info")


async def test_a_revocation_list_that_is_neither_der_nor_text_is_refused(workshop):
    pccs = Pccs(workshop.collateral)
    pccs.answers[ROOT_CRL] = httpx.Response(200, content=b"<html>")
    await refused(workshop, pccs, "root CA CRL is neither")


async def test_a_redirect_is_not_followed(workshop):
    pccs = Pccs(workshop.collateral)
    pccs.answers[CRL] = httpx.Response(302, headers={"location": "http://elsewhere/"})
    await refused(workshop, pccs, "got 302")
    assert len(pccs.asked) == 1


async def test_a_pccs_that_cannot_be_reached_is_named_without_its_password(workshop):
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(AppraiserError, match=r"from pccs.example/sgx.*ConnectError") as caught:
        await fetch(workshop, broken, "http://user:secret@pccs.example")
    assert "secret" not in str(caught.value)


async def test_an_address_that_is_none_is_named(workshop):
    with pytest.raises(AppraiserError, match="no valid address"):
        await fetch(workshop, Pccs(workshop.collateral), "http://pccs:port")


def test_a_collateral_is_a_value(workshop):
    assert dataclasses.replace(workshop.collateral) == workshop.collateral
