"""The REST client against a small server on the loopback interface."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import socket
import ssl
import threading

import pytest
import trio

from stage.certificates import self_signed, write_pem
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.errors import AppraiserError, ErrorCode, UntrustedPeerError
from tng.wire.dice import CocoEvidence, HashAlgorithm

EVIDENCE = CocoEvidence("sample", b"{}", None, '{"pubkey-hash":"abc"}', HashAlgorithm.SHA384)
LEFT_ITERATORS = "ignore::pytest.PytestUnraisableExceptionWarning"
"""When an answer is not read to its end, httpx leaves iterators for the garbage collector."""
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
TWO_DEVICES = CocoEvidence("tdx", b"{}", b'{"nvidia":{}}', "{}", HashAlgorithm.SHA384)


class Service(http.server.ThreadingHTTPServer):
    """Answers as told: `answer(method, path, body) -> (status, headers, body)`.

    Attributes:
        seen: method, path, headers and body of every request.
        connections: how many were accepted.
        gate: set at the end; a slow answer waits for it.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen = []
        self.connections = 0
        self.hang_up_after_answer = False
        self.gate = threading.Event()
        self.answer = lambda method, path, body: (200, {}, b"a.b.c")

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, request, client_address):
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers, body))
        status, headers, answer = self.server.answer(self.command, self.path, body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)
        if self.server.hang_up_after_answer:
            self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the name is that of http.server


@pytest.fixture
def service():
    server = Service()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def client(service):
    async with _closing(TrusteeRestAppraiser(service.url, {}, user_agent="tng-test/1")) as client:
        yield client


class _closing:  # noqa: N801 - reads like contextlib.aclosing, which wants another shape
    def __init__(self, appraiser):
        self.appraiser = appraiser

    async def __aenter__(self):
        return self.appraiser

    async def __aexit__(self, *_):
        await self.appraiser.aclose()


async def failure(call, kind, code):
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    assert caught.value.code is code, caught.value
    return caught.value


async def test_a_token_comes_back_for_the_evidence(service, client):
    assert await client.appraise(EVIDENCE, ["default"]) == "a.b.c"
    method, path, headers, body = service.seen[0]
    assert (method, path) == ("POST", "/attestation")
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "tng-test/1"
    assert headers["accept-encoding"] == "identity"
    assert json.loads(body)["policy_ids"] == ["default"]


async def test_one_connection_serves_many_calls(service, client):
    for _ in range(5):
        await client.appraise(EVIDENCE, [])
    assert service.connections == 1


async def test_a_connection_closed_meanwhile_is_no_failure(service, client):
    service.hang_up_after_answer = True
    for _ in range(5):
        assert await client.appraise(EVIDENCE, []) == "a.b.c"
    assert len(service.seen) == 5


@pytest.mark.parametrize(("base", "path"), [("/as", "/as"), ("/as/", "/as"), ("/as//", "/as/")])
async def test_one_slash_at_the_end_of_the_address_is_ignored(service, base, path):
    async with _closing(TrusteeRestAppraiser(service.url + base, {}, user_agent="t")) as client:
        await client.appraise(EVIDENCE, [])
    assert service.seen[0][1] == f"{path}/attestation"


async def test_headers_go_with_every_request_and_are_never_shown(service, signer):
    headers = {"authorization": "Bearer s3cret"}
    service.answer = lambda *_: (401, {}, b"who are you")
    async with _closing(TrusteeRestAppraiser(service.url, headers, user_agent="t")) as client:
        for call in (client.appraise(EVIDENCE, []), client.fetch_certificates()):
            error = await failure(call, AppraiserError, ErrorCode.AS_REJECTED)
            assert "s3cret" not in str(error)
            assert "as_headers" in str(error)
        await client.probe()
        assert "s3cret" not in repr(client)
    assert {seen[2]["authorization"] for seen in service.seen} == {"Bearer s3cret"}


async def test_a_header_that_http_does_not_allow_is_named_without_its_value(service):
    headers = {"x-key": "s3cret\nx: y"}
    async with _closing(TrusteeRestAppraiser(service.url, headers, user_agent="t")) as client:
        call = client.appraise(EVIDENCE, [])
        error = await failure(call, AppraiserError, ErrorCode.AS_UNREACHABLE)
    assert "s3cret" not in str(error)
    assert error.__suppress_context__


async def test_a_password_in_the_address_is_never_shown(service):
    url = service.url.replace("http://", "http://user:s3cret@")
    service.answer = lambda *_: (404, {}, b"")
    async with _closing(TrusteeRestAppraiser(url, {}, user_agent="t")) as client:
        call = client.fetch_certificates()
        error = await failure(call, AppraiserError, ErrorCode.AS_REJECTED)
        assert "s3cret" not in str(error) + repr(client)
    assert "trusted_certs_paths" in str(error)


# -- dialects -------------------------------------------------------------------------


def old_service(method, path, body):
    if "tee" not in json.loads(body):
        return 400, {}, b"Json deserialize error: missing field `tee` at line 1"
    return 200, {}, b"old.old.old"


def new_service(method, path, body):
    if "verification_requests" not in json.loads(body):
        return 400, {}, b"Json deserialize error: missing field `verification_requests`"
    return 200, {}, b"new.new.new"


async def test_the_old_dialect_is_found_once_and_remembered(service, client):
    service.answer = old_service
    assert await client.appraise(EVIDENCE, []) == "old.old.old"
    assert await client.appraise(EVIDENCE, []) == "old.old.old"
    assert len(service.seen) == 3


async def test_a_service_updated_meanwhile_is_noticed(service, client):
    service.answer = old_service
    await client.appraise(EVIDENCE, [])
    service.answer = new_service
    assert await client.appraise(EVIDENCE, []) == "new.new.new"


async def test_an_old_service_is_not_asked_about_half_the_devices(service, client):
    service.answer = old_service
    await failure(client.appraise(TWO_DEVICES, []), AppraiserError, ErrorCode.AS_REJECTED)


# -- answers that are no token -----------------------------------------------------------


@pytest.mark.parametrize("status", [400, 422, 500, 501])
async def test_an_error_about_the_evidence_is_a_refusal(service, client, status):
    service.answer = lambda *_: (status, {}, b"REPORT_DATA is different")
    call = client.appraise(EVIDENCE, [])
    error = await failure(call, UntrustedPeerError, ErrorCode.AS_REJECTED)
    assert "REPORT_DATA is different" in str(error)
    assert error.verdict.checks[0].number == 4


@pytest.mark.parametrize("status", [401, 403, 404, 405, 413, 204])
async def test_an_error_about_the_call_is_no_verdict(service, client, status):
    service.answer = lambda *_: (status, {}, b"")
    await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_REJECTED)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_service_that_says_not_now_is_unreachable(service, client, status):
    service.answer = lambda *_: (status, {}, b"later")
    for call in (client.appraise(EVIDENCE, []), client.probe(), client.fetch_certificates()):
        assert (await failure(call, AppraiserError, ErrorCode.AS_UNREACHABLE)).retryable


async def test_a_problem_document_of_ours_gives_its_code_and_checks(service, client):
    problem = {
        "detail": "debug TD",
        "tng_code": "debug_td",
        "checks": [{"number": 7, "name": "debug", "outcome": "fail", "detail": "bit 0"}],
    }
    service.answer = lambda *_: (422, {}, json.dumps(problem).encode())
    error = await failure(client.appraise(EVIDENCE, []), UntrustedPeerError, ErrorCode.DEBUG_TD)
    assert [check.name for check in error.verdict.checks] == ["appraisal", "service: debug"]


async def test_a_problem_of_the_service_itself_is_no_verdict(service, client):
    problem = {"detail": "PCCS is away", "tng_code": "collateral_unavailable"}
    service.answer = lambda *_: (503, {}, json.dumps(problem).encode())
    call = client.appraise(EVIDENCE, [])
    error = await failure(call, AppraiserError, ErrorCode.COLLATERAL_UNAVAILABLE)
    assert "PCCS is away" in str(error)


async def test_a_web_page_is_no_token(service, client):
    service.answer = lambda *_: (200, {}, b"<html>sign in</html>")
    error = await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_BAD_TOKEN)
    assert service.url in str(error)


async def test_a_redirect_is_not_followed(service, client):
    service.answer = lambda *_: (302, {"Location": "http://127.0.0.1:1/"}, b"")
    error = await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_REJECTED)
    assert "redirect" in str(error)
    assert len(service.seen) == 1


async def test_a_compressed_answer_is_refused(service, client):
    service.answer = lambda *_: (200, {"Content-Encoding": "gzip"}, b"xx")
    await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_REJECTED)


async def test_an_answer_beyond_its_limit_is_not_read(service, client):
    service.answer = lambda *_: (200, {}, b"x" * (10 << 20))
    error = await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_REJECTED)
    assert "1048576" in str(error)
    await failure(client.fetch_certificates(), AppraiserError, ErrorCode.AS_REJECTED)


@pytest.mark.filterwarnings(LEFT_ITERATORS)
async def test_a_long_error_is_quoted_in_part(service, client):
    service.answer = lambda *_: (500, {}, b"x" * (10 << 20))
    call = client.appraise(EVIDENCE, [])
    error = await failure(call, UntrustedPeerError, ErrorCode.AS_REJECTED)
    assert len(str(error)) < 1000


@pytest.mark.filterwarnings(LEFT_ITERATORS)
@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_declared_length_is_counted(service, client, status):
    def chunks(*_):
        return status, {"Transfer-Encoding": "chunked", "Content-Length": ""}, CHUNK * 40

    service.answer = chunks
    with pytest.raises((AppraiserError, UntrustedPeerError)) as caught:
        await client.appraise(EVIDENCE, [])
    assert caught.value.code is ErrorCode.AS_REJECTED


async def test_a_service_that_is_silent_is_given_up(service):
    service.answer = lambda *_: (service.gate.wait(20), (200, {}, b""))[1]
    slow = TrusteeRestAppraiser(service.url, {}, user_agent="t", total_s=0.1)
    async with _closing(slow) as client:
        call = client.appraise(EVIDENCE, [])
        error = await failure(call, AppraiserError, ErrorCode.AS_UNREACHABLE)
    assert "0.1 s" in str(error)


async def test_a_body_that_drips_is_given_up(service):
    service.answer = lambda *_: (200, {"Content-Length": "100"}, b"a.")
    slow = TrusteeRestAppraiser(service.url, {}, user_agent="t", total_s=0.1)
    async with _closing(slow) as client:
        await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_UNREACHABLE)


async def test_a_body_cut_short_is_no_answer(service, client):
    service.hang_up_after_answer = True
    service.answer = lambda *_: (200, {"Content-Length": "100"}, b"a.b.c")
    await failure(client.appraise(EVIDENCE, []), AppraiserError, ErrorCode.AS_UNREACHABLE)


async def test_nobody_at_the_address_is_named_with_the_address():
    with socket.socket() as reserved:  # bound and not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        async with _closing(TrusteeRestAppraiser(url, {}, user_agent="t")) as client:
            for call in (client.appraise(EVIDENCE, []), client.probe()):
                error = await failure(call, AppraiserError, ErrorCode.AS_UNREACHABLE)
                assert url in str(error)


async def test_something_else_than_http_is_no_answer():
    async def speak(stream):
        await stream.send_all(b"SSH-2.0-x\r\n\r\n")

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, speak, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}", "http://[::1"):
            async with _closing(TrusteeRestAppraiser(url, {}, user_agent="t")) as client:
                call = client.appraise(EVIDENCE, [])
                await failure(call, AppraiserError, ErrorCode.AS_UNREACHABLE)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("is_tls", "words"),
    [
        (True, "its TLS certificate was not accepted: self-signed certificate"),
        (False, "TLS failed: WRONG_VERSION_NUMBER"),
    ],
)
async def test_why_tls_failed_is_said(tmp_path, is_tls, words):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(write_pem(tmp_path, *self_signed("127.0.0.1")))

    async def speak(stream):
        if is_tls:
            with contextlib.suppress(trio.BrokenResourceError):
                await trio.SSLStream(stream, context, server_side=True).do_handshake()
        else:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio.serve_tcp, speak, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with _closing(TrusteeRestAppraiser(url, {}, user_agent="t")) as client:
            error = await failure(client.probe(), AppraiserError, ErrorCode.AS_UNREACHABLE)
        assert words in str(error)
        nursery.cancel_scope.cancel()


# -- certificates and probe ----------------------------------------------------------------


async def test_certificates_are_fetched(service, client, signer):
    service.answer = lambda *_: (200, {}, signer.chain_pem)
    assert await client.fetch_certificates() == [signer.leaf, signer.ca]
    assert service.seen[0][:2] == ("GET", "/certificate")
    service.answer = lambda *_: (200, {}, b"<html>")
    await failure(client.fetch_certificates(), AppraiserError, ErrorCode.AS_REJECTED)


async def test_a_probe_wants_any_answer_but_a_broken_one(service, client):
    for status in (200, 401, 404):
        service.answer = lambda *_, status=status: (status, {}, b"")
        await client.probe()
    service.answer = lambda *_: (500, {}, b"broken")
    await failure(client.probe(), AppraiserError, ErrorCode.AS_REJECTED)


async def test_closing_twice_and_asking_again_works(service, client):
    await client.aclose()
    await client.appraise(EVIDENCE, [])
    await client.aclose()
    await client.aclose()


CHALLENGE = {"nonce": "AAAA", "extra-params": {"jwt": "c.h.s"}}


@pytest.mark.parametrize("name", ["extra-params", "extra_params"])
async def test_a_challenge_is_asked_for_with_an_empty_object(service, client, name):
    service.answer = lambda *_: (200, {}, json.dumps({name: {"jwt": "c.h.s"}}).encode())
    assert await client.challenge() == "c.h.s"
    method, path, headers, body = service.seen[0]
    assert (method, path, body) == ("POST", "/challenge", b"{}")
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"c.h.s",
        b"[]",
        b"{}",
        b'{"nonce":"AAAA"}',
        b'{"extra_params":"c.h.s"}',
        b'{"extra_params":{"jwt":1}}',
        b'{"extra_params":{"jwt":"c.h"}}',
        b'{"extra_params":{"jwt":"c.h.s\\n"}}',
        b'{"extra_params":{"jwt":"c.h.' + b"s" * 8192 + b'"}}',
    ],
)
async def test_an_answer_without_a_challenge_is_an_error(service, client, body):
    service.answer = lambda *_: (200, {}, body)
    error = await failure(client.challenge(), AppraiserError, ErrorCode.AS_REJECTED)
    assert "/challenge" in str(error)
    assert len(str(error)) < 800


async def test_a_challenge_is_not_read_beyond_its_limit(service, client):
    service.answer = lambda *_: (200, {}, b" " * 20_000)
    await failure(client.challenge(), AppraiserError, ErrorCode.AS_REJECTED)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, ErrorCode.AS_REJECTED), (404, ErrorCode.AS_REJECTED), (503, ErrorCode.AS_UNREACHABLE)],
)
async def test_a_service_that_gives_no_challenge_is_no_judge(service, client, status, code):
    service.answer = lambda *_: (status, {}, b"Failed to get inner tee")
    await failure(client.challenge(), AppraiserError, code)


async def test_a_challenge_that_the_service_does_not_accept_is_the_peers_fault(service, client):
    problem = {"code": "AS.CHALLENGE.INVALID_TOKEN", "detail": "challenge_token expired"}
    service.answer = lambda *_: (401, {}, json.dumps(problem).encode())
    error = await failure(client.appraise(EVIDENCE, []), UntrustedPeerError, ErrorCode.STALE)
    assert "challenge_token expired" in str(error)


async def test_runtime_data_goes_to_the_service_as_an_object(service, client):
    claims = {"challenge_token": "c.h.s", "hpke_key_config": {"expire_timestamp": 1}}
    text = json.dumps(claims, separators=(",", ":"), sort_keys=True)
    await client.appraise(CocoEvidence("tdx", b"{}", None, text), [])
    (request,) = json.loads(service.seen[0][3])["verification_requests"]
    assert request["runtime_data"] == {"structured": claims}
    assert request["runtime_data_hash_algorithm"] == "sha384"
