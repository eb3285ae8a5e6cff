"""Our client against a stand-in broker that answers what a test tells it."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tng.attest.attester.base import TeeEvidence
from tng.attest.kbs import client
from tng.attest.kbs.admin import (
    delete_resource,
    list_resources,
    make_admin_key,
    make_admin_token,
    put_resource,
)
from tng.attest.kbs.client import KbsConnection, fetch_resource
from tng.attest.kbs.jwe import seal
from tng.attest.kbs.messages import refusal_words
from tng.attest.kbs.resource_id import ResourceId
from tng.attest.kbs.tee_key import parse_tee_key
from tng.errors import AppraiserError, ConfigError, ErrorCode, EvidenceError

NAME = ResourceId("default", "aliyun", "model-decryption-key")
SECRET = b"alibaba@1688"
NOW = 1_795_000_000


class Attester:
    """Vouches for anything."""

    def __init__(self, tee="tdx", evidence=b'{"quote":"x"}'):
        self.tee = tee
        self.evidence = evidence
        self.asked: list[bytes] = []

    async def get_evidence(self, report_data):
        self.asked.append(report_data)
        return TeeEvidence(self.tee, self.evidence, None)


class Broker:
    """Answers by path; keeps what it was sent."""

    def __init__(self):
        self.requests: list[tuple[str, str, dict, bytes]] = []
        self.answers = {
            "/auth": (200, b'{"nonce":"n1","extra-params":""}'),
            "/attest": (200, b'{"token":"t"}'),
            "/resource": None,
            "/resources": (200, b'["kbs:///a/b/c"]'),
        }

    def answer(self, method, path, body):
        known = self.answers["/" + path.split("/")[3]]
        if known is not None:
            return known
        if method != "GET":
            return 200, b""
        sent = json.loads(next(r[3] for r in self.requests if r[1].endswith("/attest")))
        jwk = sent.get("runtime-data", sent)["tee-pubkey"]
        return 200, seal(SECRET, parse_tee_key(jwk))


@pytest.fixture
def broker():
    found = Broker()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            found.requests.append((self.command, self.path, dict(self.headers), body))
            status, answer = found.answer(self.command, self.path, body)
            self.send_response(status)
            if self.path.endswith("/auth"):
                self.send_header("Set-Cookie", "kbs-session-id=abc; HttpOnly")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server wants these names

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}/trustee/"
        original = found.answer
        found.answer = lambda method, path, body: original(
            method, path.removeprefix("/trustee"), body
        )
        yield found
        server.shutdown()
        thread.join()


async def fetch(broker, attester=None, **options):
    async with KbsConnection(broker.url) as connection:
        return await fetch_resource(connection, NAME, attester or Attester(), **options)


@pytest.mark.parametrize("version", ["0.1.0", "0.4.0"])
async def test_a_secret_is_fetched_over_one_session(broker, version):
    assert await fetch(broker, version=version) == SECRET
    paths = [(method, path) for method, path, _, _ in broker.requests]
    assert paths == [
        ("POST", "/trustee/kbs/v0/auth"),
        ("POST", "/trustee/kbs/v0/attest"),
        ("GET", "/trustee/kbs/v0/resource/default/aliyun/model-decryption-key"),
    ]
    for _, _, headers, _ in broker.requests[1:]:
        assert {k.lower(): v for k, v in headers.items()}["cookie"] == "kbs-session-id=abc"
    assert json.loads(broker.requests[0][3])["version"] == version


async def test_every_secret_has_a_key_of_its_own(broker):
    attester = Attester()
    await fetch(broker, attester)
    broker.requests.clear()
    await fetch(broker, attester)
    first, second = attester.asked
    assert first != second
    assert len(first) == 48


@pytest.mark.parametrize(
    ("path", "answer", "code"),
    [
        (
            "/auth",
            (401, b'{"type":"x/errors/AttestationError","detail":"no"}'),
            ErrorCode.AS_REJECTED,
        ),
        ("/auth", (200, b"{}"), ErrorCode.AS_REJECTED),
        ("/auth", (200, b"x"), ErrorCode.AS_REJECTED),
        ("/auth", (200, json.dumps({"nonce": "n" * 1025}).encode()), ErrorCode.AS_REJECTED),
        ("/auth", (503, b"busy"), ErrorCode.AS_UNREACHABLE),
        ("/attest", (401, b"{}"), ErrorCode.AS_REJECTED),
        ("/attest", (200, b'{"token":1}'), ErrorCode.AS_REJECTED),
        (
            "/resource",
            (403, b'{"type":"x/errors/PolicyDeny","detail":"no"}'),
            ErrorCode.POLICY_DENIED,
        ),
        ("/resource", (404, b""), ErrorCode.AS_REJECTED),
        ("/resource", (302, b""), ErrorCode.AS_REJECTED),
        ("/resource", (200, b"{}"), ErrorCode.AS_REJECTED),
        ("/resource", (200, b" " * (1 << 20) + b"  "), ErrorCode.AS_REJECTED),
    ],
)
async def test_another_answer_is_an_error_that_names_the_path(broker, path, answer, code):
    broker.answers[path] = answer
    with pytest.raises(AppraiserError, match=path) as caught:
        await fetch(broker)
    assert caught.value.code is code


async def test_a_secret_that_is_sealed_for_another_key_is_refused(broker):
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    sealed = seal(SECRET, parse_tee_key({"kty": "EC", "alg": "ECDH-ES+A256KW", **_point(other)}))
    broker.answers["/resource"] = (200, sealed)
    with pytest.raises(AppraiserError, match="does not open with our key"):
        await fetch(broker)


def _point(key):
    from tng.attest.kbs.tee_key import dump_point

    return dump_point(key)


async def test_evidence_of_another_tee_ends_the_handshake(broker):
    with pytest.raises(EvidenceError, match="'sample'"):
        await fetch(broker, Attester("sample"))
    assert len(broker.requests) == 1


async def test_evidence_that_is_no_json_is_not_sent(broker):
    with pytest.raises(EvidenceError, match="JSON"):
        await fetch(broker, Attester(evidence=b"\x00"))


async def test_a_broker_that_is_not_there_is_unreachable(broker):
    async with KbsConnection("http://127.0.0.1:1") as connection:
        with pytest.raises(AppraiserError) as caught:
            await fetch_resource(connection, NAME, Attester())
    assert caught.value.code is ErrorCode.AS_UNREACHABLE
    assert caught.value.retryable


async def test_a_broker_that_never_answers_is_given_up(broker, monkeypatch):
    monkeypatch.setattr(client, "CALL_TIMEOUT_S", 0.05)
    held = threading.Event()
    broker.answer = lambda *_: (held.wait(5), (200, b""))[1]
    try:
        with pytest.raises(AppraiserError, match="did not answer"):
            await fetch(broker)
    finally:
        held.set()


async def test_an_administrator_shows_a_token(broker):
    private, public = make_admin_key()
    token = make_admin_token(private, NOW, "x")
    claims = jwt.decode(
        token,
        serialization.load_pem_public_key(public),
        ["EdDSA"],
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {"iat": NOW, "exp": NOW + 300}
    async with KbsConnection(broker.url, {"authorization": f"Bearer {token}"}) as connection:
        await put_resource(connection, NAME, SECRET)
        await delete_resource(connection, NAME)
        assert await list_resources(connection) == ["kbs:///a/b/c"]
        assert token not in repr(connection)
    assert [r[0] for r in broker.requests] == ["POST", "DELETE", "GET"]
    assert broker.requests[0][3] == SECRET


@pytest.mark.parametrize("body", [b"x", b"{}", b"[1]"])
async def test_a_list_that_is_none_is_refused(broker, body):
    broker.answers["/resources"] = (200, body)
    async with KbsConnection(broker.url) as connection:
        with pytest.raises(AppraiserError, match="list"):
            await list_resources(connection)


def test_what_is_no_key_makes_no_token():
    for pem in (b"", b"x", make_admin_key()[1]):
        with pytest.raises(ConfigError, match="private key"):
            make_admin_token(pem, NOW, "--admin-key")
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ConfigError, match="Ed25519"):
        make_admin_token(pem, NOW, "--admin-key")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"type":"https://x/errors/PolicyDeny","detail":"no"}', "'PolicyDeny: no'"),
        (b"plain\ntext", r"'plain\ntext'"),
        (b"\xff", "'\ufffd'"),
        (b"[]", "'[]'"),
        (b"{}", "'{}'"),
    ],
)
def test_a_refusal_is_repeated_on_one_line(body, words):
    assert refusal_words(body) == words
    assert len(refusal_words(b"x" * 10_000)) < 600
