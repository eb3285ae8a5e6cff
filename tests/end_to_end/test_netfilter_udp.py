"""Captured datagrams in network namespaces of their own: programs that know nothing of it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from stage.namespaces import FAR, NEAR, NEEDED, Namespaces, cabled, served
from stage.processes import Process, running

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / ".reference" / "bin" / "tng"

pytestmark = NEEDED

PORTS = (30001, 30002)

SERVER = """
import select, socket
socks = []
for port in {ports}:
    socks.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    socks[-1].bind(("0.0.0.0", port))
print("listening", flush=True)
while True:
    for sock in select.select(socks, [], [])[0]:
        data, address = sock.recvfrom(9999)
        print("asked", sock.getsockname()[1], address[0], data[:20], flush=True)
        sock.sendto(b"heard " + data, address)
"""

# One socket asks every port that is named, and takes an answer only from where it has asked.
CLIENT = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(float(sys.argv[3]))
for port in sys.argv[4:]:
    asked = sys.argv[1], int(port)
    try:
        sock.sendto(sys.argv[2].encode(), asked)
        heard, address = sock.recvfrom(9999)
        print(heard.decode() if address == asked else f"from {address}")
    except OSError as error:
        print(type(error).__name__)
"""

HEARD = "heard word"
WAIT_S = 5.0
SHORT_S = 0.7
"""Seconds after which a client that is to hear nothing has heard nothing."""


class Stage(Namespaces):
    """Two namespaces, and a server in the far one."""

    def __init__(self, server: Process, folder: pathlib.Path, near: str, far: str) -> None:
        super().__init__(folder, near, far)
        self.server = server

    def ask(
        self,
        space: str,
        *ports: int,
        host: str = FAR,
        word: str = "word",
        seconds: float = WAIT_S,
    ) -> list[str]:
        """What an ordinary program hears from each port; the name of an error where it fails."""
        arguments = [host, word, str(seconds), *map(str, ports or PORTS[:1])]
        program = [sys.executable, "-I", "-S", "-c", CLIENT, *arguments]
        return self.run(space, *program).splitlines()

    def hears_nothing(self, space: str, port: int = 30001, host: str = FAR) -> bool:
        return self.ask(space, port, host=host, seconds=SHORT_S) in (
            ["TimeoutError"],
            ["ConnectionRefusedError"],
        )

    def last_client(self) -> str:
        """The address that the server has heard from last."""
        return self.server.log.rstrip().splitlines()[-1].split()[2]

    @contextlib.contextmanager
    def pair(self) -> Iterator[tuple[Process, Process]]:
        """Both gateways; what reaches the server has been through a session."""
        with (
            self.launched(self.far, "egress", egress(port=30001)) as way_out,
            self.launched(self.near, "ingress", ingress(host=FAR, port=30001)) as way_in,
        ):
            yield way_in, way_out


def ingress(options: dict[str, object] | None = None, **target: object) -> dict[str, object]:
    capture = {"capture_dst": [target]} if target else {}
    return {"add_ingress": [{"netfilter_udp": {**capture, **(options or {})}, "no_ra": True}]}


def egress(options: dict[str, object] | None = None, **target: object) -> dict[str, object]:
    capture = {"capture_dst": [target]} if target else {}
    return {"add_egress": [{"netfilter_udp": {**capture, **(options or {})}, "no_ra": True}]}


@pytest.fixture(scope="module")
def cable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("netfilter")
    with cabled("u") as (near, far), served(folder, far, SERVER.format(ports=PORTS)) as server:
        yield Stage(server, folder, near, far)


@pytest.fixture
def stage(cable: Stage) -> Iterator[Stage]:
    """Whatever a test does, it leaves the namespaces as they were."""
    path, before = cable.path, [cable.rules(space) for space in (cable.near, cable.far)]
    assert cable.ask(cable.near) == [HEARD]
    yield cable
    cable.path = path
    assert [cable.rules(space) for space in (cable.near, cable.far)] == before
    assert cable.ask(cable.near) == [HEARD]


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_unaware_programs_talk_through_a_session(stage: Stage, kind: str) -> None:
    stage.use(kind)
    with stage.pair() as (way_in, way_out):
        assert stage.ask(stage.near) == [HEARD]
        assert stage.last_client() == FAR, "the egress asks the service"
        large = "x" * 1300
        assert stage.ask(stage.near, word=large) == [f"heard {large}"]
        assert stage.ask(stage.near, 30002) == [HEARD]
        assert stage.last_client() == NEAR, "captured without being named"
        assert stage.ask(stage.far) == [HEARD], "local traffic was captured"
        assert "TNG_S0_I0_OUT" in stage.run(stage.near, f"iptables-{kind}-save", "-t", "mangle")
        assert way_in.stop() == way_out.stop() == 0
        assert f"upstream_remote={FAR}:30001" in way_in.log
        assert f"upstream_remote={FAR}:30001" in way_out.log


def test_one_program_has_a_session_with_each_destination(stage: Stage) -> None:
    with (
        stage.launched(stage.far, "egress", egress(port=30001, port_end=30002)),
        stage.launched(stage.near, "ingress", ingress(port=30001, port_end=30002)) as way_in,
    ):
        assert stage.ask(stage.near, 30001, 30002, 30001, 30002) == [HEARD] * 4
        assert stage.last_client() == FAR
        assert way_in.stop() == 0
        assert way_in.log.count("(netfilter_udp)") == 2


def test_a_plain_client_does_not_reach_a_captured_service(stage: Stage) -> None:
    with stage.launched(stage.far, "egress", egress(port=30001)):
        asked = stage.server.log.count("asked")
        assert stage.hears_nothing(stage.near)
        assert stage.server.log.count("asked") == asked


def test_local_traffic_is_captured_where_the_operator_says_so(stage: Stage) -> None:
    everything = egress({"capture_local_traffic": True})
    with (
        stage.launched(stage.far, "egress", everything),
        stage.launched(stage.near, "ingress", ingress(port=30001)),
    ):
        assert stage.hears_nothing(stage.far)
        assert stage.ask(stage.near) == [HEARD], "what we send ourselves was captured as well"
        assert stage.last_client() == FAR


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_killed_and_started_again_datagrams_flow(stage: Stage, kind: str) -> None:
    stage.use(kind)
    with stage.pair() as processes:
        for process in processes:
            process.popen.send_signal(signal.SIGKILL)
            process.wait()
    asked = stage.server.log.count("asked")
    assert stage.hears_nothing(stage.near)
    assert stage.server.log.count("asked") == asked, "nothing may go out in plain"
    with stage.pair():
        assert stage.ask(stage.near) == [HEARD]
        assert stage.last_client() == FAR


def test_servers_of_a_machine_still_answer_clients_whose_network_is_captured(stage: Stage) -> None:
    with stage.launched(stage.far, "ingress", ingress(host="10.77.0.0/24")):
        assert stage.ask(stage.near) == [HEARD]
        assert stage.ask(stage.far) == [HEARD]


def test_a_datagram_to_the_listener_itself_goes_nowhere(stage: Stage) -> None:
    both = {**ingress({"listen_port": 20001}, port=30001), **egress({"listen_port": 20002}, port=9)}
    with stage.launched(stage.far, "both", both) as process:
        for space, host, port in (
            (stage.far, "127.0.0.1", 20001),
            (stage.near, FAR, 20002),
            (stage.far, "127.0.0.1", 20002),
        ):
            assert stage.hears_nothing(space, port, host)
        assert process.stop() == 0
        assert process.log.count("not captured") == 2, "said once by each entry"


def test_both_protocols_of_one_port_are_captured(stage: Stage) -> None:
    tcp = {"netfilter": {"capture_dst": {"port": 30001}}, "no_ra": True}
    (udp,) = ingress(port=30001)["add_ingress"]  # type: ignore[misc]
    with (
        stage.launched(stage.far, "egress", egress(port=30001)),
        stage.launched(stage.near, "ingress", {"add_ingress": [tcp, udp]}),
    ):
        assert stage.ask(stage.near) == [HEARD]
        assert stage.last_client() == FAR


def test_without_the_capability_for_raw_sockets_it_is_named(stage: Stage) -> None:
    without = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
    with stage.launched(stage.near, "ingress", ingress(port=30001), before=without) as way_in:
        assert way_in.wait() == 1
        assert "CAP_NET_RAW" in way_in.log


@contextlib.contextmanager
def reference(stage: Stage, space: str, name: str, config: dict[str, object]) -> Iterator[Process]:
    content = ["--config-content", json.dumps(config)]
    command = ["netns", "exec", space, str(REFERENCE), "launch", *content]
    with running(stage.folder, name, *command, program="ip") as process:
        while "All services are ready" not in process.log:
            assert process.popen.poll() is None, process.log
            time.sleep(0.02)
        yield process
        process.popen.send_signal(signal.SIGTERM)
        process.wait()  # it takes its rules with it


@pytest.mark.interop
@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference is not there: tools/reference")
@pytest.mark.parametrize("ours", ["ingress", "egress"])
def test_either_end_may_be_the_reference(stage: Stage, ours: str) -> None:
    way_in, way_out = ingress(port=30001), egress(port=30001)
    with contextlib.ExitStack() as stack:
        if ours == "ingress":
            stack.enter_context(reference(stage, stage.far, "egress", way_out))
            stack.enter_context(stage.launched(stage.near, "ingress", way_in))
        else:
            stack.enter_context(stage.launched(stage.far, "egress", way_out))
            stack.enter_context(reference(stage, stage.near, "ingress", way_in))
        assert stage.ask(stage.near, 30001, 30001) == [HEARD, HEARD]
        assert stage.last_client() == FAR
