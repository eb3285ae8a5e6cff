"""Peers that have finished the handshake and then keep us busy: what each costs, and who waits."""

from __future__ import annotations

import pathlib
import socket
import ssl
import struct
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tng.dataplane.ends import BLOCKED
from tng.dataplane.mux import FRAMES_PER_READ, SMALLEST_READ, MuxConnection
from tng.dataplane.plain import PlainEnd
from tng.dataplane.task import Wait
from tng.dataplane.tls import TlsEnd
from tng.dataplane.tls_calls import FASTEST, PUBLIC
from tng.dataplane.tls_context import server_context
from tng.wire.h2_frames import PREFACE
from tng.wire.h2_stream import H2Limits

HANDSHAKE, APPLICATION_DATA = 22, 23
KEY_UPDATE = bytes((24, 0, 0, 1, 1))  # update_requested, RFC 8446 section 4.6.3


class Sealer:
    """The sending side of a TLS 1.3 client, record by record (RFC 8446 sections 5.2 and 7.2)."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def record(self, kind: int, content: bytes) -> bytes:
        nonce = (int.from_bytes(self._iv, "big") ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        head = struct.pack(">BHH", APPLICATION_DATA, 0x0303, len(content) + 17)
        return head + self._cipher.encrypt(nonce, content + bytes((kind,)), head)

    def key_update(self) -> bytes:
        record = self.record(HANDSHAKE, KEY_UPDATE)
        self._use(expand(self._secret, b"traffic upd", 32))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(expand(secret, b"key", 16))
        self._iv = expand(secret, b"iv", 12)
        self._sequence = 0


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label, RFC 8446 section 7.1."""
    name = b"tls13 " + label
    info = struct.pack(">HB", size, len(name)) + name + b"\0"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def shake_hands(sock: socket.socket, keys: pathlib.Path) -> Sealer:
    """Be a TLS client up to the end of the handshake; then every record is made by hand."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.keylog_filename = str(keys)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))
    sock.sendall(outgoing.read())
    cipher = tls.cipher()
    assert cipher is not None
    assert cipher[0] == "TLS_AES_128_GCM_SHA256"
    words = keys.read_text().split()
    return Sealer(bytes.fromhex(words[words.index("CLIENT_TRAFFIC_SECRET_0") + 2]))


async def pause(reactor, seconds: float = 0.0) -> None:
    wait: Wait[None] = Wait()
    reactor.call_later(seconds, wait.set, None)
    await wait


@pytest.fixture
def hostile(reactor, sockets, credential, run, tmp_path) -> Callable[..., tuple]:
    """Makes a TLS end of ours, and the sealer and socket of its peer."""

    def make() -> tuple[TlsEnd, Sealer, socket.socket]:
        far, near = sockets()
        context = server_context([b"rats-tls"], credential, ask_client_certificate=False)

        async def begin() -> TlsEnd:
            end = TlsEnd(reactor, near, context, server_side=True)

            async def serve() -> None:
                await end.handshake(5)

            reactor.spawn(serve(), "serve")
            return end

        end = run(reactor, begin)
        return end, shake_hands(far, tmp_path / "keys"), far

    return make


@pytest.mark.skipif(FASTEST is PUBLIC, reason="pyOpenSSL's own methods read on")
def test_one_read_deals_with_one_key_update_however_many_wait(reactor, run, hostile) -> None:
    """A peer that sends nothing but key updates takes turns with everybody else."""
    end, sealer, far = hostile()
    far.sendall(b"".join(sealer.key_update() for _ in range(50)))
    far.sendall(sealer.record(APPLICATION_DATA, b"after fifty keys"))

    async def go() -> tuple[int, bytes]:
        await pause(reactor, 0.05)
        reads = 0
        buffer = memoryview(bytearray(100))
        while (count := end.read_into(buffer)) == BLOCKED:
            reads += 1
            await end.wait_readable()
        end.abort()
        return reads, bytes(buffer[:count])

    reads, data = run(reactor, go)
    assert data == b"after fifty keys"
    assert reads >= 50


def test_empty_records_without_end_are_refused(reactor, run, hostile) -> None:
    end, sealer, far = hostile()
    far.sendall(b"".join(sealer.record(APPLICATION_DATA, b"") for _ in range(1000)))

    async def go() -> str:
        try:
            while await end.receive():
                pass
        except Exception as error:  # noqa: BLE001 - its class and text are what is asked for
            return f"{type(error).__name__}: {error}"
        finally:
            end.abort()
        return "no error"

    assert run(reactor, go).startswith("RemoteProtocolError: ")


class Counting(PlainEnd):
    """A plain end that writes down how much each read was allowed to give."""

    __slots__ = ("sizes",)

    def read_into(self, buffer: memoryview) -> int:
        self.sizes.append(len(buffer))
        return super().read_into(buffer)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream_id) + payload


GREETING = PREFACE + frame(4, 0, 0)
CONNECT = frame(1, 4, 1, bytes((2, 7)) + b"CONNECT" + bytes((1, 4)) + b"t:80")
DATA = 0
WINDOW_UPDATE = 8


@pytest.fixture
def served(reactor, sockets, run):
    """A server's connection, its peer's plain socket, and why it ended."""
    far, near = sockets()
    reasons: list[str] = []
    received = bytearray()

    async def swallow(stream) -> None:
        stream.accept()
        while data := await stream.receive():
            received.extend(data)

    async def begin() -> tuple[MuxConnection, Counting]:
        end = Counting(reactor, near)
        end.sizes = []
        connection = MuxConnection(
            reactor, end, role="server", on_stream=swallow, on_closed=reasons.append
        )
        connection.start()
        return connection, end

    connection, end = run(reactor, begin)
    yield connection, end, far, reasons, received

    async def finish() -> None:
        connection.close("the test is over")
        end.abort()

    run(reactor, finish)


def wait_until(condition: Callable[[], object], reactor, run) -> None:
    async def go() -> None:
        for _ in range(400):
            if condition():
                return
            await pause(reactor, 0.01)
        raise AssertionError("did not come true in 4 s")

    run(reactor, go)


def test_frames_of_one_octet_come_in_small_reads(reactor, run, served) -> None:
    """However small the frames, one read of a connection is a few milliseconds of work."""
    _, end, far, _, received = served
    count = 50_000
    far.sendall(GREETING + CONNECT)
    far.sendall(frame(DATA, 0, 1, b"x") * count)
    wait_until(lambda: len(received) == count, reactor, run)
    frame_size = 10
    assert max(end.sizes) <= 2 * FRAMES_PER_READ * frame_size + SMALLEST_READ


def test_large_frames_come_in_large_reads(reactor, run, served) -> None:
    _, end, far, _, received = served
    count, payload = 12, bytes(16_000)
    far.sendall(GREETING + CONNECT + frame(DATA, 0, 1, payload) * count)
    wait_until(lambda: len(received) == count * len(payload), reactor, run)
    assert max(end.sizes) >= 65_536


def test_window_updates_that_answer_nothing_end_the_connection(reactor, run, served) -> None:
    _, _, far, reasons, _ = served
    limits = H2Limits()
    update = frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big"))
    far.sendall(GREETING + update * (limits.chatter_burst + 4000))
    wait_until(lambda: reasons, reactor, run)
    assert "move nothing" in reasons[0]


def test_window_updates_within_the_budget_are_fine(reactor, run, served) -> None:
    connection, _, far, reasons, received = served
    update = frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big"))
    far.sendall(GREETING + update * (H2Limits().chatter_burst - 100) + CONNECT)
    far.sendall(frame(DATA, 0, 1, b"still here"))
    wait_until(lambda: received == b"still here", reactor, run)
    assert not reasons
    assert connection.is_open
