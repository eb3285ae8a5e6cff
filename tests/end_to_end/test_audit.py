"""The audit logs of a gateway, of a gateway with workers, and of the attestation service."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
from collections.abc import Iterator

import pytest

from stage.gateways import free_port, http_proxy, mapping
from stage.octet_service import octet_service, octets
from stage.processes import Process, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.cli.main import main
from tng.clock import SystemClock

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def process(folder: pathlib.Path, name: str, *words: str) -> Iterator[Process]:
    with running(folder, name, "-m", "tng", *words, "--audit-log", str(folder / name)) as started:
        yield started


def records(path: pathlib.Path) -> list[dict[str, object]]:
    assert main(["audit", "verify", str(path)]) == 0
    return [json.loads(line)["record"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_was_accepted_and_who_was_not_is_in_the_log(
    tmp_path: pathlib.Path, workers: str
) -> None:
    now = int(SystemClock().now())
    for name in ("known", "stranger"):
        SimulatedPlatform.create(tmp_path / name, now=now)
    service_port, control, control_egress, proxy = (free_port() for _ in range(4))
    tunnels = {name: free_port() for name in ("known", "stranger")}
    verify = {
        "as_addr": f"http://127.0.0.1:{service_port}/as/",
        "policy_ids": ["default"],
        "allow_simulated": True,
    }
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(octet_service())
        words = ["--listen", f"127.0.0.1:{service_port}", "--state", str(tmp_path / "state")]
        words += ["--allow-simulated", str(tmp_path / "known")]
        trustee = stack.enter_context(process(tmp_path, "trustee", "trustee", *words))
        trustee.await_http(service_port, "/as/certificate")
        egress = {
            "control_interface": {"restful": {"host": "127.0.0.1", "port": control_egress}},
            "add_egress": [
                {
                    **mapping(port, service.port),
                    "attest": {"aa_type": "simulated", "simulated_platform": str(tmp_path / name)},
                }
                for name, port in tunnels.items()
            ],
        }
        words = ["launch", "--config-content", json.dumps(egress)]
        far = stack.enter_context(running(tmp_path, "egress", "-m", "tng", *words))
        far.await_http(control_egress, "/readyz")
        ingress = {
            "control_interface": {"restful": {"host": "127.0.0.1", "port": control}},
            "add_ingress": [{**http_proxy(proxy), "verify": verify}],
        }
        words = ["launch", "--workers", workers, "--config-content", json.dumps(ingress)]
        near = stack.enter_context(process(tmp_path, "ingress", *words))
        near.await_http(control, "/readyz")
        for name in ("known", "known", "stranger"):
            line = http.client.HTTPConnection("127.0.0.1", proxy, timeout=15)
            line.request("GET", f"http://127.0.0.1:{tunnels[name]}/octets/10")
            answer = line.getresponse()
            assert (answer.read() == octets(10)) == (name == "known")
            line.close()
        assert near.stop() == 0
        assert trustee.stop() == 0
    said = records(tmp_path / "ingress")
    assert said[0]["kind"] == "started"
    assert said[-1]["kind"] == "stopped"
    judged = [record for record in said if record["kind"] == "judgement"]
    verdicts = [record["verdict"] for record in judged]
    assert [verdict["accepted"] for verdict in verdicts if isinstance(verdict, dict)] == [
        True,
        *[False] * (len(judged) - 1),
    ]
    assert len(judged) >= 2
    assert judged[0]["peer"] == f"127.0.0.1:{tunnels['known']}"
    decided = [record for record in records(tmp_path / "trustee") if record["kind"] == "decision"]
    assert {record["granted"] for record in decided} == {True, False}
    assert "eyJ" not in (tmp_path / "ingress").read_text() + (tmp_path / "trustee").read_text()
