"""The reference as attester and as verifier, with this service between them.

First its tools, one certificate at a time; then its ingress and its egress, as gateways.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from stage.evidence_server import evidence_server
from stage.gateways import free_port, mapping
from stage.octet_service import octet_service, octets
from stage.processes import get, running
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.clock import SystemClock

REFERENCE = Path(__file__).resolve().parents[2] / ".reference" / "bin" / "tng"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(not REFERENCE.exists(), reason="the reference tng binary is not installed"),
]


class Agent(http.server.BaseHTTPRequestHandler):
    """An api-server-rest whose TEE is `sample`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/info":
            return self._send(b'{"version":"0.1.0","tee":"sample","additional_tees":[]}')
        if url.path == "/aa/evidence":
            text = parse_qs(url.query)["runtime_data"][0]
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            register = {"measure_register": "00" * 32, "svn": "1"}
            evidence = {**register, "report_data": base64.b64encode(data).decode()}
            return self._send(json.dumps(evidence).encode())
        return self._send(b"")

    def _send(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _tng(*words):
    return subprocess.run(
        [REFERENCE, "tools", "rats-tls", *words], capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate that the reference made from sample evidence."""
    path = tmp_path_factory.mktemp("certificate") / "cert.pem"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever).start()
        attest = {
            "model": "background_check",
            "aa_provider": "coco_asr",
            "asr_addr": f"http://127.0.0.1:{server.server_port}",
        }
        done = _tng("gen", "--attest", json.dumps(attest), "--cert-out", str(path))
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture
def verify(start, certificate):
    trustee = start(SystemClock(), allow_sample=True)

    def run(policy, **changes):
        words = {
            "model": "background_check",
            "as_provider": "coco",
            "as_type": "restful",
            "as_addr": f"{trustee.url}/as/",
            "policy_ids": [policy],
        }
        text = json.dumps(words | changes)
        return _tng("verify", "--cert", str(certificate), "--verify", text)

    run.trustee = trustee
    return run


def test_the_reference_accepts_our_token(verify):
    done = verify("trust_all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified OK" in done.stdout


def test_the_reference_accepts_our_token_under_the_pinned_ca(verify):
    pinned = str(verify.trustee.settings.state / "ca.pem")
    done = verify("trust_all", trusted_certs_paths=[pinned])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_refuses_what_the_default_policy_does_not_affirm(verify):
    done = verify("default")
    assert done.returncode != 0
    assert "NotAffirming" in done.stdout + done.stderr


def test_the_reference_hears_of_a_policy_that_does_not_exist(verify):
    done = verify("nothing")
    assert done.returncode != 0
    assert "no policy" in done.stdout + done.stderr


def test_a_token_of_another_service_is_not_accepted_under_our_ca(verify, tmp_path, start):
    other = start(SystemClock(), allow_sample=True, state=tmp_path / "other")
    done = verify("trust_all", trusted_certs_paths=[str(other.settings.state / "ca.pem")])
    assert done.returncode != 0


@pytest.fixture(scope="module")
def between(tmp_path_factory):
    """`tng trustee` that judges a simulated platform, and that platform's API server."""
    folder = tmp_path_factory.mktemp("between")
    platform = SimulatedPlatform.create(folder / "platform", now=int(SystemClock().now()))
    words = ("--state", str(folder / "state"), "--allow-simulated", str(folder / "platform"))
    port = free_port()
    arguments = ("-m", "tng", "trustee", "--listen", f"127.0.0.1:{port}", *words)
    with running(folder, "trustee", *arguments) as process, evidence_server(platform) as server:
        process.await_http(port, "/status")
        yield folder, f"http://127.0.0.1:{port}/as/", server


@contextlib.contextmanager
def _launched(folder, name, config):
    control = free_port()
    config["control_interface"] = {"restful": {"host": "127.0.0.1", "port": control}}
    words = ("launch", "--config-content", json.dumps(config))
    with running(folder, name, *words, program=str(REFERENCE)) as process:
        process.await_http(control, "/livez")
        yield process


@pytest.mark.parametrize("model", ["background_check", "passport"])
def test_the_references_ingress_and_egress_take_it_for_a_real_one(between, model):
    folder, service, server = between
    attest = {"model": model, "aa_provider": "coco_asr", "asr_addr": server}
    verify = {"model": model, "as_addr": service, "policy_ids": ["default"]}
    if model == "passport":
        attest |= {"as_addr": service, "policy_ids": ["default"]}
    tunnel, entrance = free_port(), free_port()
    with octet_service() as backend:
        egress = mapping(tunnel, backend.port)
        ingress = mapping(entrance, tunnel)
        with (
            _launched(folder, f"egress-{model}", {"add_egress": [egress | {"attest": attest}]}),
            _launched(folder, f"ingress-{model}", {"add_ingress": [ingress | {"verify": verify}]}),
        ):
            deadline = time.monotonic() + 20
            while (answer := get(entrance, "/octets/1000"))[0] != 200:
                assert time.monotonic() < deadline, answer
                time.sleep(0.05)
    assert answer[1] == octets(1000)
