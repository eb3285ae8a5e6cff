"""The library of `tng exec` in small programs, with a scripted proxy in the gateway's place."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from stage.gateways import free_port
from stage.hook_library import environment, hook_library

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
NO = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nover"


class Proxy:
    """Takes CONNECT requests, answers `answer`, then says `greeting` and echoes one message.

    Attributes:
        requests: heads that came, in the order of their arrival.
    """

    def __init__(self, answer: bytes = OK, greeting: bytes = b"") -> None:
        self.requests: list[bytes] = []
        self._answer, self._greeting = answer, greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        served = []
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                served.append(threading.Thread(target=self._serve, args=(connection,)))
                served[-1].start()
        for thread in served:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                octet = connection.recv(1)
                if not octet:
                    return
                head += octet
            self.requests.append(head)
            if b"Tng-Answer: none" not in head:
                connection.sendall(self._answer + self._greeting)
            if data := connection.recv(100):
                connection.sendall(data.upper())

    def mappings(self, *rules: dict[str, object], **more: object) -> dict[str, str]:
        """The environment that captures `rules`."""
        entry = {"proxy_port": self.port, "capture_rules": rules, "capture_local_traffic": True}
        return {"TNG_HOOK_INGRESS_MAPPINGS": json.dumps({"ingresses": [entry | more]})}


def moved(*pairs: tuple[int, int]) -> dict[str, str]:
    entries = [{"origin_port": origin, "real_port": real} for origin, real in pairs]
    return {"TNG_HOOK_EGRESS_MAPPINGS": json.dumps({"entries": entries})}


def run(code: str, more: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with the library loaded."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import socket, errno, sys\n" + code, *arguments],
        env=environment({"LD_PRELOAD": str(hook_library()), **more}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def said(code: str, more: dict[str, str], *arguments: str) -> str:
    done = run(code, more, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@contextlib.contextmanager
def listener(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """Who must not be reached, or has to be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as sock:
        yield sock


def was_reached(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        sock.accept()[0].close()
    except BlockingIOError:
        return False
    return True


ASK = """
s = socket.socket(); s.connect(("10.1.2.3", 80))
s.sendall(b"hello"); print(s.recv(99).decode(), *s.getpeername())
"""


def test_only_the_calls_it_stands_in_for_are_visible() -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm is not there")
    names = subprocess.run(
        ["nm", "-D", "--defined-only", str(hook_library())],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[2::3]
    assert sorted(names) == ["bind", "connect", "getpeername", "getsockname", "sendmsg", "sendto"]


def test_without_mappings_nothing_changes() -> None:
    with listener() as service:
        code = (
            "s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); print(s.getpeername())"
        )
        port = str(service.getsockname()[1])
        assert said(code, {}, port) == f"('127.0.0.1', {port})"
        assert was_reached(service)


def test_a_captured_connection_asks_the_proxy_and_keeps_its_peer() -> None:
    with Proxy() as proxy:
        assert (
            said(ASK, proxy.mappings({"host_cidr": "10.0.0.0/8", "port": 80}))
            == "HELLO 10.1.2.3 80"
        )
    assert proxy.requests == [b"CONNECT 10.1.2.3:80 HTTP/1.1\r\nHost: 10.1.2.3:80\r\n\r\n"]


def test_what_follows_the_answer_at_once_is_for_the_program() -> None:
    with Proxy(greeting=b"220 first") as proxy:
        code = "s = socket.socket(); s.connect(('10.1.2.3', 80)); print(s.recv(99).decode())"
        assert said(code, proxy.mappings({"port": 80})) == "220 first"


@pytest.mark.parametrize(
    "answer", [NO, b"", b"HTTP/1.1 20", b"x" * 5000, b"HTTP/1.1 2000 \r\n\r\n"]
)
def test_any_answer_but_yes_is_a_refused_connection(answer: bytes) -> None:
    code = """
s = socket.socket()
for _ in range(2):  # as after any refusal, the socket can be used again
    try: s.connect(("10.1.2.3", 80))
    except ConnectionRefusedError: print("refused")
try: s.getpeername()
except OSError as e: print(errno.errorcode[e.errno])
"""
    with Proxy(answer) as proxy:
        assert _closing(proxy, code, answer) == "refused\nrefused\nENOTCONN"


def _closing(proxy: Proxy, code: str, answer: bytes) -> str:
    if answer.endswith(b"\r\n\r\n") or len(answer) > 4096 or answer == NO:
        return said(code, proxy.mappings({"port": 80}))
    # An answer that never becomes whole ends with the connection.
    proxy._serve = lambda connection: _answer_and_close(connection, answer)  # type: ignore[method-assign]
    return said(code, proxy.mappings({"port": 80}))


def _answer_and_close(connection: socket.socket, answer: bytes) -> None:
    with connection:
        connection.recv(1000)
        connection.sendall(answer)


def test_a_gateway_that_is_gone_means_refused_and_never_a_direct_connection() -> None:
    with Proxy() as proxy:
        pass
    with listener() as service:
        port = service.getsockname()[1]
        code = """
for blocking in (True, False):
    s = socket.socket(); s.setblocking(blocking)
    print(errno.errorcode[s.connect_ex(("127.0.0.1", int(sys.argv[1])))])
"""
        mappings = proxy.mappings({"port": port}, may_be_silent=True)
        assert said(code, mappings, str(port)) == "ECONNREFUSED\nECONNREFUSED"
        assert not was_reached(service)


PATIENT = """
import select
s = socket.socket(); s.setblocking(False)
print(errno.errorcode[s.connect_ex(("10.1.2.3", 80))])
assert select.select([], [s], [], 5)[1]
print(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), *s.getpeername())
print(errno.errorcode.get(s.connect_ex(("10.1.2.3", 80)), 0))
print(errno.errorcode[s.connect_ex(("10.1.2.3", 80))])
s.setblocking(True)
s.sendall(b"hello"); print(s.recv(99).decode())
"""


def test_who_does_not_wait_is_told_in_progress_and_hears_the_service_alone() -> None:
    with Proxy() as proxy:
        words = said(PATIENT, proxy.mappings({"port": 80}, may_be_silent=True)).splitlines()
    assert words == ["EINPROGRESS", "0 10.1.2.3 80", "0", "EISCONN", "HELLO"]
    assert proxy.requests[0].endswith(b"\r\nTng-Answer: none\r\n\r\n")
    assert len(proxy.requests) == 1


def test_a_proxy_that_knows_no_silence_is_waited_for() -> None:
    code = """
s = socket.socket(); s.setblocking(False)
print(s.connect_ex(("10.1.2.3", 80)), s.getblocking(), *s.getpeername())
"""
    with Proxy() as proxy:
        assert said(code, proxy.mappings({"port": 80})) == "0 False 10.1.2.3 80"
    assert b"Tng-Answer" not in proxy.requests[0]


@pytest.mark.parametrize(
    ("family", "host", "asked"),
    [
        ("AF_INET6", "fd00::5", b"[fd00::5]:80"),
        ("AF_INET6", "::ffff:10.1.2.3", b"10.1.2.3:80"),
        ("AF_INET", "10.1.2.3", b"10.1.2.3:80"),
        ("AF_INET", "0.0.0.0", b"127.0.0.1:80"),
        ("AF_INET6", "::", b"[::1]:80"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("v6only", [0, 1])
def test_both_families_are_captured(family: str, host: str, asked: bytes, v6only: int) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    code = f"""
s = socket.socket(socket.{family})
if s.family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {v6only})
s.connect(("{host}", 80)); print(s.getpeername()[:2])
"""
    with Proxy() as proxy:
        told = said(code, proxy.mappings({"port": 80}))
    assert proxy.requests[0].startswith(b"CONNECT " + asked + b" HTTP/1.1\r\n")
    if host not in {"0.0.0.0", "::"}:
        assert told == f"('{host}', 80)"


RULES = """
results = []
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.settimeout(0.2)
    try: s.connect((host, int(port))); results.append(target)
    except OSError: pass
print(*results)
"""


@pytest.mark.parametrize(
    ("rule", "captured", "others"),
    [
        (
            {"host_cidr": "127.1.2.0/25", "port": 9},
            ["127.1.2.0:9", "127.1.2.127:9"],
            ["127.1.2.128:9", "127.1.2.1:8"],
        ),
        ({"host_cidr": "127.1.2.3", "port": 9}, ["127.1.2.3:9"], ["127.1.2.2:9"]),
        (
            {"host_cidr": "*", "port": 9, "port_end": 11},
            ["127.1.2.3:9", "127.1.2.3:11", "fd00::1:9"],
            ["127.1.2.3:8", "127.1.2.3:12"],
        ),
        ({"host_cidr": "0.0.0.0/0", "port": 9}, ["127.1.2.3:9"], ["::1:9"]),
        ({"host_cidr": "fd00::/13", "port": 9}, ["fd07::1:9"], ["fd08::1:9", "127.1.2.3:9"]),
    ],
)
def test_rules_are_networks_and_ranges_of_ports(
    rule: dict[str, object], captured: list[str], others: list[str]
) -> None:
    """Nobody listens at the others."""
    with Proxy() as proxy:
        assert said(RULES, proxy.mappings(rule), *captured, *others).split() == captured


def test_the_first_ingress_that_matches_wins() -> None:
    with Proxy() as first, Proxy() as second:
        both = [
            json.loads(proxy.mappings(rule)["TNG_HOOK_INGRESS_MAPPINGS"])["ingresses"][0]
            for proxy, rule in (
                (first, {"host_cidr": "10.1.0.0/16", "port": 80}),
                (second, {"host_cidr": "10.0.0.0/8", "port": 80}),
            )
        ]
        mappings = {"TNG_HOOK_INGRESS_MAPPINGS": json.dumps({"ingresses": both})}
        said(RULES, mappings, "10.1.2.3:80", "10.2.2.3:80")
    assert [request[8:19] for request in first.requests] == [b"10.1.2.3:80"]
    assert [request[8:19] for request in second.requests] == [b"10.2.2.3:80"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "own"])
def test_local_traffic_is_left_alone_unless_it_is_wanted(host: str) -> None:
    own = _own_address() if host == "own" else host
    with Proxy() as proxy, listener("::" if ":" in own else "0.0.0.0") as service:
        port = service.getsockname()[1]
        target = f"{own}:{port}"
        mappings = proxy.mappings({"port": port}, capture_local_traffic=False)
        assert said(RULES, mappings, target) == target
        assert was_reached(service)
        assert not proxy.requests
        said(RULES, proxy.mappings({"port": port}), target)
        assert not was_reached(service)
        assert len(proxy.requests) == 1


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has loopback alone")
        return str(probe.getsockname()[0])


def test_the_proxy_itself_is_never_captured() -> None:
    with Proxy() as proxy:
        code = (
            "s = socket.socket(); s.connect(('127.0.0.1', int(sys.argv[1]))); s.send(b'CONNECT x')"
        )
        said(code, proxy.mappings({"port": proxy.port}), str(proxy.port))
    assert proxy.requests == []


def test_datagrams_and_unix_sockets_are_left_alone(tmp_path: pathlib.Path) -> None:
    code = """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0))
port = u.getsockname()[1]
v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.connect(("127.0.0.1", port)); v.send(b"x")
print(u.recv(9).decode(), v.getpeername() == ("127.0.0.1", port))
w = socket.socket(socket.AF_UNIX); w.bind(sys.argv[1]); w.listen()
x = socket.socket(socket.AF_UNIX); x.connect(sys.argv[1]); print(x.getpeername() == sys.argv[1])
"""
    with Proxy() as proxy:
        mappings = proxy.mappings({"port": 1, "port_end": 65535}) | moved((1, 2))
        assert said(code, mappings, str(tmp_path / "s")) == "x True\nTrue"
    assert not proxy.requests


@pytest.mark.parametrize(
    "call", ["sendto(b'hello', 0x20000000, A)", "sendmsg([b'hello'], [], 0x20000000, A)"]
)
@pytest.mark.parametrize("blocking", [True, False])
def test_a_fast_open_is_captured_too(call: str, blocking: bool) -> None:
    code = f"""
A = ("10.1.2.3", 80); s = socket.socket(); s.setblocking({blocking})
print(s.{call}, *s.getpeername()); s.setblocking(True); print(s.recv(99).decode())
"""
    with Proxy() as proxy:
        mappings = proxy.mappings({"port": 80}, may_be_silent=True)
        assert said(code, mappings) == "5 10.1.2.3 80\nHELLO"


def test_fast_open_by_option_is_captured_too() -> None:
    code = ASK.replace("s.connect", "s.setsockopt(socket.IPPROTO_TCP, 30, 1); s.connect")
    with Proxy() as proxy:
        assert said(code, proxy.mappings({"port": 80})) == "HELLO 10.1.2.3 80"


def test_copies_and_children_know_the_peer() -> None:
    code = """
import os
s = socket.socket(); s.connect(("10.1.2.3", 80))
print(*s.dup().getpeername(), flush=True)
if os.fork() == 0:
    print(*s.getpeername(), flush=True); os._exit(0)
os.wait()
"""
    with Proxy() as proxy:
        assert said(code, proxy.mappings({"port": 80})) == "10.1.2.3 80\n10.1.2.3 80"


def test_threads_keep_their_connections_apart() -> None:
    code = """
import threading
wrong = []
def ask(number):
    for i in range(20):
        where = (f"10.{number}.{i}.3", 80)
        with socket.socket() as s:
            s.connect(where)
            if s.getpeername() != where: wrong.append(where)
threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(wrong))
"""
    with Proxy() as proxy:
        assert said(code, proxy.mappings({"port": 80})) == "0"
    assert len(set(proxy.requests)) == 160


def test_a_signal_does_not_tear_a_connect_apart() -> None:
    code = """
import signal
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for _ in range(30):
    with socket.socket() as s:
        s.connect(("10.1.2.3", 80)); assert s.getpeername() == ("10.1.2.3", 80)
signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
"""
    with Proxy() as proxy:
        assert said(code, proxy.mappings({"port": 80})) == "done"


@pytest.mark.parametrize(
    ("family", "host", "v6only", "real"),
    [
        ("AF_INET", "0.0.0.0", 0, "127.0.0.1"),
        ("AF_INET", "127.0.0.1", 0, "127.0.0.1"),
        ("AF_INET6", "::", 0, "127.0.0.1"),
        ("AF_INET6", "::", 1, "::1"),
    ],
)
def test_a_captured_port_is_moved_to_loopback(family, host, v6only, real) -> None:
    origin, to = free_port(), free_port()
    code = f"""
s = socket.socket(socket.{family}); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if s.family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, {v6only})
s.bind(("{host}", {origin})); print(s.getsockname()[:2]); s.listen(); print(s.getsockname()[:2])
c = socket.create_connection(("{real}", {to})); a, _ = s.accept()
print(a.getsockname()[1], c.getpeername()[1]); print(a.getsockname()[0].removeprefix("::ffff:"))
try: socket.create_connection(("{real}", {origin})); print("reached")
except ConnectionRefusedError: print("moved")
"""
    told = f"('{host}', {origin})"
    words = said(code, moved((origin, to))).splitlines()
    assert words == [told, told, f"{origin} {to}", real, "moved"]


def test_other_ports_are_not_moved() -> None:
    origin, to, other = free_port(), free_port(), free_port()
    code = f"s = socket.socket(); s.bind(('0.0.0.0', {other})); print(*s.getsockname())"
    assert said(code, moved((origin, to))) == f"0.0.0.0 {other}"


def test_an_address_is_cut_to_the_room_that_the_program_gives() -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(); s.connect(("10.1.2.3", 80))
room = ctypes.create_string_buffer(b"\\xff" * 16, 16); length = ctypes.c_uint32(4)
print(libc.getpeername(s.fileno(), room, ctypes.byref(length)), length.value, room.raw[:5].hex())
print(libc.getpeername(s.fileno(), None, None), errno.errorcode[ctypes.get_errno()])
print(libc.connect(999, None, 0), errno.errorcode[ctypes.get_errno()])
"""
    with Proxy() as proxy:
        words = said(code, proxy.mappings({"port": 80})).splitlines()
    assert words == ["0 16 02000050ff", "-1 EFAULT", "-1 EBADF"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}}", '{"ingresses":1}', '{"ingresses":[}', '{"unknown":[]}',
        '{"ingresses":[{"capture_rules":[]}]}', '{"ingresses":[{"proxy_port":0}]}',
        '{"ingresses":[{"proxy_port":65536}]}', '{"ingresses":[{"proxy_port":"1"}]}',
        '{"ingresses":[{"proxy_port":1,"capture_rules":[{}]}]}',
        '{"ingresses":[{"proxy_port":1,"capture_rules":[{"port":2,"port_end":1}]}]}',
        '{"ingresses":[{"proxy_port":1,"capture_rules":[{"port":2,"host_cidr":"10.0.0.0/33"}]}]}',
        '{"ingresses":[{"proxy_port":1,"capture_rules":[{"port":2,"host_cidr":"10.0.0.0/"}]}]}',
        '{"ingresses":[{"proxy_port":1,"capture_rules":[{"port":2,"host_cidr":"name"}]}]}',
        '{"ingresses":[{"proxy_port":1,"capture_local_traffic":1}]}',
        '{"ingresses":[{"proxy_port":1,"a key that is longer than any that there is":1}]}',
        '{"ingresses":[],"ingresses":[{"proxy_port":1}],"ingresses":[]}',
        '{"ingresses":[{"proxy_port":1}] "x"}',
    ],
)  # fmt: skip
def test_mappings_that_are_not_understood_end_the_program(text: str) -> None:
    done = run("print('ran')", {"TNG_HOOK_INGRESS_MAPPINGS": text})
    assert done.returncode == 127
    assert re.fullmatch(r"libtng_hook: TNG_HOOK_INGRESS_MAPPINGS or .*\n", done.stderr)
    assert done.stdout == ""


def test_the_asyncio_client_of_python_is_captured() -> None:
    code = """
import asyncio
async def ask(number):
    reader, writer = await asyncio.open_connection(f"10.1.2.{number}", 80)
    writer.write(b"hello"); await writer.drain()
    answer = await reader.read(99); peer = writer.get_extra_info("peername"); writer.close()
    return answer.decode(), peer == (f"10.1.2.{number}", 80)
async def main(): return await asyncio.gather(*map(ask, range(1, 30)))
print(set(asyncio.run(main())))
"""
    with Proxy() as proxy:
        assert said(code, proxy.mappings({"port": 80}, may_be_silent=True)) == "{('HELLO', True)}"
