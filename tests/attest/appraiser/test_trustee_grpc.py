"""The client of a gRPC service, in front of services that go wrong in every way they can."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import threading

import grpc
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stage.grpc_service import grpc_service, old_service
from tng.attest.appraiser.trustee_grpc import (
    GrpcAddress,
    TrusteeGrpcAppraiser,
    parse_address,
    parse_metadata,
)
from tng.errors import AppraiserError, ConfigError, ErrorCode, UntrustedPeerError
from tng.verdict import Outcome
from tng.wire.dice import CocoEvidence, HashAlgorithm
from tng.wire.protobuf import dump_fields, parse_fields

EVIDENCE = CocoEvidence("tdx", b"{}", None, '{"a":1}', HashAlgorithm.SHA384)
DEVICES = CocoEvidence("tdx", b"{}", b'{"nvidia":{}}', '{"a":1}', HashAlgorithm.SHA384)
TOKEN = dump_fields([(1, b"a.b.c")])


def client(service, **options):
    options = {"user_agent": "ours/1", **options}
    return TrusteeGrpcAppraiser(parse_address(service.url, "as_addr"), (), **options)


async def asked(respond, evidence=EVIDENCE, **options):
    """The token, or the error, of one call to a service with these answers."""
    with grpc_service(respond) as service:
        appraiser = client(service, **options)
        try:
            return await appraiser.appraise(evidence, ["default"])
        except (AppraiserError, UntrustedPeerError) as exc:
            return exc
        finally:
            await appraiser.aclose()


def aborting(status, words="no", problem=None):
    def respond(method, message, context):
        if problem is not None:
            data = problem if isinstance(problem, bytes) else json.dumps(problem).encode()
            context.set_trailing_metadata((("tng-problem-bin", data),))
        context.abort(grpc.StatusCode[status], words)

    return respond


async def test_a_token_comes_back_and_headers_go_along():
    with grpc_service(lambda method, message, context: TOKEN) as service:
        metadata = parse_metadata({"X-Key": "s3cret"}, "as_headers")
        address = parse_address(service.url, "as_addr")
        appraiser = TrusteeGrpcAppraiser(address, metadata, user_agent="ours/1")
        assert await appraiser.appraise(EVIDENCE, ["default"]) == "a.b.c"
        await appraiser.aclose()
        await appraiser.aclose()
        assert await appraiser.appraise(EVIDENCE, ["default"]) == "a.b.c"
        await appraiser.aclose()
    assert len(service.calls) == 2
    assert service.calls[0].metadata["x-key"] == "s3cret"
    assert str(service.calls[0].metadata["user-agent"]).startswith("ours/1")
    assert "s3cret" not in repr(appraiser)


async def test_the_older_generation_is_found_once_and_remembered():
    with old_service("a.b.c") as service:
        appraiser = client(service)
        for _ in range(3):
            assert await appraiser.appraise(EVIDENCE, []) == "a.b.c"
        await appraiser.aclose()
    assert len(service.calls) == 4


async def test_a_service_that_is_updated_meanwhile_is_understood_again():
    is_new = False

    def respond(method, message, context):
        if is_new == (dict(parse_fields(message)).get(1) == b"tdx"):
            context.abort(grpc.StatusCode.INTERNAL, "failed to decode Protobuf message")
        return TOKEN

    with grpc_service(respond) as service:
        appraiser = client(service)
        assert await appraiser.appraise(EVIDENCE, []) == "a.b.c"
        is_new = True
        assert await appraiser.appraise(EVIDENCE, []) == "a.b.c"
        assert await appraiser.appraise(EVIDENCE, []) == "a.b.c"
        await appraiser.aclose()
    assert len(service.calls) == 5


async def test_a_refusal_is_not_asked_about_again_once_the_generation_is_known():
    words = ["good"]

    def respond(method, message, context):
        if words:
            return TOKEN
        return context.abort(grpc.StatusCode.ABORTED, "Attestation: bad quote")

    with grpc_service(respond) as service:
        appraiser = client(service)
        await appraiser.appraise(EVIDENCE, [])
        words.clear()
        with pytest.raises(UntrustedPeerError, match="bad quote") as caught:
            await appraiser.appraise(EVIDENCE, [])
        await appraiser.aclose()
    assert len(service.calls) == 2
    assert caught.value.code is ErrorCode.AS_REJECTED
    assert caught.value.verdict is not None
    assert [check.outcome for check in caught.value.verdict.checks] == [Outcome.FAIL]


async def test_the_words_about_the_newer_message_are_the_ones_that_count():
    def respond(method, message, context):
        is_flat = dict(parse_fields(message)).get(1) == b"tdx"
        context.abort(grpc.StatusCode.ABORTED, "cannot read" if is_flat else "bad quote")

    error = await asked(respond)
    assert isinstance(error, UntrustedPeerError)
    assert "bad quote" in str(error)


async def test_devices_are_never_left_out_for_an_older_service():
    error = await asked(aborting("INTERNAL", "failed to decode"), DEVICES)
    assert isinstance(error, UntrustedPeerError)
    assert "failed to decode" in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        ("UNAVAILABLE", AppraiserError, ErrorCode.AS_UNREACHABLE),
        ("RESOURCE_EXHAUSTED", AppraiserError, ErrorCode.AS_UNREACHABLE),
        ("DEADLINE_EXCEEDED", AppraiserError, ErrorCode.AS_UNREACHABLE),
        ("UNAUTHENTICATED", AppraiserError, ErrorCode.AS_REJECTED),
        ("PERMISSION_DENIED", AppraiserError, ErrorCode.AS_REJECTED),
        ("UNIMPLEMENTED", AppraiserError, ErrorCode.AS_REJECTED),
        ("NOT_FOUND", AppraiserError, ErrorCode.AS_REJECTED),
        ("ABORTED", UntrustedPeerError, ErrorCode.AS_REJECTED),
        ("INTERNAL", UntrustedPeerError, ErrorCode.AS_REJECTED),
        ("INVALID_ARGUMENT", UntrustedPeerError, ErrorCode.AS_REJECTED),
        ("UNKNOWN", UntrustedPeerError, ErrorCode.AS_REJECTED),
    ],
)
async def test_each_status_is_somebodys_fault(status, kind, code):
    error = await asked(aborting(status, "words of the service"))
    assert type(error) is kind
    assert error.code is code
    assert "words of the service" in str(error)


async def test_our_own_service_says_what_was_checked():
    check = {"number": 7, "name": "debug", "outcome": "fail", "detail": "on"}
    problem = {"detail": "a debug TD", "tng_code": "debug_td", "checks": [check]}
    error = await asked(aborting("ABORTED", "short", problem))
    assert isinstance(error, UntrustedPeerError)
    assert error.code is ErrorCode.DEBUG_TD
    assert [c.name for c in error.verdict.checks] == ["appraisal", "service: debug"]


async def test_our_own_service_says_that_it_could_not_judge():
    problem = {"detail": "no collateral", "tng_code": "collateral_unavailable"}
    error = await asked(aborting("UNAVAILABLE", "short", problem))
    assert type(error) is AppraiserError
    assert error.code is ErrorCode.COLLATERAL_UNAVAILABLE


async def test_a_problem_that_is_no_document_makes_it_no_better():
    error = await asked(aborting("ABORTED", "short", b"\xff\xfe"))
    assert isinstance(error, UntrustedPeerError)
    assert error.code is ErrorCode.AS_REJECTED


@pytest.mark.parametrize("answer", [b"", dump_fields([(1, b"<html>")]), b"\x0a\x09"])
async def test_an_answer_that_is_no_token_is_the_services_fault(answer):
    error = await asked(lambda method, message, context: answer)
    assert type(error) is AppraiserError


async def test_an_answer_beyond_the_limit_is_not_read():
    error = await asked(lambda method, message, context: b"x" * 1_100_000)
    assert type(error) is AppraiserError


async def test_a_silent_service_is_not_waited_for():
    until = threading.Event()
    try:
        error = await asked(lambda method, message, context: until.wait(5) and TOKEN, total_s=0.1)
    finally:
        until.set()
    assert type(error) is AppraiserError
    assert error.code is ErrorCode.AS_UNREACHABLE
    assert "DEADLINE_EXCEEDED" in str(error)


async def test_a_call_may_be_cancelled():
    until, is_asked = threading.Event(), threading.Event()

    def respond(method, message, context):
        is_asked.set()
        until.wait(5)
        return TOKEN

    with grpc_service(respond) as service:
        appraiser = client(service)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(appraiser.appraise, EVIDENCE, [])
            assert await trio.to_thread.run_sync(is_asked.wait, 5)
            nursery.cancel_scope.cancel()
        until.set()
        await appraiser.aclose()


async def test_an_absent_service_is_unreachable():
    appraiser = TrusteeGrpcAppraiser(GrpcAddress("127.0.0.1:1", False), (), user_agent="x")
    with pytest.raises(AppraiserError, match="does the service run") as caught:
        await appraiser.appraise(EVIDENCE, [])
    with pytest.raises(AppraiserError):
        await appraiser.probe()
    await appraiser.aclose()
    assert caught.value.code is ErrorCode.AS_UNREACHABLE
    assert caught.value.retryable


async def test_a_challenge_is_asked_for_and_its_absence_is_said():
    answer = json.dumps({"nonce": "x", "extra-params": {"jwt": "d.e.f"}}).encode()
    answers = [dump_fields([(1, answer)]), dump_fields([(1, b"supplemental")])]
    with grpc_service(lambda method, message, context: answers.pop(0)) as service:
        appraiser = client(service)
        assert await appraiser.challenge() == "d.e.f"
        with pytest.raises(AppraiserError, match="jwt"):
            await appraiser.challenge()
        await appraiser.aclose()
    with grpc_service(lambda *_: TOKEN, ("AttestationEvaluate",)) as service:
        appraiser = client(service)
        with pytest.raises(AppraiserError, match="UNIMPLEMENTED") as caught:
            await appraiser.challenge()
        await appraiser.probe()  # it knows no status, so it is there
        await appraiser.aclose()
    assert caught.value.code is ErrorCode.AS_REJECTED


async def test_no_certificate_is_had_over_grpc():
    appraiser = TrusteeGrpcAppraiser(GrpcAddress("127.0.0.1:1", False), (), user_agent="x")
    with pytest.raises(AppraiserError, match="trusted_certs_paths"):
        await appraiser.fetch_certificates()


async def test_a_service_without_tls_is_not_spoken_to_in_plain():
    with grpc_service(lambda *_: TOKEN) as service:
        address = parse_address(service.url.replace("http:", "https:"), "as_addr")
        appraiser = TrusteeGrpcAppraiser(address, (), user_agent="x", total_s=3)
        with pytest.raises(AppraiserError):
            await appraiser.appraise(EVIDENCE, [])
        await appraiser.aclose()
    assert service.calls == []


def certified(tmp_path):
    """Credentials for 127.0.0.1, and the file of the root that issued them."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    root = tmp_path / "root.pem"
    root.write_bytes(pem)
    return grpc.ssl_server_credentials([(private, pem)]), root


async def ask_with_tls(credentials):
    with grpc_service(lambda *_: TOKEN, credentials=credentials) as service:
        address = parse_address(service.url.replace("http:", "https:"), "as_addr")
        appraiser = TrusteeGrpcAppraiser(address, (), user_agent="x", total_s=3)
        try:
            return await appraiser.appraise(EVIDENCE, [])
        finally:
            await appraiser.aclose()


async def test_a_service_with_tls_must_lead_to_the_systems_roots(tmp_path, monkeypatch):
    credentials, root = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    assert await ask_with_tls(credentials) == "a.b.c"
    _, other = certified(tmp_path / ".." / tmp_path.name)
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(AppraiserError):
        await ask_with_tls(credentials)


async def test_roots_are_also_found_in_a_folder(tmp_path, monkeypatch):
    credentials, root = certified(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "gone"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(AppraiserError, match="expected root certificates"):
        await ask_with_tls(credentials)
    root.rename(tmp_path / "0123abcd.0")
    assert await ask_with_tls(credentials) == "a.b.c"


@pytest.mark.parametrize(
    ("as_addr", "target", "is_secure"),
    [
        ("http://as.example:50", "as.example:50", False),
        ("http://as.example/", "as.example:50004", False),
        ("https://as.example", "as.example:443", True),
        ("https://[::1]:5", "[::1]:5", True),
    ],
)
def test_addresses_are_hosts_and_ports(as_addr, target, is_secure):
    assert parse_address(as_addr, "x") == GrpcAddress(target, is_secure)


@pytest.mark.parametrize(
    "as_addr", ["http://h/as", "http://h/?a=1", "http://h/#a", "http://user:s3cret@h"]
)
def test_an_address_with_more_than_that_is_refused(as_addr):
    with pytest.raises(ConfigError) as caught:
        parse_address(as_addr, "verify.as_addr")
    assert str(caught.value).startswith("verify.as_addr: expected scheme, host and port")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [{"a-bin": "x"}, {"grpc-timeout": "1"}, {":path": "x"}, {"a b": "x"}, {"a": "s3cr\u00e9t"}],
)
def test_headers_that_are_no_metadata_are_refused_and_not_shown(headers):
    with pytest.raises(ConfigError) as caught:
        parse_metadata(headers, "verify.as_headers")
    assert "verify.as_headers" in str(caught.value)
    assert "s3cr" not in str(caught.value)
