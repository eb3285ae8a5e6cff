"""tng.attest.attester.asr: the reference's requests, bounded answers, errors with advice."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

import pytest

from tng.attest.attester.asr import MAX_BODY, AsrAttester
from tng.errors import ErrorCode, EvidenceError

if TYPE_CHECKING:
    from tests.attest.attester.conftest import FakeAsr

REPORT_DATA = b"\xff\xfe" + bytes(46)


async def refusal(attester: AsrAttester) -> str:
    with pytest.raises(EvidenceError) as refused:
        await attester.get_evidence(REPORT_DATA)
    assert refused.value.code is ErrorCode.EVIDENCE_UNAVAILABLE
    assert "api-server-rest at " in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_reference_requests_in_its_order(asr: FakeAsr, slash: str) -> None:
    said = await AsrAttester(asr.url + slash).get_evidence(REPORT_DATA)
    assert (said.tee, said.additional) == ("sample", None)
    text = base64.urlsafe_b64encode(REPORT_DATA).rstrip(b"=").decode()
    assert asr.requests == [
        ("/info", {}),
        ("/aa/evidence", {"runtime_data": text, "encoding": "base64"}),
        ("/aa/additional-evidence", {"runtime_data": text, "encoding": "base64"}),
    ]


async def test_the_tee_is_asked_for_once_and_the_warning_given_once(
    asr: FakeAsr, caplog: pytest.LogCaptureFixture
) -> None:
    attester = AsrAttester(asr.url)
    with caplog.at_level(logging.WARNING, "tng"):
        for _ in range(3):
            await attester.get_evidence(REPORT_DATA)
    assert [path for path, _ in asr.requests].count("/info") == 1
    assert [record.message for record in caplog.records] == [
        f"no additional evidence source=api-server-rest at {asr.url} status=404"
    ]


async def test_additional_evidence_is_passed_on(asr: FakeAsr) -> None:
    asr.answers["/aa/additional-evidence"] = (200, {}, b'{"nvidia":1}')
    said = await AsrAttester(asr.url).get_evidence(REPORT_DATA)
    assert said.additional == b'{"nvidia":1}'


@pytest.mark.parametrize("path", ["/info", "/aa/evidence"])
async def test_an_error_answer_is_told_with_its_words_cut_short(asr: FakeAsr, path: str) -> None:
    asr.answers[path] = (500, {}, b"attester is failing " + b"x" * 10_000)
    text = await refusal(AsrAttester(asr.url))
    assert f"GET {path} with status 500, expected 200: 'attester is failing" in text
    assert len(text) < 1000


async def test_a_redirect_is_not_followed(asr: FakeAsr) -> None:
    asr.answers["/aa/evidence"] = (302, {"Location": "/info"}, b"")
    assert "status 302" in await refusal(AsrAttester(asr.url))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"tee":1}', b"[" * 100_000])
async def test_an_info_without_a_tee_is_refused(asr: FakeAsr, body: bytes) -> None:
    asr.answers["/info"] = (200, {}, body)
    assert "GET /info" in await refusal(AsrAttester(asr.url))


async def test_an_unknown_tee_and_empty_evidence_are_refused(asr: FakeAsr) -> None:
    asr.answers["/aa/evidence"] = (200, {}, b"")
    assert "empty evidence" in await refusal(AsrAttester(asr.url))
    asr.answers["/info"] = (200, {}, b'{"tee":"TDX"}')
    assert "expected one of" in await refusal(AsrAttester(asr.url))


async def test_an_answer_at_the_limit_is_taken_and_one_octet_more_is_not(asr: FakeAsr) -> None:
    asr.answers["/aa/evidence"] = (200, {}, bytes(MAX_BODY))
    assert len((await AsrAttester(asr.url).get_evidence(REPORT_DATA)).evidence) == MAX_BODY
    asr.answers["/aa/evidence"] = (200, {}, bytes(MAX_BODY + 1))
    assert "more than" in await refusal(AsrAttester(asr.url))


async def test_a_compressed_answer_is_refused(asr: FakeAsr) -> None:
    asr.answers["/aa/evidence"] = (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b")
    assert "compressed" in await refusal(AsrAttester(asr.url))


async def test_a_service_that_does_not_answer_ends_at_the_deadline(asr: FakeAsr) -> None:
    asr.silent.add("/aa/evidence")
    assert "within 0.1 s" in await refusal(AsrAttester(asr.url, deadline=0.1))


async def test_an_absent_service_is_refused_with_what_to_do(asr: FakeAsr) -> None:
    text = await refusal(AsrAttester("http://127.0.0.1:1"))
    assert "attest.asr_addr" in text


@pytest.mark.parametrize("url", ["nourl", "http://[::", "ftp://127.0.0.1"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    assert "attest.asr_addr" in await refusal(AsrAttester(url))
