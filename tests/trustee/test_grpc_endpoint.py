"""The embedded service over gRPC, asked by our own client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from stage.grpc_endpoint import running_endpoint
from tng.attest.appraiser.grpc_exchange import GrpcExchange
from tng.attest.appraiser.grpc_messages import CHALLENGE, EVALUATE, PROBLEM_KEY, STATUS
from tng.attest.appraiser.trustee_grpc import TrusteeGrpcAppraiser, parse_address
from tng.attest.tdx.appraisal import TdxRefused
from tng.clock import FixedClock
from tng.endpoint import Endpoint
from tng.errors import AppraiserError, ErrorCode, NetError, StartError
from tng.errors import UntrustedPeerError as Refused
from tng.trustee.attestation import AttestationService
from tng.trustee.challenge import Challenger
from tng.trustee.grpc_endpoint import GrpcParts, grpc_endpoint
from tng.trustee.identity import make_identity
from tng.trustee.policies import Policies
from tng.trustee.problems import ProblemCode, TrusteeRequestError
from tng.trustee.sample_evidence import SampleVerifier
from tng.trustee.state import StateDirectory
from tng.verdict import Check, Outcome
from tng.wire.dice import CocoEvidence, HashAlgorithm
from tng.wire.protobuf import parse_fields

NOW = 1_795_000_000


class Service:
    """Answers every request in one way."""

    def __init__(self, error=None, delay_s=0.0):
        self.error, self.delay_s = error, delay_s

    async def attest(self, body):
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        assert json.loads(body)["policy_ids"] == ["default"]
        return "a.b.c"


class Challenges:
    """Gives out one challenge."""

    def issue(self, now):
        return self

    def dump(self):
        return b'{"extra-params":{"jwt":"d.e.f"},"nonce":"x"}'


def parts(service, deadline_s=5.0):
    status = {"service": "attestation-service", "status": "ok", "dependencies": []}
    return GrpcParts(service, Challenges(), lambda: status, FixedClock(NOW), deadline_s)


def evidence(tee="tdx", octets=b"{}", claims="{}"):
    return CocoEvidence(tee, octets, None, claims, HashAlgorithm.SHA384)


async def ask(port, shown=None, policy="default"):
    address = parse_address(f"http://127.0.0.1:{port}", "x")
    appraiser = TrusteeGrpcAppraiser(address, (), user_agent="test")
    try:
        return await appraiser.appraise(shown or evidence(), [policy])
    finally:
        await appraiser.aclose()


async def answer_to(port, method, message):
    exchange = GrpcExchange(
        f"127.0.0.1:{port}", (), is_secure=False, user_agent="x", max_answer=4096
    )
    try:
        return await exchange.call(method, message, timeout_s=5, problem_key=PROBLEM_KEY)
    finally:
        exchange.close()


async def test_tokens_challenges_and_the_status_come_back():
    with running_endpoint(parts(Service())) as port:
        assert await ask(port) == "a.b.c"
        address = parse_address(f"http://127.0.0.1:{port}", "x")
        appraiser = TrusteeGrpcAppraiser(address, (), user_agent="test")
        assert await appraiser.challenge() == "d.e.f"
        await appraiser.probe()
        await appraiser.aclose()
        told = await answer_to(port, STATUS, b"")
        assert parse_fields(told.body) == [(1, b"attestation-service"), (2, b"ok")]
        refused = await answer_to(port, CHALLENGE, b"\x0a\x00")
        assert refused.status == "INVALID_ARGUMENT"
        unknown = await answer_to(port, EVALUATE.replace("Evaluate", "Else"), b"")
        assert unknown.status == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (
            Refused("x", code=ErrorCode.QUOTE_INVALID),
            Refused,
            "quote_invalid",
        ),
        (
            AppraiserError("x", code=ErrorCode.COLLATERAL_UNAVAILABLE),
            AppraiserError,
            "collateral_unavailable",
        ),
        (
            TrusteeRequestError("x", ProblemCode.INVALID_TOKEN, code=ErrorCode.STALE),
            Refused,
            "stale",
        ),
        (TrusteeRequestError("x", ProblemCode.INVALID_ARGUMENT), Refused, "as_rejected"),
        (TrusteeRequestError("x", ProblemCode.NOT_IMPLEMENTED), AppraiserError, "as_rejected"),
        (NetError("x"), Refused, "as_rejected"),
    ],
)
async def test_refusals_mean_the_same_as_over_rest(error, kind, code):
    with running_endpoint(parts(Service(error))) as port, pytest.raises(kind) as caught:
        await ask(port)
    assert type(caught.value) is kind
    assert caught.value.code.value == code


@pytest.mark.parametrize(("size", "is_told"), [(20, True), (6000, False)])
async def test_checks_are_told_as_long_as_they_fit(size, is_told):
    checks = (Check(7, "debug", Outcome.FAIL, "d" * size),) * 10
    error = TdxRefused("a debug TD", code=ErrorCode.DEBUG_TD, checks=checks)
    with running_endpoint(parts(Service(error))) as port, pytest.raises(Refused) as caught:
        await ask(port)
    assert caught.value.code is ErrorCode.DEBUG_TD
    assert (len(caught.value.verdict.checks) > 1) is is_told


async def test_words_that_do_not_fit_leave_the_status():
    error = Refused("\u2603" * 2000, code=ErrorCode.DEBUG_TD)
    with running_endpoint(parts(Service(error))) as port:
        answer = await answer_to(port, EVALUATE, b"")
        assert answer.status == "ABORTED"
        assert answer.problem == b""


async def test_a_judgement_that_takes_too_long_ends():
    late = parts(Service(delay_s=30), deadline_s=0.05)
    with running_endpoint(late) as port, pytest.raises(AppraiserError, match="not answered within"):
        await ask(port)


async def test_the_real_service_behind_it_judges(tmp_path, requests):
    key = rsa.generate_private_key(65537, 2048)
    with StateDirectory.open(tmp_path / "state") as state:
        service = AttestationService(
            make_identity(NOW),
            Challenger(key),
            Policies(state),
            {"sample": SampleVerifier()},
            FixedClock(NOW),
        )
        claims = json.dumps(requests.claims)
        with running_endpoint(parts(service)) as port:
            shown = evidence("sample", requests.sample(), claims)
            assert (await ask(port, shown, "trust_all")).count(".") == 2
            with pytest.raises(Refused) as caught:
                await ask(port, evidence("sample", requests.sample(), "{}"), "trust_all")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH


async def test_a_port_in_use_is_an_error_at_start():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = Endpoint("127.0.0.1", taken.getsockname()[1])

        async def start() -> None:
            async with grpc_endpoint(listen, parts(Service())):
                pass

        def run() -> None:
            with pytest.raises(StartError, match="cannot listen"):
                asyncio.run(start())

        import trio

        await trio.to_thread.run_sync(run)


async def test_the_running_service_answers_over_grpc_too(start, caplog):
    caplog.set_level("INFO", "tng")
    start(grpc=Endpoint("127.0.0.1", 0), allow_sample=True)
    (said,) = [r for r in caplog.messages if r.startswith("trustee listening grpc=")]
    claims = '{"a":1}'
    bound = hashlib.sha384(claims.encode()).digest()
    members = {
        "measure_register": "00" * 32,
        "report_data": base64.b64encode(bound).decode(),
        "svn": "1",
    }
    token = await ask(
        int(said.rpartition(":")[2]), evidence("sample", json.dumps(members).encode(), claims)
    )
    assert token.count(".") == 2


def test_a_port_for_grpc_that_is_taken_is_a_start_error(start):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(StartError, match="gRPC"),
    ):
        start(grpc=Endpoint("127.0.0.1", taken.getsockname()[1]))
