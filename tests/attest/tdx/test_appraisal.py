"""Ten checks: what passes, what is refused, and that every refusal tells them all."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.evidence_text import MAX_EVIDENCE_OCTETS
from tng.attest.tdx.appraisal import (
    CHECK_NAMES,
    DEFAULT_TCB_STATUSES,
    TdxRefused,
    judge_tdx,
    parse_tdx_evidence,
)
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.tdx.simulator.spoil import EXPECTED_CODE, Spoil
from tng.errors import AppraiserError, ErrorCode, LocalProtocolError, TngError, UntrustedPeerError
from tng.verdict import Outcome

NOW = 1_767_225_600
REPORT_DATA = b"report data of a test"


@pytest.fixture(scope="module")
def platform() -> SimulatedPlatform:
    return SimulatedPlatform.build(now=NOW, init_data_digest=b"i" * 48)


def judge(platform, evidence=None, **arguments):
    given = {
        "expected_report_data": REPORT_DATA,
        "collateral": platform.collateral(NOW),
        "now": NOW,
        "root_ca_der": platform.root_der,
    } | arguments
    return judge_tdx(evidence or platform.evidence(REPORT_DATA), **given)


def refusal(platform, evidence=None, **arguments) -> TdxRefused:
    with pytest.raises(TdxRefused) as caught:
        judge(platform, evidence, **arguments)
    failed = [c for c in caught.value.checks if c.outcome is Outcome.FAIL]
    assert len(failed) == 1
    assert failed[0].detail == str(caught.value)
    assert [c.number for c in caught.value.checks] == list(CHECK_NAMES)
    return caught.value


def failed_check(error: TdxRefused) -> int:
    return next(c.number for c in error.checks if c.outcome is Outcome.FAIL)


def test_good_evidence_passes_every_check(platform):
    appraisal = judge(platform, init_data_digest=b"i" * 48)
    assert [c.outcome for c in appraisal.checks] == [Outcome.PASS] * 10
    assert [c.name for c in appraisal.checks] == list(CHECK_NAMES.values())
    assert appraisal.tcb_status == "UpToDate"
    assert appraisal.simulated
    assert "SIMULATED" in appraisal.checks[2].detail


def test_claims_have_the_form_of_a_trustees_token(platform):
    claims = judge(platform).claims
    assert set(claims) == {"tdx", "report_data", "init_data"}
    assert claims["report_data"] == REPORT_DATA.ljust(64, b"\0").hex()
    assert claims["init_data"] == (b"i" * 48).hex()
    assert set(claims["tdx"]) == {
        "quote",
        "tcb_verification",
        "td_attributes",
        "measurements",
        "uefi_event_logs",
        "simulated_platform",
    }
    assert claims["tdx"]["quote"]["body"]["mr_td"] == platform.mr_td.hex()
    digests = {d["digest"] for e in claims["tdx"]["uefi_event_logs"] for d in e["digests"]}
    for name, (digest,) in platform.reference_values().items():
        assert digest in digests or not name.startswith("measurement.")
    named = {f"measurement.{m['name']}.{m['alg']}": m for m in claims["tdx"]["measurements"]}
    for name, (digest,) in platform.reference_values().items():
        assert not name.startswith("measurement.") or named[name]["digest"] == digest
    assert claims["tdx"]["td_attributes"]["septve_disable"]
    assert not claims["tdx"]["td_attributes"]["debug"]
    json.dumps(claims)


@pytest.mark.parametrize(
    ("version", "report"), [(4, "version 4, TD report 1.0"), (5, "version 5, TD report 1.5")]
)
def test_the_checks_tell_the_kind_of_report_and_the_attributes(workshop, version, report):
    appraisal = workshop.judge(workshop.quote(version=version))
    assert appraisal.checks[1].detail.startswith(report)
    assert appraisal.checks[6].detail == "debug is off; attributes: sept_ve_disable"
    body = appraisal.claims["tdx"]["quote"]["body"]
    assert ("tee_tcb_svn2" in body) is ("mr_servicetd" in body) is (version == 5)


def test_what_the_caller_does_not_ask_is_skipped_and_shown(platform):
    evidence = json.loads(platform.evidence(REPORT_DATA))
    del evidence["cc_eventlog"]
    appraisal = judge(platform, json.dumps(evidence).encode(), expected_report_data=None)
    outcomes = {c.number: c.outcome for c in appraisal.checks}
    assert [n for n, o in outcomes.items() if o is Outcome.SKIP] == [8, 9, 10]
    assert "uefi_event_logs" not in appraisal.claims["tdx"]


@pytest.mark.parametrize("spoil", list(Spoil))
def test_each_spoiled_platform_is_refused_for_its_own_reason(platform, spoil):
    bad = platform.spoiled(spoil)
    error = refusal(
        platform,
        bad.evidence(REPORT_DATA),
        collateral=bad.collateral(NOW),
        root_ca_der=bad.root_der,
    )
    assert error.code is EXPECTED_CODE[spoil]
    assert (
        failed_check(error)
        == {
            Spoil.TRUNCATED: 2,
            Spoil.WRONG_ROOT: 3,
            Spoil.FLIPPED: 3,
            Spoil.EXPIRED_COLLATERAL: 4,
            Spoil.REVOKED: 5,
            Spoil.OUT_OF_DATE: 6,
            Spoil.DEBUG: 7,
            Spoil.REPORT_DATA: 8,
            Spoil.KEY: 8,
        }[spoil]
    )


def test_a_platform_spoiled_and_mended_is_good_again(platform):
    mended = platform.spoiled(Spoil.DEBUG).spoiled(None)
    assert judge(platform, mended.evidence(REPORT_DATA)).tcb_status == "UpToDate"


def test_a_status_that_the_operator_names_is_accepted(platform):
    old = platform.spoiled(Spoil.OUT_OF_DATE)
    allowed = DEFAULT_TCB_STATUSES | {"OutOfDate"}
    appraisal = judge(platform, old.evidence(REPORT_DATA), allowed_tcb_status=allowed)
    assert appraisal.tcb_status == "OutOfDate"


def test_no_setting_accepts_a_revoked_level(workshop):
    from tng.attest.tdx.simulator.collateral import tcb_info_statement

    collateral = workshop.signed_tcb_info(tcb_info_statement(NOW - 9, status="Revoked"))
    with pytest.raises(TdxRefused) as caught:
        workshop.judge(workshop.quote(), collateral, allowed_tcb_status=frozenset({"Revoked"}))
    assert caught.value.code is ErrorCode.REVOKED


def test_no_setting_accepts_a_debug_domain(platform):
    evidence = platform.spoiled(Spoil.DEBUG).evidence(REPORT_DATA)
    every = frozenset({"UpToDate", "OutOfDate", "Debug"})
    error = refusal(platform, evidence, expected_report_data=None, allowed_tcb_status=every)
    assert error.code is ErrorCode.DEBUG_TD


@pytest.mark.parametrize(
    "expected", [b"", REPORT_DATA[:-1], REPORT_DATA + b"\x01", b"\xff" * 64, bytes(64)]
)
def test_other_report_data_is_refused(platform, expected):
    error = refusal(platform, expected_report_data=expected)
    assert (error.code, failed_check(error)) == (ErrorCode.BINDING_MISMATCH, 8)


def test_report_data_is_compared_with_zeros_appended(platform):
    assert judge(platform, expected_report_data=REPORT_DATA.ljust(64, b"\0"))


def test_other_init_data_is_refused(platform):
    error = refusal(platform, init_data_digest=b"i" * 47)
    assert (error.code, failed_check(error)) == (ErrorCode.BINDING_MISMATCH, 9)


def test_a_longer_init_data_digest_is_cut_to_the_register(platform):
    assert judge(platform, init_data_digest=b"i" * 48 + b"j" * 16)


@pytest.mark.parametrize(
    "expectation", [{"expected_report_data": bytes(65)}, {"init_data_digest": bytes(65)}]
)
def test_expectations_that_nothing_can_meet_are_the_callers_fault(platform, expectation):
    with pytest.raises(LocalProtocolError):
        judge(platform, **expectation)


def test_a_log_of_another_boot_is_refused(platform):
    evidence = json.loads(platform.evidence(REPORT_DATA))
    log = bytearray(base64.b64decode(evidence["cc_eventlog"]))
    log[100] ^= 1
    evidence["cc_eventlog"] = base64.b64encode(log).decode()
    error = refusal(platform, json.dumps(evidence).encode())
    assert (error.code, failed_check(error)) == (ErrorCode.EVENT_LOG_MISMATCH, 10)


def test_a_log_that_cannot_be_read_is_refused_by_the_last_check(platform):
    evidence = json.loads(platform.evidence(REPORT_DATA)) | {"cc_eventlog": "AAAA"}
    error = refusal(platform, json.dumps(evidence).encode())
    assert (error.code, failed_check(error)) == (ErrorCode.EVIDENCE_MALFORMED, 10)


def test_details_that_cannot_be_read_are_refused_by_the_last_check(workshop):
    """The digest fits and the text beside it is no text."""
    from tng.attest.tdx.eventlog import EventType
    from tng.attest.tdx.simulator.eventlog import SimulatedEventLog

    log = SimulatedEventLog()
    log.add(1, EventType.EV_EFI_ACTION, b"\xff")
    evidence = workshop.evidence(
        workshop.quote(rtmrs=log.registers),
        cc_eventlog=base64.b64encode(log.to_bytes()).decode(),
    )
    with pytest.raises(TdxRefused) as caught:
        judge_tdx(
            evidence,
            expected_report_data=None,
            collateral=workshop.collateral,
            now=NOW,
            root_ca_der=workshop.authority.root_der,
        )
    assert failed_check(caught.value) == 10


def test_unreadable_collateral_is_not_the_peers_fault(platform):
    broken = dataclasses.replace(platform.collateral(NOW), tcb_info="{")
    with pytest.raises(AppraiserError):
        judge(platform, collateral=broken)


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (b"", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b"[]", "expected an object"),
        (b'{"quote":NaN}', "NaN"),
        (b"[" * 100_000, "not a JSON object"),
        (b"{}", "'quote'"),
        (b'{"quote":1}', "'quote'"),
        (b'{"quote":"AA"}', "not base64"),
        (b'{"quote":"AA==","quote":"AA=="}', "twice"),
        (b'{"quote":"AA==","cc_eventlog":7}', "'cc_eventlog'"),
        (b'{"quote":"AA==","surprise":1}', "unknown member 'surprise'"),
        (b'{"quote":"AA==","aa_eventlog":"AA=="}', "aa_eventlog"),
        (bytes(MAX_EVIDENCE_OCTETS + 1), "at most"),
    ],
)
def test_evidence_of_another_form_is_refused_by_the_first_check(platform, evidence, words):
    if not evidence:
        with pytest.raises(UntrustedPeerError, match=words):
            parse_tdx_evidence(evidence)
        return
    error = refusal(platform, evidence)
    assert words in str(error)
    assert (error.code, failed_check(error)) == (ErrorCode.EVIDENCE_MALFORMED, 1)


def test_gpu_evidence_is_let_through_and_said_to_be_unjudged(platform):
    evidence = json.loads(platform.evidence(REPORT_DATA)) | {"gpu_evidence": [{"index": 0}]}
    appraisal = judge(platform, json.dumps(evidence).encode())
    assert "GPU evidence not judged" in appraisal.checks[0].detail


@given(st.binary(max_size=200))
def test_garbage_gives_defined_errors_only(platform, garbage):
    for evidence in (
        garbage,
        json.dumps({"quote": base64.b64encode(garbage).decode()}).encode(),
        json.dumps({"quote": garbage.hex(), "cc_eventlog": garbage.hex()}).encode(),
    ):
        with pytest.raises(TngError):
            judge(platform, evidence or b"x")


@given(st.data())
def test_a_changed_octet_of_a_quote_never_changes_what_is_believed(platform, data):
    good = platform.quote(REPORT_DATA.ljust(64, b"\0"))
    at = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    quote = good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :]
    evidence = json.dumps({"quote": base64.b64encode(quote).decode()}).encode()
    try:
        appraisal = judge(platform, evidence)
    except TdxRefused:
        return
    assert at >= good.index(b"-----BEGIN")
    assert appraisal.claims["tdx"]["quote"] == judge(platform).claims["tdx"]["quote"]
