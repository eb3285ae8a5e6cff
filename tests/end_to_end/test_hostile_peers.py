"""Clients and peers that misbehave in front of gateways that run as processes of their own.

Held after each of them: the process lives, serves the next honest client at once, lets go of
descriptors, and is idle when nobody asks for anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import pathlib
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import stage.service
from stage.certificates import write_pem
from stage.gateways import free_port, http_proxy, mapping, serving
from stage.judges import Judge
from stage.processes import launched, running
from stage.recorder import Recorder
from stage.tls_records import client_context, shake_hands
from stage.vitals import busy_share, is_alive, open_descriptors, resident_octets
from tng.wire.h2_frames import PREFACE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
SERVICE = str(pathlib.Path(stage.service.__file__))
IDLE_SHARE = 0.1
"""Of a core: what an idle process may use, with room for a tick of the system's own accounting."""

POOLED = 25
"""Shared connections that stay for their idle minute: 2,000 streams at 100 each, and some."""

RESET = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True)
class Pair:
    """An ingress and an egress in front of `stage.service`."""

    way_in: int
    tunnel: int
    pids: dict[str, int]
    multiplexed: bool

    def connect(self, *words: object) -> socket.socket:
        """A connection through both, with its first line sent."""
        sock = socket.create_connection(("127.0.0.1", self.way_in), 10)
        if words:
            sock.sendall(" ".join(map(str, words)).encode() + b"\n")
        return sock

    def dial_egress(self, alpn: str | None = None) -> ssl.SSLSocket:
        """A TLS connection to the egress, by a client of another make."""
        plain = socket.create_connection(("127.0.0.1", self.tunnel), 10)
        context = client_context([alpn or ("h2" if self.multiplexed else "rats-tls")])
        return context.wrap_socket(plain)

    def memory(self) -> dict[str, int]:
        return {name: resident_octets(pid) for name, pid in self.pids.items()}

    def descriptors(self) -> dict[str, int]:
        return {name: open_descriptors(pid) for name, pid in self.pids.items()}

    def works(self) -> float:
        """An honest client is served; the seconds it took."""
        began = time.monotonic()
        with self.connect("SWALLOW") as sock:
            sock.sendall(b"honest")
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(100)
        assert answer == f"6 {hashlib.sha256(b'honest').hexdigest()}\n".encode()
        return time.monotonic() - began


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def service(folder: pathlib.Path) -> Iterator[int]:
    port = free_port()
    with running(folder, "service", SERVICE, str(port)):
        wait_until(lambda: is_listening(port))
        yield port


@contextlib.contextmanager
def make_pair(folder: pathlib.Path, service: int, *, multiplexed: bool) -> Iterator[Pair]:
    way_in, tunnel = free_port(), free_port()
    options = {"rats_tls": {"multiplex": multiplexed}, "no_ra": True}
    name = "multiplexed" if multiplexed else "raw"
    egress = {"add_egress": [{**mapping(tunnel, service), **options}]}
    ingress = {"add_ingress": [{**mapping(way_in, tunnel), **options}]}
    with (
        launched(folder, f"egress-{name}", egress, free_port()) as out,
        launched(folder, f"ingress-{name}", ingress, free_port()) as into,
    ):
        pids = {"ingress": into.popen.pid, "egress": out.popen.pid}
        pair = Pair(way_in, tunnel, pids, multiplexed)
        pair.works()
        yield pair


@pytest.fixture(scope="module")
def raw(folder: pathlib.Path, service: int) -> Iterator[Pair]:
    with make_pair(folder, service, multiplexed=False) as made:
        yield made


@pytest.fixture(scope="module")
def shared(folder: pathlib.Path, service: int) -> Iterator[Pair]:
    with make_pair(folder, service, multiplexed=True) as made:
        yield made


@pytest.fixture(params=["raw", "multiplexed"])
def pair(request: pytest.FixtureRequest, raw: Pair, shared: Pair) -> Iterator[Pair]:
    """Both pairs in turn; whatever the test did, they must get over it."""
    yield from watched(raw if request.param == "raw" else shared)


@pytest.fixture
def multiplexed(shared: Pair) -> Iterator[Pair]:
    yield from watched(shared)


def watched(pair: Pair) -> Iterator[Pair]:
    pair.works()
    before = pair.descriptors()
    slack = POOLED if pair.multiplexed else 2
    yield pair
    assert pair.works() < 2.0
    for name, pid in pair.pids.items():
        wait_until(lambda name=name: pair.descriptors()[name] <= before[name] + slack, 12)
        assert is_alive(pid)
    wait_until(lambda: busy_share(0.2, *pair.pids.values()) < IDLE_SHARE)


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


def send_until_stuck(sock: socket.socket, most: int) -> int:
    """Send until nothing is taken for a while; octets sent."""
    sock.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += sock.send(stage.service.BLOCK)
    return sent


def hears_the_end(sock: socket.socket, seconds: float = 10.0) -> bool:
    """Whether the peer ends or resets the connection in time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            if not sock.recv(65536):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def tell(figure: str) -> None:
    """Show a measured figure in the test's output (`pytest -s`, or when the test fails)."""
    sys.stdout.write(figure + "\n")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBL", kind, flags, stream_id) + payload


GREETING = PREFACE + frame(4, 0, 0)
CONNECT_BLOCK = bytes((2, 7)) + b"CONNECT" + bytes((1, 4)) + b"t:80"


def open_stream(number: int) -> bytes:
    return frame(1, 4, 2 * number + 1, CONNECT_BLOCK)


# -- before and at the edge of the handshake -------------------------------------------------------


def test_unfinished_handshakes_hold_up_nobody(pair: Pair) -> None:
    hello = bytes((22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3))
    with contextlib.ExitStack() as stack:
        for number in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", pair.tunnel), 5))
            sock.sendall(hello[: number % len(hello)])
        assert pair.works() < 2.0


def test_octets_that_are_not_tls_end_their_connection_alone(pair: Pair) -> None:
    with pair.connect("ECHO") as honest:
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(range(256)) * 64,
            b"\x16\x03\x01\xff\xff" * 9,
        ):
            with socket.create_connection(("127.0.0.1", pair.tunnel), 5) as sock:
                sock.sendall(garbage)
                assert hears_the_end(sock)
        honest.sendall(b"still here")
        assert honest.recv(100) == b"still here"


def test_garbage_in_place_of_records_ends_its_connection_alone(pair: Pair) -> None:
    with pair.connect("ECHO") as honest:
        tls = pair.dial_egress()
        plain = socket.socket(fileno=tls.detach())
        with plain:
            plain.sendall(bytes(range(256)) * 64)
            assert hears_the_end(plain)
        honest.sendall(b"still here")
        assert honest.recv(100) == b"still here"


def test_clients_that_leave_at_once_leave_nothing_behind(pair: Pair) -> None:
    for number in range(200):
        sock = socket.create_connection(("127.0.0.1", pair.way_in), 10)
        if number % 4 == 0:
            sock.sendall(b"ECHO\n")
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()


def test_clients_that_only_end_their_half_are_served_to_the_end(pair: Pair) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(pair.connect("SWALLOW")) for _ in range(100)]
        for sock in socks:
            sock.shutdown(socket.SHUT_WR)
        assert all(sock.recv(100).startswith(b"0 ") for sock in socks)


# -- after the handshake ---------------------------------------------------------------------------


def test_a_flood_of_key_updates_does_not_hold_up_others(pair: Pair, tmp_path: pathlib.Path) -> None:
    with socket.create_connection(("127.0.0.1", pair.tunnel), 10) as sock:
        alpn = "h2" if pair.multiplexed else "rats-tls"
        sealer = shake_hands(sock, tmp_path / "keys", [alpn])
        flood = b"".join(sealer.key_update() for _ in range(20_000))
        sock.setblocking(False)
        slowest = 0.0
        with pair.connect("ECHO") as honest:
            while flood:
                with contextlib.suppress(BlockingIOError):
                    flood = flood[sock.send(flood[:65536]) :]
                began = time.monotonic()
                honest.sendall(b"tick")
                assert honest.recv(100) == b"tick"
                slowest = max(slowest, time.monotonic() - began)
        tell(f"slowest echo during the flood: {1000 * slowest:.1f} ms")
        assert slowest < 1.0


FLOODS = {
    "settings": frame(4, 0, 0, struct.pack(">HL", 4, 1 << 20)),
    "settings acknowledged": frame(4, 1, 0),
    "ping": frame(6, 0, 0, b"ping-png"),
    "rst_stream": frame(3, 0, 1, bytes(4)),
    "window_update": frame(8, 0, 0, (1).to_bytes(4, "big")),
    "continuation": frame(1, 0, 1, CONNECT_BLOCK) + frame(9, 0, 1) * 50,
    "empty data": open_stream(0) + frame(0, 0, 1) * 50,
    "priority": frame(2, 0, 1, bytes(5)),
    "unknown": frame(77, 0, 1, b"x"),
    "requests that are none": frame(1, 4, 1, b"\x82"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_useless_frames_end_their_connection_alone(name: str, multiplexed: Pair) -> None:
    flood = FLOODS[name] * (200_000 // len(FLOODS[name]))
    with multiplexed.connect("ECHO") as honest, multiplexed.dial_egress() as sock:
        slowest = 0.0
        with contextlib.suppress(OSError):
            sock.sendall(GREETING + open_stream(0))
            for _ in range(100):
                sock.settimeout(1)
                sock.sendall(flood)
                began = time.monotonic()
                honest.sendall(b"tick")
                assert honest.recv(100) == b"tick"
                slowest = max(slowest, time.monotonic() - began)
        honest.sendall(b"still here")
        assert honest.recv(100) == b"still here"
        assert slowest < 1.0
        assert hears_the_end(sock)


def test_streams_that_are_opened_and_reset_at_once_are_bounded(multiplexed: Pair) -> None:
    with multiplexed.connect("ECHO") as honest, multiplexed.dial_egress() as sock:
        slowest, number = 0.0, 0
        with contextlib.suppress(OSError):
            sock.sendall(GREETING)
            sock.settimeout(5)
            while number < 20_000:
                numbers = range(number, number + 200)
                sock.sendall(
                    b"".join(open_stream(n) + frame(3, 0, 2 * n + 1, bytes(4)) for n in numbers)
                )
                number = numbers.stop
                began = time.monotonic()
                honest.sendall(b"tick")
                assert honest.recv(100) == b"tick"
                slowest = max(slowest, time.monotonic() - began)
        tell(f"{number} streams opened and reset, slowest echo: {1000 * slowest:.1f} ms")
        assert slowest < 1.0


def test_octets_one_by_one_do_not_hold_up_others(multiplexed: Pair) -> None:
    """They are legal, and cost the most for what they move."""
    octets = frame(0, 0, 1, b"x") * 20_000
    with multiplexed.connect("ECHO") as honest, multiplexed.dial_egress() as sock:
        sock.sendall(GREETING + open_stream(0) + frame(0, 0, 1, b"SWALLOW\n"))
        sock.setblocking(False)
        slowest, sent = 0.0, 0
        ends_at = time.monotonic() + 1.0
        while time.monotonic() < ends_at:
            with contextlib.suppress(ssl.SSLWantWriteError):
                sent += sock.send(octets)
            began = time.monotonic()
            honest.sendall(b"tick")
            assert honest.recv(100) == b"tick"
            slowest = max(slowest, time.monotonic() - began)
        tell(f"{sent} octets of small frames, slowest echo: {1000 * slowest:.1f} ms")
        assert slowest < 1.0


def test_a_peer_that_asks_and_never_reads_is_dropped(multiplexed: Pair) -> None:
    before = multiplexed.memory()["egress"]
    with multiplexed.dial_egress() as sock:
        with contextlib.suppress(OSError):
            sock.sendall(GREETING)
            for number in range(100):
                sock.sendall(open_stream(number))
                line = b"FLOOD %d\n" % (1 << 30)
                sock.sendall(frame(0, 0, 2 * number + 1, line))
            sock.settimeout(1)
            while True:
                sock.sendall(frame(6, 0, 0, b"ping-png") * 1000)
        assert multiplexed.works() < 2.0
        assert multiplexed.memory()["egress"] - before < 24 * MIB


# -- many, and slow --------------------------------------------------------------------------------


def test_readers_that_stall_cost_no_more_than_their_windows(pair: Pair) -> None:
    """Each is offered 1 GiB."""
    count = 5
    before = pair.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(pair.connect("FLOOD", 1 << 30))
        time.sleep(1.0)
        grown = {name: now - before[name] for name, now in pair.memory().items()}
        tell(f"{count} stalled downloads: {grown}")
        assert max(grown.values()) < count * 4 * MIB
        assert pair.works() < 2.0


def test_services_that_stall_cost_no_more_than_their_windows(pair: Pair) -> None:
    """Each is offered 1 GiB."""
    count = 5
    before = pair.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(pair.connect("SINK"))
            assert send_until_stuck(sock, 1 << 30) < 64 * MIB
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        grown = {name: now - before[name] for name, now in pair.memory().items()}
        tell(f"{count} stalled uploads: {grown}")
        assert max(grown.values()) < count * 4 * MIB
        assert pair.works() < 2.0


def test_a_reader_that_stalled_gets_every_octet(pair: Pair) -> None:
    blocks = 64
    with pair.connect("FLOOD", blocks * len(stage.service.BLOCK)) as sock:
        time.sleep(0.5)
        digest = hashlib.sha256()
        while data := sock.recv(1 << 18):
            digest.update(data)
    assert digest.digest() == hashlib.sha256(stage.service.BLOCK * blocks).digest()


def test_thousands_of_idle_connections_are_cheap(pair: Pair) -> None:
    count = 2000 if pair.multiplexed else 400  # each of those is a handshake
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * count:
        pytest.skip(f"needs {2 * count} open files, the limit is {soft}")
    before = pair.memory()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(pair.connect("ECHO")) for _ in range(count)]
        for sock in socks:
            sock.sendall(b"x")
        assert all(sock.recv(1) == b"x" for sock in socks)
        each = {n: (now - before[n]) // count for n, now in pair.memory().items()}
        tell(f"octets per idle connection: {each}")
        assert max(each.values()) < 64 * 1024
        wait_until(lambda: busy_share(0.3, *pair.pids.values()) < IDLE_SHARE)
        assert pair.works() < 2.0


READ_ON = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"FLOOD %d\\n" % (1 << 40))
sock.recv(1)
print("moving", flush=True)
buffer = bytearray(1 << 20)
while sock.recv_into(buffer):
    pass
"""


def test_a_bulk_stream_does_not_delay_tokens(pair: Pair) -> None:
    streams, messages, gap = 20, 100, 0.02
    command = [sys.executable, "-c", READ_ON, str(pair.way_in)]
    late: list[float] = []
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as bulk,
        contextlib.ExitStack() as stack,
    ):
        try:
            assert bulk.stdout is not None
            bulk.stdout.readline()
            open_ones = {
                stack.enter_context(pair.connect("TOKENS", messages, gap)): b""
                for _ in range(streams)
            }
            late = read_tokens(open_ones)
        finally:
            bulk.kill()
    late.sort()
    median, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    tell(f"tokens beside bulk: median {1000 * median:.2f} ms, p99 {1000 * p99:.2f} ms")
    assert len(late) == streams * messages
    assert p99 < 0.25


def read_tokens(open_ones: dict[socket.socket, bytes]) -> list[float]:
    """Read every stream to its end; how many seconds each message was under way."""
    late = []
    poll = select.epoll()
    by_number = {sock.fileno(): sock for sock in open_ones}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    with poll:
        while by_number:
            ready = poll.poll(10)
            assert ready, "no token for 10 s"
            now = time.monotonic_ns()
            for number, _ in ready:
                sock = by_number[number]
                data = sock.recv(4096)
                if not data:
                    poll.unregister(number)
                    del by_number[number]
                    continue
                held = open_ones[sock] + data
                while len(held) >= 20:
                    late.append((now - int(held[:20])) / 1e9)
                    held = held[20:]
                open_ones[sock] = held
    return late


# -- resources that end ----------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["ingress", "egress"])
def test_running_out_of_descriptors_ends_nothing_that_is_established(side: str, pair: Pair) -> None:
    pid = pair.pids[side]
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with pair.connect("ECHO") as honest, contextlib.ExitStack() as stack:
        honest.sendall(b"before")
        assert honest.recv(100) == b"before"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_descriptors(pid) + 20, old[1]))
        try:
            for _ in range(200):
                # Who is not served is reset, perhaps before connecting has returned.
                with contextlib.suppress(ConnectionError):
                    sock = socket.create_connection(("127.0.0.1", pair.way_in), 5)
                    stack.enter_context(sock)
                    sock.sendall(b"ECHO\n")
            assert busy_share(0.5, pid) < 0.5
            honest.sendall(b"meanwhile")
            assert honest.recv(100) == b"meanwhile"
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, old)


def oversized_pem(folder: pathlib.Path) -> pathlib.Path:
    """A self-signed certificate of more than 100 KiB, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "large")])
    now = dt.datetime.now(dt.UTC)
    evidence = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.23.133.5.4.9"), bytes(110_000))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(minutes=30))
        .add_extension(evidence, critical=False)
        .sign(key, hashes.SHA256())
    )
    return write_pem(folder, key, certificate)


async def test_a_certificate_list_that_is_too_large_is_named_as_such(
    tmp_path: pathlib.Path,
) -> None:
    judge = Judge()
    verify = {"as_addr": "http://127.0.0.1:9/as", "policy_ids": ["default"]}
    port = free_port()
    config = {"add_ingress": [{**http_proxy(port), "verify": verify}]}
    with Recorder(oversized_pem(tmp_path)) as peer, trio.fail_after(10):
        request = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % peer.port
        async with (
            serving(config, judge),
            await trio.open_tcp_stream("127.0.0.1", port) as client,
        ):
            await client.send_all(request)
            heard = b"".join([chunk async for chunk in client])
    assert heard.startswith(b"HTTP/1.1 502 ")
    assert b"over 100 KiB" in heard
    assert judge.asked == 0
    assert not peer.recorded


# -- everything at once ----------------------------------------------------------------------------


def test_a_short_soak_loses_and_keeps_nothing(tmp_path: pathlib.Path) -> None:
    """What `tools/soak` runs for hours, for some seconds; the egress is killed once."""
    command = [sys.executable, "-bb", "-X", "dev", str(ROOT / "tools/soak.py")]
    options = ["--seconds", "5", "--kill-egress-every", "3", "--logs", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    tell(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("soak passed\n")
