"""The reference as attester and as verifier, with this service between them."""

from __future__ import annotations

import base64
import http.server
import json
import subprocess
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

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
