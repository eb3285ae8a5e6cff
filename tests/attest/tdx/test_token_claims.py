"""Trust domains in tokens: both kinds, and that what does not fit together is refused."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.tdx.eventlog import parse_event_log
from tng.attest.tdx.token_claims import guests_in
from tng.errors import ErrorCode, TngError, UntrustedPeerError

_EVIDENCE = "ear.veraison.annotated-evidence"


@pytest.fixture(scope="module")
def claims(workshop):
    return json.loads(json.dumps(workshop.judge(workshop.quote()).claims))


def ear(tdx) -> dict:
    return {"submods": {"cpu0": {_EVIDENCE: {"tdx": tdx}}, "gpu0": {_EVIDENCE: {"nvidia": {}}}}}


def simple(tdx) -> dict:
    body = {f"tdx.quote.body.{name}": value for name, value in tdx["quote"]["body"].items()}
    log = tdx.get("uefi_event_logs")
    flat = body if log is None else body | {"tdx.uefi_event_logs": log}
    return {"tcb-status": json.dumps(flat)}


@pytest.mark.parametrize("make", [ear, simple])
def test_quote_and_log_come_out_as_they_went_in(workshop, claims, make):
    (guest,) = guests_in(make(claims["tdx"]))
    assert guest.name == ("cpu0" if make is ear else "tdx")
    assert guest.fields == claims["tdx"]["quote"]["body"]
    assert guest.entries == parse_event_log(workshop.log.to_bytes())


@pytest.mark.parametrize("make", [ear, simple])
def test_a_log_may_be_missing(claims, make):
    tdx = {"quote": claims["tdx"]["quote"]}
    (guest,) = guests_in(make(tdx))
    assert guest.entries is None


def test_a_token_may_speak_of_no_trust_domain():
    assert guests_in({"submods": {"cpu0": {_EVIDENCE: {"sample": {}}}}}) == ()
    assert guests_in({"tcb-status": '{"sample.svn": "1"}'}) == ()


def test_a_log_that_leads_elsewhere_is_refused(claims):
    tdx = copy.deepcopy(claims["tdx"])
    tdx["uefi_event_logs"].pop()
    with pytest.raises(UntrustedPeerError, match="does not replay") as caught:
        guests_in(ear(tdx))
    assert caught.value.code is ErrorCode.EVENT_LOG_MISMATCH


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tdx: tdx.update(quote=1), "quote in the token"),
        (lambda tdx: tdx["quote"].update(body=[]), "body in the token"),
        (lambda tdx: tdx["quote"]["body"].pop("xfam"), "lack xfam"),
        (lambda tdx: tdx["quote"]["body"].update(rtmr_0="\ud800"), "does not replay"),
        (lambda tdx: tdx.update(uefi_event_logs={}), "not a list"),
        (lambda tdx: tdx.update(uefi_event_logs=[1]), "event in the token"),
        (lambda tdx: tdx["uefi_event_logs"][0].update(index="1"), "needs index"),
        (lambda tdx: tdx["uefi_event_logs"][0].update(digests=1), "list of digests"),
        (lambda tdx: tdx["uefi_event_logs"][0].update(event="?"), "no readable"),
        (lambda tdx: tdx["uefi_event_logs"][0].update(type_name="EV_X"), "no readable"),
        (lambda tdx: tdx["uefi_event_logs"][0]["digests"][0].update(alg="MD5"), "known alg"),
        (lambda tdx: tdx["uefi_event_logs"][0]["digests"][0].update(digest="x"), "no readable"),
        (lambda tdx: tdx["uefi_event_logs"][0].update(digests=[1]), "digest in the token"),
    ],
)
def test_claims_of_another_form_are_refused(claims, change, match):
    tdx = copy.deepcopy(claims["tdx"])
    change(tdx)
    with pytest.raises(UntrustedPeerError, match=match):
        guests_in(ear(tdx))


@pytest.mark.parametrize("token", [{}, {"tcb-status": 1}, {"tcb-status": "{"}, {"submods": 1}])
def test_other_tokens_are_refused(token):
    with pytest.raises(UntrustedPeerError):
        guests_in(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["index", "type_name", "digests", "event"]))
def test_any_value_gives_an_error_of_ours(claims, value, member):
    tdx = copy.deepcopy(claims["tdx"])
    tdx["uefi_event_logs"][0][member] = value
    try:
        guests_in(ear(tdx))
    except TngError:
        return
