"""TLS towards servers on the web: who is believed, and for which name."""

from __future__ import annotations

import datetime as dt
import ipaddress
import pathlib
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tng.clock import FixedClock
from tng.dataplane.web_tls import WebTls
from tng.endpoint import Endpoint
from tng.errors import ConfigError, NetError

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
CLOCK = FixedClock(NOW.timestamp())


class Authority:
    """Issues certificates for names."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.certificate = self._sign(
            name, name, self.key, [x509.BasicConstraints(ca=True, path_length=0)], self.key
        )

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: pathlib.Path, *names: x509.GeneralName) -> pathlib.Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([])
        more = [x509.SubjectAlternativeName(names), x509.BasicConstraints(False, None)]
        made = self._sign(subject, self.certificate.subject, key, more, self.key)
        path = folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def _sign(self, subject, issuer, key, extensions, signer) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
        )
        public = self.key.public_key()
        extensions = [
            *extensions,
            x509.AuthorityKeyIdentifier.from_issuer_public_key(public),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        ]
        if key is self.key:
            usage = dict.fromkeys(
                [
                    "digital_signature",
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ],
                False,
            )
            extensions.append(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True))
        for extension in extensions:
            critical = isinstance(
                extension, x509.BasicConstraints | x509.KeyUsage | x509.SubjectAlternativeName
            )
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca_file(authority: Authority, tmp_path: pathlib.Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem())
    return str(path)


def talk(reactor, run, sockets, web: WebTls, pem: pathlib.Path | None, name: str) -> bytes:
    """What a server hears of a client that connects and says hello; raises what the client gets."""
    near, far = sockets()
    heard: list[bytes] = []

    def serve() -> None:
        try:
            if pem is None:
                far.recv(4096)
                far.sendall(b"HTTP/1.1 400 no TLS here\r\n\r\n")
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            context.set_alpn_protocols(["h2", "http/1.1"])
            with context.wrap_socket(far, server_side=True) as server:
                heard.append((server.selected_alpn_protocol() or "").encode() + b" ")
                heard.append(server.recv(100))
                server.sendall(b"hi")
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()

    async def work() -> None:
        end = await web.connect(near, Endpoint(name, 443))
        await end.send(b"hello")
        assert await end.receive() == b"hi"
        end.close()

    try:
        run(reactor, work)
    finally:
        thread.join(5)
        talk.heard = b"".join(heard)
    return talk.heard


DNS = x509.DNSName("gpu.example")
IP = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@pytest.mark.parametrize(("name", "host"), [(DNS, "gpu.example"), (IP, "127.0.0.1")])
def test_a_server_with_a_certificate_for_its_name_is_believed(
    reactor, run, sockets, authority, ca_file, tmp_path, name, host
) -> None:
    pem = authority.issue(tmp_path, name)
    assert talk(reactor, run, sockets, WebTls(reactor, [ca_file], CLOCK), pem, host) == (
        b"http/1.1 hello"
    )


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ([DNS], "other.example"),
        ([DNS], "127.0.0.1"),
        ([IP], "localhost"),
        ([DNS], "sub.gpu.example"),
        ([DNS], "not_a_name."),
    ],
)
def test_a_certificate_for_another_name_is_not(
    reactor, run, sockets, authority, ca_file, tmp_path, names, host
) -> None:
    pem = authority.issue(tmp_path, *names)
    with pytest.raises(NetError, match="outer certificate"):
        talk(reactor, run, sockets, WebTls(reactor, [ca_file], CLOCK), pem, host)
    assert b"hello" not in talk.heard


def test_an_unknown_authority_is_not_believed(reactor, run, sockets, authority, tmp_path) -> None:
    pem = authority.issue(tmp_path, DNS)
    with pytest.raises(NetError, match="tls_ca_certs"):
        talk(reactor, run, sockets, WebTls(reactor, [], CLOCK), pem, "gpu.example")
    assert b"hello" not in talk.heard


@pytest.mark.parametrize("days", [-2, 2])
def test_a_certificate_has_its_time(
    reactor, run, sockets, authority, ca_file, tmp_path, days: int
) -> None:
    pem = authority.issue(tmp_path, DNS)
    clock = FixedClock((NOW + dt.timedelta(days=days)).timestamp())
    with pytest.raises(NetError):
        talk(reactor, run, sockets, WebTls(reactor, [ca_file], clock), pem, "gpu.example")


def test_a_server_without_tls_is_an_error_of_the_network(reactor, run, sockets, ca_file) -> None:
    with pytest.raises(NetError):
        talk(reactor, run, sockets, WebTls(reactor, [ca_file], CLOCK), None, "gpu.example")


def test_a_file_without_certificates_is_the_operators_fault(reactor, tmp_path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"nothing")
    for path in (empty, tmp_path / "absent.pem"):
        with pytest.raises(ConfigError, match="tls_ca_certs"):
            WebTls(reactor, [str(path)], CLOCK)


def test_a_socket_that_is_closed_already_stays_closed(reactor, run, ca_file) -> None:
    sock = socket.socket()
    sock.close()
    web = WebTls(reactor, [ca_file], CLOCK)

    async def work() -> None:
        await web.connect(sock, Endpoint("h", 1))

    with pytest.raises((NetError, OSError)):
        run(reactor, work)
