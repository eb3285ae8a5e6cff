"""`tng config`, `tng verify` and `tng launch` as processes: output, exit status, no traceback."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from stage.gateways import free_port, http_proxy, mapping
from stage.processes import START_TIMEOUT_S, Process, get, launched
from tng.cli import launch, verify
from tng.cli.main import main
from tng.errors import ConfigError, StartError

GOOD = json.dumps({"add_ingress": [{**http_proxy(1), "no_ra": True}]})
BAD = json.dumps({"add_ingress": [{**http_proxy(99999), "verify": {}, "unknown": 1}]})


@pytest.fixture(autouse=True)
def _no_log_file(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RUST_LOG", "TNG_")):
            monkeypatch.delenv(name)


def test_check_names_dangers_and_is_content(capfd) -> None:
    assert main(["config", "check", "--config-content", GOOD]) == 0
    said = capfd.readouterr().out
    assert "warning: add_ingress[0].no_ra" in said
    assert said.endswith("configuration OK\n")


@pytest.mark.parametrize("command", [["config", "check"], ["launch"]])
def test_every_problem_of_a_bad_configuration_is_named(capfd, command: list[str]) -> None:
    assert main([*command, "--config-content", BAD]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("tng: error: add_ingress[0]") for line in lines)


@pytest.mark.parametrize("text", ["{", "[]", "", "null", '{"a": 1, "a": 2}'])
def test_what_is_no_configuration_is_refused(capfd, text: str) -> None:
    assert main(["config", "check", "--config-content", text]) == 2
    assert "Traceback" not in capfd.readouterr().err


def test_show_prints_what_was_understood(capfd, tmp_path) -> None:
    path = tmp_path / "tng.json"
    path.write_text(GOOD)
    assert main(["config", "show", "--config-file", str(path)]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["add_ingress"][0]["http_proxy"]["proxy_listen"]["port"] == 1


def test_schema_is_a_json_schema(capfd) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capfd.readouterr().out)["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "check", "--config-file"],
        ["config", "from-env", "ingress"],
    ],
)
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_line(capfd, tmp_path, arguments, content) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert main([*arguments, str(path)]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["launch"], ["nothing"], ["verify"]])
def test_wrong_usage_is_status_2(capfd, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: tng" in capfd.readouterr().err


def test_version(capfd) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capfd.readouterr().out.startswith("tng ")


def test_a_log_option_that_is_wrong_is_status_2(capfd) -> None:
    assert main(["--log-format", "xml", "config", "schema"]) == 2
    assert capfd.readouterr().err.startswith("tng: error: ")


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["127.0.0.1:1", "--as-addr", "http://127.0.0.1:9/"], 1, "upstream_unreachable"),
        (["nowhere"], 2, "HOST:PORT"),
        (["127.0.0.1:1", "--verify", "{"], 2, "not JSON"),
        (["127.0.0.1:1", "--verify", '{"unknown": 1}'], 2, "unknown"),
        (["127.0.0.1:1", "--verify", "[]"], 2, "at least 1 item"),
        (["127.0.0.1:1", "--verify", '[{"as_provider": "ita"}]'], 2, "verify.api_key"),
    ],
)
def test_verify_says_in_one_line_what_stands_in_its_way(capfd, arguments, status, word) -> None:
    assert main(["verify", *arguments]) == status
    said = capfd.readouterr().err
    assert word in said
    assert "Traceback" not in said


def test_verify_makes_its_section_from_the_options() -> None:
    parser = argparse.ArgumentParser()
    verify.add_parser(parser.add_subparsers())
    options = parser.parse_args(
        ["verify", "a:1", "--as-addr", "http://a/", "--policy-id", "p", "--allow-simulated"]
    )
    (section,) = verify._verify_sections(options)
    assert list(section.policy_ids) == ["p"]
    assert section.allow_simulated


def test_verify_takes_sections_of_every_kind_and_gives_them_the_key(monkeypatch) -> None:
    monkeypatch.setenv("ITA_API_KEY", "s3cret")
    parser = argparse.ArgumentParser()
    verify.add_parser(parser.add_subparsers())
    remote = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}
    sections = [
        {**remote, "as_type": "grpc"},
        {"as_type": "builtin", "attestation_policy": {"type": "hardware_only"}},
        {"as_provider": "ita"},
        remote,
    ]
    options = parser.parse_args(["verify", "a:1", "--verify", json.dumps(sections)])
    grpc, builtin, ita, restful = verify._verify_sections(options)
    assert (grpc.as_type, builtin.as_type, ita.as_provider) == ("grpc", "builtin", "ita")
    assert restful.as_type == "restful"
    assert ita.api_key is not None
    assert ita.api_key.reveal() == "s3cret"


@pytest.mark.parametrize("given", [None, "DEBUG"])
def test_the_grpc_library_is_silent_unless_the_operator_says_otherwise(
    monkeypatch, capfd, given: str | None
) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    if given is not None:
        monkeypatch.setenv("GRPC_VERBOSITY", given)
    assert main(["config", "check", "--config-content", GOOD]) == 0
    assert os.environ["GRPC_VERBOSITY"] == (given or "NONE")
    capfd.readouterr()


def test_a_program_under_exec_gets_an_environment_without_ours(monkeypatch, capfd) -> None:
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    assert main(["exec", "--config-content", "{", "--", "true"]) != 0
    assert "GRPC_VERBOSITY" not in os.environ
    capfd.readouterr()


def test_what_ended_a_gateway_is_told_unless_a_bug_stands_beside_it() -> None:
    wrapped = ExceptionGroup("", [ExceptionGroup("", [StartError("the port is in use")])])
    assert str(launch._first(wrapped)) == "the port is in use"
    with pytest.raises(ConfigError, match="cannot be read"):
        launch.read_text("/nonexistent/file", "file")


def test_a_port_in_use_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = {"add_ingress": [{**mapping(taken.getsockname()[1], 1), "no_ra": True}]}
        content = json.dumps(config)
        process = Process(tmp_path, "in", "-m", "tng", "launch", "--config-content", content)
        assert process.wait() == 1
    assert "cannot listen on" in process.log
    assert "Traceback" not in process.log


@pytest.mark.slow
def test_a_signal_ends_it_in_order_and_a_second_one_at_once(tmp_path: pathlib.Path) -> None:
    port, control = free_port(), free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {
            "add_ingress": [{**mapping(port, silent.getsockname()[1]), "no_ra": True}],
            "drain_timeout_secs": 60,
        }
        with launched(tmp_path, "idle", config, control) as process:
            assert process.stop() == 0
            assert "Exited gracefully" in process.log
        with launched(tmp_path, "busy", config, control) as process:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x")
                silent.accept()[0].close()
                process.popen.send_signal(signal.SIGTERM)
                process.await_http(control, "/readyz", 503)
                assert get(control, "/livez")[0] == 200
                process.popen.send_signal(signal.SIGTERM)
                assert process.wait() == 0
            assert "Traceback" not in process.log


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_keeps_traffic_going() -> None:
    port, control = free_port(), free_port()
    config = {
        "add_ingress": [{**http_proxy(port), "no_ra": True}],
        "control_interface": {"restful": {"host": "127.0.0.1", "port": control}},
    }
    command = [sys.executable, "-m", "tng", "launch", "--config-content", json.dumps(config)]
    with (
        pathlib.Path("/dev/full").open("wb") as full,
        subprocess.Popen(command, stdout=full, stderr=full) as process,
    ):
        try:
            end = time.monotonic() + START_TIMEOUT_S
            while get(control, "/readyz")[0] != 200:
                assert time.monotonic() < end
                time.sleep(0.02)
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), 5) as client:
                    client.sendall(b"nonsense\r\n\r\n")
                    assert b" 400 " in client.recv(100)
            assert get(control, "/livez")[0] == 200
        finally:
            process.terminate()
            assert process.wait(10) == 0
