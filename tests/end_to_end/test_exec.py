"""`tng exec` around programs that people run: clients on one side, servers on the other."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from stage.gateways import free_port, listen, mapping
from stage.hook_library import environment
from stage.octet_service import octet_service, octets
from stage.processes import START_TIMEOUT_S, Process, get, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.cli.stand_in import NAME
from tng.clock import SystemClock

pytestmark = pytest.mark.slow

NO_RA = {"no_ra": True}
REFERENCE = pathlib.Path(__file__).resolve().parents[2] / ".reference" / "bin" / "tng"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that the tests start find the library, and no proxy."""
    made = environment()
    for name in set(os.environ) - set(made):
        monkeypatch.delenv(name)
    for name, value in made.items():
        monkeypatch.setenv(name, value)


def program(name: str) -> str:
    """Where a program is; the test is skipped where it is not."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def command(config: dict[str, object], *words: str) -> list[str]:
    return ["-m", "tng", "exec", "--config-content", json.dumps(config), "--", *words]


def client_side(port: int, **trust: object) -> dict[str, object]:
    hook = {"capture_dst": {"host": "127.0.0.0/8", "port": port}, "capture_local_traffic": True}
    return {"add_ingress": [{"hook": hook, **(trust or NO_RA)}]}


def service_side(port: int, *, local: bool = True, **trust: object) -> dict[str, object]:
    hook = {"capture_listen": [{"port": port}], "capture_local_traffic": local}
    return {"add_egress": [{"hook": hook, **(trust or NO_RA)}]}


def run(config: dict[str, object], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command(config, *words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def launched_mapping(folder: pathlib.Path, target: int) -> Iterator[int]:
    """An egress of `tng launch` in front of a service; its port."""
    port, control = free_port(), free_port()
    config = {
        "add_egress": [{**mapping(port, target), **NO_RA}],
        "control_interface": {"restful": listen(control)},
    }
    words = ["-m", "tng", "launch", "--config-content", json.dumps(config)]
    with running(folder, "egress", *words) as process:
        process.await_http(control, "/readyz")
        yield port


@contextlib.contextmanager
def tunnel_to(folder: pathlib.Path, port: int) -> Iterator[int]:
    """An ingress of `tng launch` that leads to `port`; its port."""
    entrance, control = free_port(), free_port()
    config = {
        "add_ingress": [{**mapping(entrance, port), **NO_RA}],
        "control_interface": {"restful": listen(control)},
    }
    words = ["-m", "tng", "launch", "--config-content", json.dumps(config)]
    with running(folder, "ingress", *words) as process:
        process.await_http(control, "/readyz")
        yield entrance


def await_listening(process: Process, port: int) -> None:
    """Wait until the moved program is reached through `port`."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        assert process.popen.poll() is None, process.log
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                if not sock.recv(1):  # the gateway is there, the program is not
                    continue
            return
        time.sleep(0.02)
    raise AssertionError(process.log)


# -- clients -----------------------------------------------------------------------------


def test_curl_goes_through_the_tunnel(tmp_path: pathlib.Path) -> None:
    curl = program("curl")
    with octet_service() as service, launched_mapping(tmp_path, service.port) as port:
        url = f"http://127.0.0.1:{port}/octets/300000"
        words = ["-sS", "-o", str(tmp_path / "got"), "-w", "%{remote_ip}:%{remote_port}", url]
        done = run(client_side(port), curl, *words)
        assert (done.returncode, done.stdout) == (0, f"127.0.0.1:{port}")
        assert (tmp_path / "got").read_bytes() == octets(300_000)
        assert "(hook)" in done.stderr


ASYNCIO = """
import asyncio, sys
async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert writer.get_extra_info("peername") == ("127.0.0.1", port)
    writer.write(b"GET /octets/1000 HTTP/1.0\\r\\n\\r\\n")
    answer = await reader.read(); writer.close()
    return len(answer.partition(b"\\r\\n\\r\\n")[2])
async def main(port):
    print(sum(await asyncio.gather(*(ask(port) for _ in range(20)))))
asyncio.run(main(int(sys.argv[1])))
"""


def test_an_asyncio_client_goes_through_the_tunnel(tmp_path: pathlib.Path) -> None:
    with octet_service() as service, launched_mapping(tmp_path, service.port) as port:
        done = run(client_side(port), sys.executable, "-c", ASYNCIO, str(port))
    assert (done.returncode, done.stdout) == (0, "20000\n")
    assert done.stderr.count("encrypted=true") == 20


@pytest.mark.parametrize("patience", ["5", "None"])
def test_a_failure_is_one_that_the_program_understands(patience: str) -> None:
    """Refused where the program waits; a reset where it does not."""
    port = free_port()
    code = f"""
import socket
try:
    s = socket.create_connection(("127.0.0.1", {port}), {patience}); s.sendall(b"x"); s.recv(1)
except ConnectionError as error: print(type(error).__name__)
"""
    done = run(client_side(port), sys.executable, "-c", code)
    expected = "ConnectionRefusedError" if patience == "None" else "ConnectionResetError"
    assert (done.returncode, done.stdout) == (0, f"{expected}\n")
    assert "code=upstream_unreachable" in done.stderr


def test_what_the_program_starts_is_captured_too(tmp_path: pathlib.Path) -> None:
    curl = program("curl")
    with octet_service() as service, launched_mapping(tmp_path, service.port) as port:
        script = f"{curl} -sS http://127.0.0.1:{port}/octets/3 | wc -c; exit 7"
        done = run(client_side(port), "/bin/sh", "-c", script)
    assert (done.returncode, done.stdout.strip()) == (7, "3")


# -- services ----------------------------------------------------------------------------


def test_nginx_is_reached_through_the_tunnel_alone(tmp_path: pathlib.Path) -> None:
    nginx, port = program("nginx"), free_port()
    (tmp_path / "index.html").write_text("from nginx")
    (tmp_path / "nginx.conf").write_text(f"""
        daemon off; master_process on; worker_processes 2; pid {tmp_path}/pid; user root;
        error_log stderr warn; events {{ worker_connections 64; }}
        http {{
            access_log off; root {tmp_path};
            client_body_temp_path {tmp_path}/a; proxy_temp_path {tmp_path}/b;
            fastcgi_temp_path {tmp_path}/c; uwsgi_temp_path {tmp_path}/d;
            scgi_temp_path {tmp_path}/e;
            server {{ listen {port}; listen [::]:{port}; }}
        }}""")
    (tmp_path / "index.html").chmod(0o644)
    words = command(service_side(port), nginx, "-c", str(tmp_path / "nginx.conf"))
    with running(tmp_path, "nginx", *words) as process, tunnel_to(tmp_path, port) as entrance:
        await_listening(process, entrance)
        assert get(entrance, "/index.html") == (200, b"from nginx")
        assert get(port, "/index.html") == (None, b"")  # plain, and therefore refused
        assert process.stop() == 0  # nginx ends so on SIGTERM


def test_redis_is_reached_through_the_tunnel_alone(tmp_path: pathlib.Path) -> None:
    redis, port = program("redis-server"), free_port()
    words = [
        redis,
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(tmp_path),
        "--bind",
        "*",
        "-::*",
    ]
    config = service_side(port)
    with (
        running(tmp_path, "redis", *command(config, *words)) as process,
        tunnel_to(tmp_path, port) as entrance,
    ):
        await_listening(process, entrance)
        assert _ask_redis(entrance) == b"+PONG\r\n"
        with contextlib.suppress(ConnectionError):
            assert _ask_redis(port) == b""
        assert process.stop() == 0


def _ask_redis(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b"PING\r\n")
        return sock.recv(100)


def test_a_model_server_behind_an_attested_tunnel(tmp_path: pathlib.Path) -> None:
    """As `tng exec ... -- vllm serve ...`; the client is under `tng exec` as well."""
    curl, port, judge = program("curl"), free_port(), free_port()
    SimulatedPlatform.create(tmp_path / "platform", now=int(SystemClock().now()))
    trustee = ["--listen", f"127.0.0.1:{judge}", "--state", str(tmp_path / "trustee")]
    trustee += ["--allow-simulated", str(tmp_path / "platform")]
    attest = {"aa_type": "simulated", "simulated_platform": str(tmp_path / "platform")}
    verify = {
        "as_addr": f"http://127.0.0.1:{judge}/as/",
        "policy_ids": ["default"],
        "allow_simulated": True,
    }
    server = [sys.executable, "-m", "tng.cli.stand_in", "--port", str(port)]
    served = command(service_side(port, attest=attest), *server)
    with (
        running(tmp_path, "as", "-m", "tng", "trustee", *trustee) as appraiser,
        running(tmp_path, "server", *served) as process,
    ):
        appraiser.await_http(judge, "/as/certificate")
        words = [curl, "-sS", "--retry", "20", "--retry-delay", "1", "--retry-all-errors"]
        done = run(client_side(port, verify=verify), *words, f"http://127.0.0.1:{port}/v1/models")
        assert done.returncode == 0, done.stderr
        assert NAME in done.stdout
        assert "attested=true" in done.stderr
        # Another judge has never heard of this platform.
        stranger = verify | {"allow_simulated": False}
        done = run(client_side(port, verify=stranger), *words[:2], f"http://127.0.0.1:{port}/")
        assert done.returncode != 0
        assert done.stdout == ""
        assert process.stop() == 0


def test_local_clients_of_a_service_are_served_in_plain(tmp_path: pathlib.Path) -> None:
    port = free_port()
    server = [sys.executable, "-m", "tng.cli.stand_in", "--port", str(port)]
    config = service_side(port, local=False)
    with running(tmp_path, "server", *command(config, *server)) as process:
        process.await_http(port, "/health")
        assert "encrypted=false" in process.log


# -- the reference -----------------------------------------------------------------------


@pytest.mark.interop
@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference is not there: tools/reference")
def test_the_reference_and_we_speak_with_programs_alike(tmp_path: pathlib.Path) -> None:
    """Its `exec` with our library, and what it tells the program."""
    with octet_service() as service, launched_mapping(tmp_path, service.port) as port:
        config = client_side(port) | {"add_egress": service_side(free_port())["add_egress"]}
        script = "env; " + program("curl") + f" -sS http://127.0.0.1:{port}/octets/300 | wc -c"
        words = ["exec", "--config-content", json.dumps(config), "--", "/bin/sh", "-c", script]
        theirs = subprocess.run(
            [str(REFERENCE), *words], capture_output=True, text=True, timeout=30, check=True
        )
        ours = run(config, "/bin/sh", "-c", script)
    assert theirs.stdout.split()[-1] == "300" or "\n300\n" in theirs.stdout
    assert ours.stdout.split()[-1] == "300"
    assert _without_ports(theirs.stdout) == _without_ports(ours.stdout)


def _without_ports(output: str) -> list[object]:
    """What is captured, in the order of the variables' names."""
    found = {}
    for line in output.splitlines():
        name, _, value = line.partition("=")
        if name.startswith("TNG_HOOK_") and name.endswith("_MAPPINGS"):
            (found[name],) = json.loads(value).values()
            for entry in found[name]:
                for changing in ("proxy_port", "real_port", "may_be_silent"):
                    entry.pop(changing, None)
    return sorted(found.items())


# -- the program's end -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_the_exit_status_is_that_of_the_program(script: str, status: int) -> None:
    assert run(client_side(free_port()), "/bin/sh", "-c", script).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_on_to_the_program(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('waiting', flush=True)\n"
        "while True: time.sleep(0.01)"
    )
    words = command(client_side(free_port()), sys.executable, "-c", code)
    with running(tmp_path, "program", *words) as process:
        end = time.monotonic() + START_TIMEOUT_S
        while "waiting" not in process.log and time.monotonic() < end:
            time.sleep(0.01)
        process.popen.send_signal(number)
        assert process.wait() == 42


IN_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

COUNTING = """
import signal, time
hits = []
signal.signal(signal.SIGINT, lambda *_: hits.append(1))
print("waiting", flush=True)
while not hits: time.sleep(0.01)
time.sleep(0.3)
raise SystemExit(40 + len(hits))
"""


def test_an_interrupt_from_the_terminal_reaches_the_program_once(tmp_path: pathlib.Path) -> None:
    master, slave = os.openpty()
    words = command(client_side(free_port()), sys.executable, "-c", COUNTING)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL, *words], stdin=slave, stdout=log, stderr=log
        )
    os.close(slave)
    try:
        end = time.monotonic() + START_TIMEOUT_S
        while "waiting" not in (tmp_path / "log").read_text() and time.monotonic() < end:
            time.sleep(0.01)
        os.write(master, b"\x03")
        assert process.wait(10) == 41
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_input_output_and_descriptors_are_those_of_the_program(tmp_path: pathlib.Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        done = subprocess.run(
            [
                sys.executable,
                *command(
                    client_side(free_port()), "/bin/sh", "-c", f"cat; echo more >/dev/fd/{writing}"
                ),
            ],
            input=b"words",
            capture_output=True,
            pass_fds=[writing],
            timeout=30,
            check=True,
        )
        os.close(writing)
        assert (done.stdout, pipe.read()) == (b"words", b"more\n")


def test_a_port_in_use_ends_it_before_the_program_starts(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("0.0.0.0", free_port())) as taken:
        port = taken.getsockname()[1]
        done = run(service_side(port), "/bin/sh", "-c", f"touch {tmp_path}/ran")
    assert done.returncode == 1
    assert f"cannot listen on 0.0.0.0:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_command_that_is_no_program_is_an_exit_status_of_1(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "text"
    path.write_text("no program")
    path.chmod(0o755)
    done = run(client_side(free_port()), str(path))
    assert done.returncode == 1
    assert "tng: error: cannot run" in done.stderr
    assert "Traceback" not in done.stderr
