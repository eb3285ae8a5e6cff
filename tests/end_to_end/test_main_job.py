"""The main job, in processes of their own: service, judge, egress in a simulated TEE, ingress.

What a user does, with the programs that a user has: curl, httpx, requests, the openai SDK.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
import requests

from stage.gateways import free_port, http_proxy, mapping
from stage.processes import get, launched, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.tdx.simulator.spoil import EXPECTED_CODE, Spoil
from tng.clock import SystemClock

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Stage:
    """Ports of a running pair."""

    proxy: int
    egress: int
    backend: int
    trustee: int
    control: int

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.proxy}"

    @property
    def service_url(self) -> str:
        """What a client believes to be the model server: the egress's address."""
        return f"http://127.0.0.1:{self.egress}"

    def stats(self) -> dict[str, int]:
        """What the stand-in backend counted."""
        counted: dict[str, int] = json.loads(get(self.backend, "/stand-in/stats")[1])
        return counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("main-job")


@pytest.fixture(scope="module")
def judge(folder: pathlib.Path) -> Iterator[int]:
    """The port of an attestation service that accepts the simulated platform `platform`."""
    SimulatedPlatform.create(folder / "platform", now=int(SystemClock().now()))
    port = free_port()
    arguments = ["--listen", f"127.0.0.1:{port}", "--state", str(folder / "trustee")]
    simulated = ["--allow-simulated", str(folder / "platform")]
    with running(folder, "trustee", "-m", "tng", "trustee", *arguments, *simulated) as process:
        process.await_http(port, "/as/certificate")
        yield port


@pytest.fixture(scope="module")
def backend(folder: pathlib.Path) -> Iterator[int]:
    port = free_port()
    with running(folder, "backend", "-m", "tng.cli.stand_in", "--port", str(port)) as process:
        process.await_http(port, "/health")
        yield port


def egress_config(port: int, backend: int, platform: pathlib.Path) -> dict[str, object]:
    attest = {"aa_type": "simulated", "simulated_platform": str(platform)}
    return {"add_egress": [{**mapping(port, backend), "attest": attest}]}


def ingress_config(port: int, judge: int) -> dict[str, object]:
    verify = {
        "as_addr": f"http://127.0.0.1:{judge}/as/",
        "policy_ids": ["default"],
        "allow_simulated": True,
    }
    return {"add_ingress": [{**http_proxy(port), "verify": verify}]}


@pytest.fixture(scope="module")
def stage(folder: pathlib.Path, judge: int, backend: int) -> Iterator[Stage]:
    made = Stage(free_port(), free_port(), backend, judge, free_port())
    egress = egress_config(made.egress, backend, folder / "platform")
    with (
        launched(folder, "egress", egress, free_port()),
        launched(folder, "ingress", ingress_config(made.proxy, judge), made.control),
    ):
        yield made


BODY = {"model": "tng-stand-in-backend", "prompt": "hello", "max_tokens": 132, "stream": False}


def test_requests_through_all_proxy(stage: Stage) -> None:
    proxies = {"http": stage.proxy_url, "https": stage.proxy_url}
    url = f"{stage.service_url}/v1/completions"
    answer = requests.post(url, json=BODY, proxies=proxies, timeout=10)
    assert "no model runs here" in answer.json()["choices"][0]["text"]


def test_httpx_through_a_proxy(stage: Stage) -> None:
    with httpx.Client(proxy=stage.proxy_url) as client:
        answer = client.post(f"{stage.service_url}/v1/completions", json=BODY)
    assert "no model runs here" in answer.json()["choices"][0]["text"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("variable", ["all_proxy", "http_proxy"])
@pytest.mark.parametrize("tunnel", [[], ["--proxytunnel"]])
def test_curl_through_the_environment(stage: Stage, variable: str, tunnel: list[str]) -> None:
    environment = {"PATH": os.environ["PATH"], variable: stage.proxy_url + "/"}
    command = ["curl", "-sS", "--max-time", "10", *tunnel, "-d", json.dumps(BODY)]
    command += ["-H", "Content-Type: application/json", f"{stage.service_url}/v1/completions"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert "no model runs here" in json.loads(done.stdout)["choices"][0]["text"]


def test_the_openai_sdk_streams_chunk_by_chunk(stage: Stage) -> None:
    client = openai.OpenAI(
        base_url=f"{stage.service_url}/v1",
        api_key="unused",
        http_client=httpx.Client(proxy=stage.proxy_url),
    )
    messages = [{"role": "user", "content": "hello"}]
    arrived = []
    with client.chat.completions.create(
        model="tng-stand-in-backend",
        messages=messages,  # type: ignore[arg-type]
        stream=True,
        max_tokens=20,
    ) as stream:
        arrived = [time.monotonic() for _ in stream]
    client.close()
    assert len(arrived) > 10
    gaps = [b - a for a, b in itertools.pairwise(arrived)]
    assert max(gaps) < 5 * (arrived[-1] - arrived[0]) / len(gaps), "the chunks came in lumps"


@pytest.mark.parametrize("tunnelled", [False, True])
def test_a_client_that_leaves_ends_the_request_at_the_service(
    stage: Stage, tunnelled: bool
) -> None:
    before = stage.stats()
    body = json.dumps({**BODY, "max_tokens": 4096, "stream": True}).encode()
    head = f"Host: x\r\nContent-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stage.proxy), 10) as sock:
        if tunnelled:
            sock.sendall(f"CONNECT 127.0.0.1:{stage.egress} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 200 " in sock.recv(4096)
        origin = "" if tunnelled else stage.service_url
        sock.sendall(f"POST {origin}/v1/completions HTTP/1.1\r\n{head}".encode() + body)
        assert b"200" in sock.recv(100)
    end = time.monotonic() + 1.0
    while stage.stats()["cancelled"] == before["cancelled"]:
        assert time.monotonic() < end, "the service still works for a client that has left"
        time.sleep(0.02)


def test_the_verdict_can_be_read_check_by_check(stage: Stage) -> None:
    test_requests_through_all_proxy(stage)
    told = json.loads(get(stage.control, "/status/attestation")[1])
    verdict = told["ingress"][0]["peers"][f"127.0.0.1:{stage.egress}"]
    assert verdict["accepted"] is True
    assert verdict["simulated"] is True
    assert {check["outcome"] for check in verdict["checks"]} <= {"pass", "skip"}
    assert any("simulated" in danger for danger in told["dangers"])


def test_verify_judges_a_live_egress(stage: Stage, folder: pathlib.Path) -> None:
    arguments = ["-m", "tng", "verify", f"127.0.0.1:{stage.egress}"]
    service = ["--as-addr", f"http://127.0.0.1:{stage.trustee}/as/"]
    with running(folder, "verify", *arguments, *service, "--allow-simulated") as process:
        assert process.wait() == 0, process.log
        assert "SIMULATED" in process.log
    with running(folder, "verify-strict", *arguments, *service) as process:
        assert process.wait() == 1
        assert "simulated_evidence" in process.log


@pytest.mark.parametrize("spoil", Spoil)
def test_each_tampering_is_refused_with_its_own_code(
    spoil: Spoil, folder: pathlib.Path, backend: int
) -> None:
    platform = folder / f"spoiled-{spoil}"
    SimulatedPlatform.create(platform, now=int(SystemClock().now()), spoil=spoil)
    judge, egress, proxy = free_port(), free_port(), free_port()
    before = json.loads(get(backend, "/stand-in/stats")[1])["requests"]
    trustee = ["-m", "tng", "trustee", "--listen", f"127.0.0.1:{judge}"]
    state = ["--state", str(folder / f"trustee-{spoil}"), "--allow-simulated", str(platform)]
    with (
        running(folder, f"trustee-{spoil}", *trustee, *state) as service,
        launched(folder, f"egress-{spoil}", egress_config(egress, backend, platform), free_port()),
    ):
        service.await_http(judge, "/as/certificate")
        with launched(folder, f"in-{spoil}", ingress_config(proxy, judge), free_port()) as ingress:
            answer = requests.post(
                f"http://127.0.0.1:{egress}/v1/completions",
                json=BODY,
                headers={"Authorization": "Bearer sk-canary"},
                proxies={"http": f"http://127.0.0.1:{proxy}"},
                timeout=10,
            )
            assert answer.status_code == 502
            assert answer.headers["x-tng-error"] == EXPECTED_CODE[spoil]
            assert answer.json()["error"]["code"] == EXPECTED_CODE[spoil]
            assert "sk-canary" not in ingress.log + answer.text
    assert json.loads(get(backend, "/stand-in/stats")[1])["requests"] == before
