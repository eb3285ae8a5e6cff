"""Captured traffic in network namespaces of its own: programs that know nothing of the gateway.

Needs root, `ip` and iptables; nothing here touches the rules of the machine's own namespace.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from stage.namespaces import FAR, NEAR, NEEDED, Namespaces, cabled, served
from stage.processes import START_TIMEOUT_S, Process

pytestmark = NEEDED

SERVER = """
import socketserver, time
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        print("asked", line, flush=True)
        self.wfile.write(b"heard ")
        time.sleep(1.5 if line == b"SLOW\\n" else 0)
        self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    block_on_close = False
servers = [Server(("0.0.0.0", port), Handler) for port in {ports}]
import threading
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("listening", flush=True)
servers[0].serve_forever()
"""

CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.0) as sock:
        sock.settimeout(5.0)
        sock.sendall(sys.argv[3].encode() + b"\\n")
        sock.shutdown(socket.SHUT_WR)
        heard = b""
        while data := sock.recv(1000):
            heard += data
    print(heard.decode() or "nothing")
except OSError as error:
    print(type(error).__name__)
"""

REFUSED = {"nothing", "ConnectionResetError", "OSError"}
"""What a client sees of a connection that was taken and then ended: it depends on who is faster."""

PORTS = (30001, 30002, 30003, 30010)


class Stage(Namespaces):
    """Two namespaces, and a server in the far one."""

    def __init__(self, server: Process, folder: pathlib.Path, near: str, far: str) -> None:
        super().__init__(folder, near, far)
        self.server = server

    def ask(
        self,
        space: str,
        port: int = 30001,
        host: str = FAR,
        word: str = "word",
        before: Sequence[str] = (),
    ) -> str:
        """What an ordinary program in `space` hears; the name of an error where it fails."""
        return self.asking(space, port, host, word, before).communicate(timeout=20)[0].strip()

    def asking(
        self,
        space: str,
        port: int = 30001,
        host: str = FAR,
        word: str = "word",
        before: Sequence[str] = (),
    ) -> subprocess.Popen[str]:
        program = [sys.executable, "-I", "-S", "-c", CLIENT, host, str(port), word]
        command = [*before, "ip", "netns", "exec", space, *program]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def pair(self) -> contextlib.ExitStack:
        """Both gateways; what reaches the server has been through a tunnel."""
        stack = contextlib.ExitStack()
        stack.enter_context(self.launched(self.far, "egress", egress(port=30001)))
        stack.enter_context(self.launched(self.near, "ingress", ingress(host=FAR, port=30001)))
        return stack


def ingress(options: dict[str, object] | None = None, **target: object) -> dict[str, object]:
    capture = {"capture_dst": [target]} if target else {}
    return {"add_ingress": [{"netfilter": {**capture, **(options or {})}, "no_ra": True}]}


def egress(options: dict[str, object] | None = None, **target: object) -> dict[str, object]:
    capture = {"capture_dst": [target]} if target else {}
    return {"add_egress": [{"netfilter": {**capture, **(options or {})}, "no_ra": True}]}


@pytest.fixture(scope="module")
def cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("netfilter")
    with cabled("t") as (near, far), served(folder, far, SERVER.format(ports=PORTS)) as server:
        yield Stage(server, folder, near, far)


@pytest.fixture
def stage(cable: Stage) -> Iterator[Stage]:
    """Whatever a test does, it leaves the namespaces as they were."""
    before = [cable.rules(space) for space in (cable.near, cable.far)]
    assert cable.ask(cable.near) == "heard word"
    yield cable
    cable.path = os.environ["PATH"]
    assert [cable.rules(space) for space in (cable.near, cable.far)] == before
    assert cable.ask(cable.near) == "heard word"


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_unaware_programs_talk_through_a_tunnel(stage: Stage, kind: str) -> None:
    stage.use(kind)
    with stage.pair():
        assert stage.ask(stage.near) == "heard word"
        assert stage.ask(stage.near, port=30002) == "heard word", "captured without being named"
        assert stage.ask(stage.far) == "heard word", "local traffic was captured"
        saved = stage.run(stage.near, f"iptables-{kind}-save", "-t", "mangle")
        assert "TNG_S0_I0_OUT" in saved


def test_a_plain_client_does_not_reach_a_captured_service(stage: Stage) -> None:
    with stage.launched(stage.far, "egress", egress(port=30001)):
        assert stage.ask(stage.near) in REFUSED


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_killed_and_started_again_traffic_flows(stage: Stage, kind: str) -> None:
    stage.use(kind)
    with stage.launched(stage.far, "egress", egress(port=30001)) as way_out:
        with stage.launched(stage.near, "ingress", ingress(port=30001)) as way_in:
            for process in (way_in, way_out):
                process.popen.send_signal(signal.SIGKILL)
                process.wait()
        assert stage.ask(stage.near) == "TimeoutError", "nothing may go out in plain"
        with stage.pair():
            assert stage.ask(stage.near) == "heard word"


def test_left_overs_in_another_back_end_are_removed(stage: Stage) -> None:
    stage.use("legacy")
    with stage.launched(stage.near, "ingress", ingress(port=30001)) as way_in:
        way_in.popen.send_signal(signal.SIGKILL)
        way_in.wait()
    stage.use("nft")
    stage.path = stage.path.split(":", 1)[1]  # now both are found, nft first
    with stage.launched(stage.near, "ingress", ingress(port=30002)) as way_in:
        assert stage.ask(stage.near, port=30001) == "heard word"
        assert way_in.stop() == 0


def test_two_gateways_in_one_namespace_leave_each_other_alone(stage: Stage) -> None:
    with stage.launched(stage.near, "first", ingress(port=30001)) as first:
        alone = stage.rules(stage.near)
        with stage.launched(stage.near, "second", ingress(port=30002)) as second:
            assert stage.ask(stage.near, port=30001) != "heard word"
            assert stage.ask(stage.near, port=30002) != "heard word"
            assert second.stop() == 0
        assert stage.rules(stage.near) == alone
        assert stage.ask(stage.near, port=30002) == "heard word"
        with stage.launched(stage.near, "third", ingress(port=30003)) as third:
            third.popen.send_signal(signal.SIGKILL)
            third.wait()
        with stage.launched(stage.near, "fourth", ingress(port=30002)) as fourth:
            assert first.stop() == 0
            assert stage.ask(stage.near, port=30001) == "heard word"
            assert stage.ask(stage.near, port=30003) == "heard word", "left by the third"
            assert fourth.stop() == 0


def test_what_is_under_way_drains_and_nothing_new_goes_out_in_plain(stage: Stage) -> None:
    with (
        stage.launched(stage.far, "egress", egress(port=30001)),
        stage.launched(stage.near, "ingress", ingress(port=30001)) as way_in,
    ):
        slow = stage.asking(stage.near, word="SLOW")
        time.sleep(0.5)  # the request is under way, and its answer comes a second later
        way_in.popen.send_signal(signal.SIGTERM)
        while "Shutting down" not in way_in.log:
            time.sleep(0.02)
        assert stage.ask(stage.near) in {"TimeoutError", "ConnectionRefusedError"}
        assert slow.communicate(timeout=20)[0].strip() == "heard SLOW"
        assert way_in.wait() == 0


def test_ranges_and_networks_select_what_is_captured(stage: Stage) -> None:
    config = ingress({"capture_dst": [
        {"host": "10.77.0.0/24", "port": 30002, "port_end": 30009},
        {"host": "192.0.2.0/24"},
    ]})  # fmt: skip
    with stage.launched(stage.near, "ingress", config):
        answers = {port: stage.ask(stage.near, port=port) == "heard word" for port in PORTS}
    assert answers == {30001: True, 30002: False, 30003: False, 30010: True}


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_servers_of_a_machine_still_answer_clients_whose_network_is_captured(
    stage: Stage, kind: str
) -> None:
    stage.use(kind)
    with stage.launched(stage.far, "ingress", ingress(host="10.77.0.0/24")):
        assert stage.ask(stage.near) == "heard word"
        assert stage.ask(stage.far, host=NEAR) != "heard word", "nobody is there"
        assert stage.ask(stage.far) == "heard word"


@pytest.mark.skipif(shutil.which("ipset") is None, reason="ipset is not installed")
def test_an_ipset_selects_what_is_captured(stage: Stage) -> None:
    stage.run(stage.near, "ipset", "create", "services", "hash:ip")
    try:
        with stage.launched(stage.near, "ingress", ingress(ipset="services", port=30001)):
            assert stage.ask(stage.near) == "heard word"
            stage.run(stage.near, "ipset", "add", "services", FAR)
            assert stage.ask(stage.near) != "heard word"
            assert stage.ask(stage.near, port=30002) == "heard word"
    finally:
        stage.run(stage.near, "ipset", "destroy", "services")


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_a_set_that_is_not_there_is_named_and_leaves_no_rules(stage: Stage, kind: str) -> None:
    stage.use(kind)
    with stage.launched(stage.near, "ingress", ingress(ipset="no-such-set")) as way_in:
        assert way_in.wait() == 1
        assert "do these ipsets exist: no-such-set" in way_in.log


def test_a_control_group_that_is_not_there_is_named(stage: Stage) -> None:
    config = ingress({"capture_cgroup": ["/no-such/group"]}, port=30001)
    with stage.launched(stage.near, "ingress", config) as way_in:
        assert way_in.wait() == 1
        assert "do these control groups (cgroup v2) exist: /no-such/group" in way_in.log


@pytest.fixture
def group() -> Iterator[pathlib.Path]:
    """A control group of the unified hierarchy."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            folder = pathlib.Path(line.split()[4]) / f"tng-test {os.getpid()}"
            break
    else:
        pytest.skip("there is no cgroup v2 hierarchy")
    try:
        folder.mkdir()
    except OSError as exc:
        pytest.skip(f"no control group can be made: {exc}")
    yield folder
    folder.rmdir()


def within(group: pathlib.Path) -> list[str]:
    """What a command line begins with to run in a control group."""
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group)]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
@pytest.mark.parametrize("key", ["capture_cgroup", "nocapture_cgroup"])
def test_control_groups_on_the_ingress(
    stage: Stage, group: pathlib.Path, key: str, kind: str
) -> None:
    stage.use(kind)
    with stage.launched(stage.near, "ingress", ingress({key: [f"/{group.name}"]}, port=30001)):
        inside = stage.ask(stage.near, before=within(group)) == "heard word"
        outside = stage.ask(stage.near) == "heard word"
    assert (inside, outside) == ((False, True) if key == "capture_cgroup" else (True, False))


@pytest.mark.parametrize("key", ["capture_cgroup", "nocapture_cgroup"])
def test_control_groups_on_the_egress(stage: Stage, group: pathlib.Path, key: str) -> None:
    options = {key: [f"/{group.name}"], "capture_local_traffic": True}
    with stage.launched(stage.far, "egress", egress(options, port=30001)):
        inside = stage.ask(stage.far, before=within(group)) == "heard word"
        outside = stage.ask(stage.far) == "heard word"
        assert stage.ask(stage.near) != "heard word", "another machine knows no control group"
    assert (inside, outside) == ((False, True) if key == "capture_cgroup" else (True, False))


def test_a_control_group_alone_captures_its_traffic_on_the_egress(
    stage: Stage, group: pathlib.Path
) -> None:
    config = egress({"capture_cgroup": [f"/{group.name}"]})
    with stage.launched(stage.far, "egress", config):
        assert stage.ask(stage.far, before=within(group)) != "heard word"
        assert stage.ask(stage.far) == "heard word"
        assert stage.ask(stage.near) == "heard word"


def test_a_connection_to_the_listener_itself_goes_nowhere(stage: Stage) -> None:
    both = {**ingress({"listen_port": 20001}, port=30001), **egress({"listen_port": 20002}, port=9)}
    with stage.launched(stage.far, "both", both) as process:
        for space, host, port in (
            (stage.far, "127.0.0.1", 20001),
            (stage.near, FAR, 20002),
            (stage.far, "127.0.0.1", 20002),
        ):
            assert stage.ask(space, host=host, port=port) in REFUSED
        assert process.stop() == 0
        assert process.log.count("not captured") == 3, process.log


def test_questions_to_an_attestation_service_are_not_captured(stage: Stage) -> None:
    config = ingress(port=30001)
    (entry,) = config["add_ingress"]  # type: ignore[misc]
    del entry["no_ra"]
    entry["verify"] = {"as_addr": f"http://{FAR}:30001/as", "policy_ids": ["default"]}
    with stage.launched(stage.near, "ingress", config):
        # Its answer is no good, so it is asked again and again, also now that the rules are there.
        asked = stage.server.log.count("asked b'GET /as/")
        end = time.monotonic() + START_TIMEOUT_S
        while stage.server.log.count("asked b'GET /as/") < asked + 2:
            assert time.monotonic() < end, "the service is not asked any more"
            time.sleep(0.05)


def test_workers_share_a_capture(stage: Stage) -> None:
    with stage.launched(stage.far, "egress", egress(port=30001), "--workers", "2") as way_out:
        with stage.launched(stage.near, "ingress", ingress(port=30001), "--workers", "2") as way_in:
            assert {stage.ask(stage.near) for _ in range(6)} == {"heard word"}
            assert way_in.stop() == 0
        assert way_out.stop() == 0


def test_without_the_capability_it_is_named_with_the_alternatives(stage: Stage) -> None:
    without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
    with stage.launched(stage.near, "ingress", ingress(port=30001), before=without) as way_in:
        assert way_in.wait() == 1
        assert "CAP_NET_ADMIN" in way_in.log
        assert "mapping, http_proxy, socks5, or `tng exec`" in way_in.log
