"""The demonstration shows what it says, and never calls a failure a success."""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tng.attest.tdx.simulator.spoil import EXPECTED_CODE, Spoil
from tng.cli import demo
from tng.cli.demo_impostor import Impostor
from tng.cli.demo_report import Report
from tng.cli.demo_stage import Stage, choose_ports, egress_config, ingress_config
from tng.cli.demo_story import EXIT_DONE, EXIT_REFUSED, Story
from tng.cli.demo_verdicts import CheckView, PeerView, peers_of_ingress
from tng.clock import SystemClock
from tng.config.loader import prepare_config
from tng.endpoint import Endpoint
from tng.errors import ConfigError, RemoteProtocolError, StartError


def make_report() -> tuple[Report, io.StringIO]:
    output = io.StringIO()
    return Report(Console(file=output, width=160, soft_wrap=True)), output


@pytest.mark.slow
def test_the_demonstration_reaches_the_service_and_refuses_the_impostor() -> None:
    report, output = make_report()
    started = time.monotonic()
    assert Story(SystemClock(), None, None, report=report).tell() == EXIT_DONE
    assert time.monotonic() - started < 30
    said = output.getvalue()
    assert "SIMULATED" in said
    assert "tng-stand-in-backend" in said
    assert "certificate" in said
    assert "the impostor received 0 octets of the request" in said
    assert "evidence_missing" in said
    assert " NO " not in said


@pytest.mark.slow
@pytest.mark.parametrize("tamper", sorted(demo.TAMPERINGS))
def test_spoiled_evidence_is_refused_and_the_failing_check_is_named(tamper: str) -> None:
    report, output = make_report()
    assert Story(SystemClock(), None, tamper, report=report).tell() == EXIT_REFUSED
    said = output.getvalue()
    assert f"x-tng-error: {EXPECTED_CODE[Spoil(tamper.replace('-', '_'))]}" in said
    assert " NO  check " in said
    assert "no request reached the service behind the egress" in said


@pytest.mark.slow
def test_a_proxy_port_that_is_lost_at_the_last_moment_is_replaced() -> None:
    report, output = make_report()
    story = Story(SystemClock(), None, None, report=report)
    story._ports = choose_ports(0)
    with socket.create_server(("127.0.0.1", story._ports.proxy)):
        assert story.tell() == EXIT_DONE
    assert "is taken" in output.getvalue()


@pytest.mark.slow
def test_a_backend_of_one_s_own_takes_the_stand_in_s_place(tmp_path: pathlib.Path) -> None:
    report, output = make_report()
    own = Endpoint("127.0.0.1", choose_ports().backend)
    with Stage(tmp_path) as stage:
        words = ["tng.cli.stand_in", "--port", str(own.port)]
        stage.start("backend", words, f"http://{own}/health")
        assert Story(SystemClock(), own, None, report=report).tell() == EXIT_DONE
    assert f"http://{own} (yours)" in output.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_staying_ends_with_an_interrupt_and_leaves_no_process_behind(
    tmp_path: pathlib.Path,
) -> None:
    output = tmp_path / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "tng", "demo", "--stay"], stdout=stream)
    try:
        deadline = time.monotonic() + 60
        while "curl http" not in output.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)  # the process is not ours to be told by
        said = output.read_text()
        line = said[said.index("env all_proxy=") :].splitlines()[0]
        answer = subprocess.run(shlex.split(line), capture_output=True, check=True, timeout=30)
        assert b"tng-stand-in-backend" in answer.stdout
    finally:
        process.terminate()
    assert process.wait(20) == 0
    egress = httpx.URL(shlex.split(line)[3])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((egress.host, egress.port or 80), 1)


def test_each_way_of_tampering_is_one_of_the_simulator() -> None:
    assert {name.replace("-", "_") for name in demo.TAMPERINGS} == {spoil.value for spoil in Spoil}


def test_the_command_line_knows_its_options() -> None:
    parser = argparse.ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["demo", "--tamper", "key", "--stay"])
    assert (arguments.tamper, arguments.stay, arguments.backend) == ("key", True, None)
    with pytest.raises(SystemExit):
        parser.parse_args(["demo", "--tamper", "everything"])


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://gpu:8000", Endpoint("gpu", 8000)),
        ("http://gpu/", Endpoint("gpu", 80)),
        ("HTTP://[::1]:8000", Endpoint("::1", 8000)),
    ],
)
def test_a_backend_is_a_host_and_a_port(url: str, endpoint: Endpoint) -> None:
    assert demo.parse_backend(url) == endpoint


@pytest.mark.parametrize("url", ["https://gpu:8000", "gpu:8000", "http://gpu/v1", "http://", "x"])
def test_another_kind_of_backend_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--backend"):
        demo.parse_backend(url)


def test_the_configurations_are_good_ones(tmp_path: pathlib.Path) -> None:
    ports = choose_ports()
    egress = egress_config(ports, Endpoint("127.0.0.1", ports.backend), tmp_path)
    prepare_config(json.dumps(egress))
    prepare_config(json.dumps(ingress_config(ports)))


def test_ports_differ_and_a_taken_proxy_port_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ports = choose_ports(number)
    chosen = [getattr(ports, name) for name in type(ports).__slots__]
    assert number not in chosen
    assert len(set(chosen)) == len(chosen)
    assert choose_ports(number).proxy == number


def test_a_process_that_ends_at_once_is_told_with_its_last_words(tmp_path: pathlib.Path) -> None:
    with Stage(tmp_path) as stage, pytest.raises(StartError, match=r"ended at once.*unrecognized"):
        stage.start("backend", ["tng.cli.stand_in", "--wrong"], "http://127.0.0.1:9/health")


@pytest.mark.slow
def test_processes_end_with_the_stage_and_inherit_no_proxy(tmp_path: pathlib.Path) -> None:
    port = choose_ports().backend
    proxies = {"all_proxy": "http://127.0.0.1:9", "PATH": ""}
    with Stage(tmp_path, proxies) as stage:
        words = ["tng.cli.stand_in", "--port", str(port)]
        stage.start("backend", words, f"http://127.0.0.1:{port}/health")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_the_impostor_counts_what_a_careless_client_sends() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["rats-tls"])
    with Impostor(SystemClock()) as impostor:
        with socket.create_connection(("127.0.0.1", impostor.port)) as plain:
            plain.sendall(b"not TLS\r\n\r\n")
        with (
            socket.create_connection(("127.0.0.1", impostor.port)) as plain,
            context.wrap_socket(plain) as secured,
        ):
            assert secured.selected_alpn_protocol() == "rats-tls"
            secured.sendall(b"secret")
    assert (impostor.handshakes, impostor.octets) == (1, 6)


def test_nothing_from_outside_is_read_as_markup() -> None:
    report, output = make_report()
    check = CheckView(number=1, name="[red]x[/red]", outcome="[odd]", detail="[/]")
    report.verdict("[bold]peer", PeerView(accepted=False, code="stale", checks=[check]))
    report.fact("[a]", "[/b]")
    for text in ("[red]x[/red]", "[odd]", "[/]", "[bold]peer", "refused: stale", "[a]", "[/b]"):
        assert text in output.getvalue()


def test_verdicts_are_found_by_peer() -> None:
    peer = {
        "accepted": True,
        "code": None,
        "checks": [{"number": 1, "name": "a", "outcome": "pass", "detail": "b"}],
        "tee": "tdx",
        "simulated": True,
        "judged_at": 1.0,
    }
    found = peers_of_ingress(json.dumps({"ingress": [{"id": 0, "peers": {"h:1": peer}}]}))
    assert found["h:1"].checks[0].name == "a"
    assert found["h:1"].simulated


@given(st.binary(max_size=60))
def test_another_answer_is_an_error(text: bytes) -> None:
    try:
        assert peers_of_ingress(text) == {}
    except RemoteProtocolError:
        return
