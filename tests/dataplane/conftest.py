"""A running reactor for each test, over both pollers, and connected sockets to use in it."""

from __future__ import annotations

import contextlib
import datetime as dt
import pathlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tng.dataplane.poller import EpollPoller, Poller, SelectorsPoller
from tng.dataplane.reactor import Reactor
from tng.dataplane.tls_context import TlsCredential

TIMEOUT_S = 10.0


def _run(
    reactor: Reactor,
    coroutine_function: Callable[..., Coroutine[Any, Any, Any]],
    *args: Any,
    timeout: float = TIMEOUT_S,
) -> Any:
    return reactor.spawn_threadsafe(coroutine_function(*args), "test").result(timeout)


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    """Call with (reactor, coroutine_function, *args, timeout=10): its result, or its exception."""
    return _run


@pytest.fixture(params=[EpollPoller, SelectorsPoller], ids=["epoll", "selectors"])
def poller(request: pytest.FixtureRequest) -> Poller:
    return request.param()


@pytest.fixture
def reactor(poller: Poller) -> Iterator[Reactor]:
    """A running reactor; at its end no task and no descriptor of it may be left."""
    before = _descriptors()
    reactor = Reactor(poller)
    reactor.start()
    yield reactor
    reactor.stop(timeout_s=5)
    assert not reactor.tasks
    with contextlib.suppress(AttributeError):
        poller.close()
    extra = {fd: name for fd, name in _descriptors().items() if fd not in before}
    assert not {fd: name for fd, name in extra.items() if "eventpoll" in name or "pipe" in name}


@pytest.fixture
def sockets() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Makes connected TCP sockets over loopback; all are closed after the test."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                near = socket.create_connection(listener.getsockname(), timeout=TIMEOUT_S)
                far, _ = listener.accept()
            far.settimeout(TIMEOUT_S)
            stack.enter_context(near)
            stack.enter_context(far)
            return near, far

        yield make


@pytest.fixture(scope="session")
def credential() -> TlsCredential:
    """A self-signed certificate with a critical extension that nobody knows."""
    return _make_credential(padding=0)


@pytest.fixture(scope="session")
def make_credential() -> Callable[[int], TlsCredential]:
    """Makes credentials whose certificate carries that many octets of evidence."""
    return _make_credential


def _make_credential(padding: int) -> TlsCredential:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    extension = x509.UnrecognizedExtension(
        x509.ObjectIdentifier("2.23.133.5.4.9"), b"e" * (padding + 1)
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(42)
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=1))
        .add_extension(extension, critical=True)
        .sign(key, hashes.SHA256())
    )
    return TlsCredential(key, certificate)


def _descriptors() -> dict[str, str]:
    found = {}
    for path in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[path.name] = str(path.readlink())
    return found
