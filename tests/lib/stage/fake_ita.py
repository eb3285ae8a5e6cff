"""A fake of Intel Trust Authority, of its portal, and of the REST server of a fake TDX guest.

It looks at what the real service looks at, as far as software can: the nonce must be one of its
own, and the quote's report data must be SHA-512 over nonce and runtime data.  Behind its "quotes"
there is no hardware, and its keys are made anew each time: nobody but a test trusts it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import http.server
import ipaddress
import json
import pathlib
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

Answer = tuple[int, bytes]
Json = dict[str, object]

KEY = "k3y-of-the-test"
REPORT_DATA = slice(568, 632)


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fake_quote(report_data: bytes) -> bytes:
    """Octets with report data where a TDX quote has it."""
    return b"FAKE".ljust(REPORT_DATA.start, b"\0") + report_data.ljust(64, b"\0") + bytes(64)


@dataclass
class FakeIta:
    """The service.

    Attributes:
        api: URL of the calls.
        portal: URL of the published keys, https.
        ca: file with the certificate that the portal's leads to.
        policies: ids that match every evidence.
        change: spoils the claims before they are signed.
        answers: overrule single paths.
        requests: path, headers and body of each call.
    """

    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    kid: str = "kid-1"
    api: str = ""
    portal: str = ""
    ca: pathlib.Path = pathlib.Path()
    policies: tuple[str, ...] = ("p1", "p2")
    now: Callable[[], float] = time.time
    change: Callable[[Json], None] = lambda _claims: None
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    _nonces: set[str] = field(default_factory=set)

    def sign(self, claims: Json, header: Json | None = None) -> str:
        """A token."""
        header = header or {"alg": "PS384", "kid": self.kid, "typ": "JWT"}
        text = f"{b64url(json.dumps(header).encode())}.{b64url(json.dumps(claims).encode())}"
        scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        return f"{text}.{b64url(self.key.sign(text.encode(), scheme, hashes.SHA384()))}"

    def claims(self, runtime_data: object, policies: tuple[str, ...] = ()) -> Json:
        """Claims of a token that passes."""
        now = int(self.now())
        known = [{"id": one, "version": "v1"} for one in policies if one in self.policies]
        return {
            "iss": "Intel Trust Authority",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "ver": "2.0.0",
            "tdx": {
                "attester_type": "TDX",
                "attester_runtime_data": runtime_data,
                "attester_tcb_status": "UpToDate",
                "tdx_is_debuggable": False,
            },
            "policy_ids_matched": known,
            "policy_ids_unmatched": [],
        }

    def jwks(self) -> Json:
        """What the portal publishes."""
        n = self.key.public_key().public_numbers().n
        octets = n.to_bytes((n.bit_length() + 7) // 8, "big")
        jwk = {"kty": "RSA", "alg": "PS384", "kid": self.kid, "n": b64url(octets), "e": "AQAB"}
        return {"keys": [jwk]}

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to one request."""
        self.requests.append((path, headers, body))
        if path in self.answers:
            return self.answers[path]
        if path == "/certs":
            return 200, json.dumps(self.jwks()).encode()
        if headers.get("x-api-key") != KEY:
            return 401, b"unauthorized"
        if path == "/appraisal/v2/nonce":
            val = base64.b64encode(secrets.token_bytes(64)).decode()
            self._nonces.add(val)
            nonce = {"val": val, "iat": "MjAyNg==", "signature": "c2ln"}
            return 200, json.dumps(nonce).encode()
        if path == "/appraisal/v2/attest":
            return self._appraise(json.loads(body))
        return 404, b"not here"

    def _appraise(self, asked: dict[str, dict[str, str]]) -> Answer:
        tdx = asked["tdx"]
        runtime = base64.b64decode(tdx["runtime_data"])
        nonce: object = tdx.get("verifier_nonce")
        prefix = b""
        if isinstance(nonce, dict):
            if nonce["val"] not in self._nonces:
                return 400, b"nonce is not one of ours"
            prefix = base64.b64decode(nonce["val"]) + base64.b64decode(nonce["iat"])
        said = base64.b64decode(tdx["quote"])[REPORT_DATA]
        if said != hashlib.sha512(prefix + runtime).digest():
            return 400, b"report data is over something else"
        policies = tuple(asked.get("policy_ids", ()))
        if set(policies) - set(self.policies):
            return 400, b"policy does not match"
        claims = self.claims(json.loads(runtime), policies)
        self.change(claims)
        return 200, json.dumps({"token": self.sign(claims)}).encode()


@dataclass
class FakeGuest:
    """The REST server of a TDX guest that is none.

    Attributes:
        tee: what it says that it is.
        gpu: whether there is a GPU.
        change: replaces the report data that is vouched for.
    """

    tee: str = "tdx"
    gpu: bool = False
    change: Callable[[bytes], bytes] = lambda data: data
    url: str = ""
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    def answer(self, target: str) -> Answer:
        url = urlsplit(target)
        text = parse_qs(url.query).get("runtime_data", [""])[0]
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        self.asked.append((url.path, data))
        match url.path:
            case "/info":
                return 200, json.dumps({"version": "1", "tee": self.tee}).encode()
            case "/aa/evidence":
                quote = base64.b64encode(fake_quote(self.change(data))).decode()
                return 200, json.dumps({"quote": quote, "cc_eventlog": None}).encode()
            case "/aa/additional-evidence" if self.gpu:
                return 200, self.devices(data)
        return 404, b"URL NOT FOUND"

    def devices(self, data: bytes) -> bytes:
        report = base64.b64encode(b"gpu:" + data).decode()
        device = {"arch": "HOPPER", "certificate": "Q0VSVA==", "evidence": report}
        return json.dumps({"nvidia": {"device_evidence_list": [device]}}).encode()


@contextlib.contextmanager
def fake_ita(folder: pathlib.Path) -> Iterator[FakeIta]:
    """The service and its portal, running; `folder` gets the portal's certificates."""
    service = FakeIta()
    service.ca, context = _portal_tls(folder)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(_server(service.answer, None))
        service.api = f"http://127.0.0.1:{port}"
        port = stack.enter_context(_server(service.answer, context))
        service.portal = f"https://localhost:{port}"
        yield service


@contextlib.contextmanager
def fake_guest() -> Iterator[FakeGuest]:
    """The guest's REST server, running."""
    guest = FakeGuest()
    with _server(lambda path, _headers, _body: guest.answer(path), None) as port:
        guest.url = f"http://127.0.0.1:{port}"
        yield guest


@contextlib.contextmanager
def _server(
    answer: Callable[[str, Mapping[str, str], bytes], Answer], context: ssl.SSLContext | None
) -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status, said = answer(self.path, dict(self.headers.items()), body)
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

        do_POST = do_GET  # noqa: N815 - the library's name

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *args: object) -> None:
            """Clients that break off are no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _portal_tls(folder: pathlib.Path) -> tuple[pathlib.Path, ssl.SSLContext]:
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = _certificate("fake portal CA", ca_key, "fake portal CA", ca_key, is_ca=True)
    leaf = _certificate("localhost", key, "fake portal CA", ca_key, is_ca=False)
    ca_path, chain = folder / "portal-ca.pem", folder / "portal.pem"
    ca_path.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain.write_bytes(private + leaf.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return ca_path, context


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    usage = x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )  # Python 3.13 refuses an authority without it
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
