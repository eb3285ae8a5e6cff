"""tng.attest.attester.agent: the reference's calls in its order, and an end to every one."""

from __future__ import annotations

import logging
import pathlib
from typing import TYPE_CHECKING

import pytest
import trio

from tng.attest.attester.agent import SERVICE, AgentAttester
from tng.errors import ErrorCode, EvidenceError
from tng.wire.protobuf import dump_fields
from tng.wire.ttrpc import Frame, FrameType, Response, dump_frame

if TYPE_CHECKING:
    from tests.attest.attester.conftest import FakeAgent

REPORT_DATA = bytes(range(48))


async def refusal(path: str, deadline: float = 5) -> str:
    with pytest.raises(EvidenceError) as refused:
        await AgentAttester(path, deadline=deadline).get_evidence(REPORT_DATA)
    assert refused.value.code is ErrorCode.EVIDENCE_UNAVAILABLE
    assert path in str(refused.value)
    return str(refused.value)


async def test_three_calls_over_one_connection_in_the_reference_order(agent: FakeAgent) -> None:
    said = await AgentAttester(agent.path).get_evidence(REPORT_DATA)
    assert (said.tee, said.additional) == ("sample", None)
    assert b"AAECAwQ" in said.evidence
    assert [(n, r.service, r.method, r.payload, r.timeout) for n, r in agent.requests] == [
        (1, SERVICE, "GetEvidence", dump_fields([(1, REPORT_DATA)]), 50_000_000_000),
        (3, SERVICE, "GetTeeType", b"", 50_000_000_000),
        (5, SERVICE, "GetAdditionalEvidence", dump_fields([(1, REPORT_DATA)]), 50_000_000_000),
    ]


async def test_additional_evidence_is_passed_on(agent: FakeAgent) -> None:
    agent.answers["GetAdditionalEvidence"] = Response(0, "", dump_fields([(1, b'{"nvidia":1}')]))
    said = await AgentAttester(agent.path).get_evidence(REPORT_DATA)
    assert said.additional == b'{"nvidia":1}'


async def test_missing_additional_evidence_is_logged_once(
    agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    attester = AgentAttester(agent.path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await attester.get_evidence(REPORT_DATA)
    assert [record.message for record in caplog.records] == [
        f"no additional evidence source=attestation agent at unix://{agent.path} "
        "status=12 message='unimplemented'"
    ]


async def test_empty_additional_evidence_is_none_without_a_word(
    agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.answers["GetAdditionalEvidence"] = Response(0, "", b"")
    said = await AgentAttester(agent.path).get_evidence(REPORT_DATA)
    assert said.additional is None
    assert not caplog.records


@pytest.mark.parametrize("method", ["GetEvidence", "GetTeeType"])
async def test_a_refusal_of_the_agent_is_told_with_its_words(agent: FakeAgent, method: str) -> None:
    agent.answers[method] = Response(13, "[ERROR:attestation-agent] no TEE", b"")
    text = await refusal(agent.path)
    assert f"refused {method} with status 13" in text
    assert "no TEE" in text


async def test_empty_evidence_and_an_unknown_tee_are_refused(agent: FakeAgent) -> None:
    agent.answers["GetTeeType"] = Response(0, "", dump_fields([(1, b"\xffTDX")]))
    assert "expected one of" in await refusal(agent.path)
    agent.answers["GetEvidence"] = Response(0, "", b"")
    del agent.answers["GetTeeType"]
    assert "empty evidence" in await refusal(agent.path)


def frame(stream: int, kind: FrameType, payload: bytes = b"") -> bytes:
    return dump_frame(Frame(stream, kind, payload))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "limit"),
        (frame(7, FrameType.RESPONSE), "stream 7"),
        (frame(1, FrameType.REQUEST), "request on stream 1"),
        (frame(1, FrameType.RESPONSE, b"\xff"), "number"),
        (frame(1, FrameType.RESPONSE, dump_fields([(2, b"\xff")])), "number"),
    ],
)
async def test_a_peer_that_is_no_agent_is_named(agent: FakeAgent, data: bytes, word: str) -> None:
    agent.raw["GetEvidence"] = lambda _: data
    text = await refusal(agent.path)
    assert word in text
    assert "attest.aa_addr" in text


async def test_an_agent_that_does_not_answer_ends_at_the_deadline(
    agent: FakeAgent, autojump_clock: trio.testing.MockClock
) -> None:
    agent.raw["GetTeeType"] = lambda _: b""
    started = trio.current_time()
    assert "within 50 s" in await refusal(agent.path, deadline=50)
    assert trio.current_time() - started == pytest.approx(50)


async def test_an_absent_agent_is_refused_with_what_to_do(tmp_path: pathlib.Path) -> None:
    text = await refusal(str(tmp_path / "none.sock"))
    assert "No such file" in text
    assert "start the agent" in text


async def test_an_agent_that_hangs_up_is_refused(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "aa.sock")
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, hang_up, [trio.SocketListener(listening)])
        assert "closed" in await refusal(path)
        nursery.cancel_scope.cancel()


async def test_an_agent_that_resets_at_once_is_refused(tmp_path: pathlib.Path) -> None:
    """Sending may already fail, or only receiving: both are the same refusal."""
    path = str(tmp_path / "aa.sock")
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            trio.serve_listeners, trio.SocketStream.aclose, [trio.SocketListener(listening)]
        )
        assert await refusal(path)
        nursery.cancel_scope.cancel()
