"""Our certificates before the reference's verifier, and the reference's before our parser."""

from __future__ import annotations

import base64
import json
import pathlib
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tng.attest.attester.agent import AgentAttester
from tng.attest.attester.asr import AsrAttester
from tng.attest.binding import report_data, runtime_data_for
from tng.attest.certificate import parse_peer_certificate
from tng.attest.credential_source import CredentialSource
from tng.attest.evidence import parse_evidence
from tng.clock import SystemClock
from tng.wire.dice import CocoEvidence

if TYPE_CHECKING:
    from tests.attest.attester.conftest import FakeAgent, FakeAsr
    from tng.attest.attester.base import Attester

REFERENCE = pathlib.Path(__file__).resolve().parents[3] / ".reference" / "bin" / "tng"
VERIFY = {
    "model": "background_check",
    "as_provider": "coco",
    "as_type": "builtin",
    "attestation_policy": {"type": "trust_all"},
}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(not REFERENCE.exists(), reason="the reference binary is not installed"),
]


async def run_reference(*arguments: str) -> tuple[int, str]:
    with trio.fail_after(60):
        done = await trio.run_process(
            [str(REFERENCE), "tools", "rats-tls", *arguments],
            check=False,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            env={"RUST_LOG": "info"},
        )
    return done.returncode, done.stdout.decode()


async def verify(attester: Attester, folder: pathlib.Path) -> tuple[int, str]:
    credential = await CredentialSource(attester, SystemClock()).make()
    path = folder / "cert.pem"
    path.write_bytes(credential.certificate.public_bytes(Encoding.PEM))
    return await run_reference("verify", "--cert", str(path), "--verify", json.dumps(VERIFY))


async def test_the_reference_accepts_a_certificate_with_evidence_of_the_agent(
    agent: FakeAgent, tmp_path: pathlib.Path
) -> None:
    status, output = await verify(AgentAttester(agent.path), tmp_path)
    assert status == 0, output


async def test_the_reference_accepts_a_certificate_with_evidence_of_the_rest_server(
    asr: FakeAsr, tmp_path: pathlib.Path
) -> None:
    status, output = await verify(AsrAttester(asr.url), tmp_path)
    assert status == 0, output


async def test_the_reference_refuses_evidence_over_another_key(
    asr: FakeAsr, tmp_path: pathlib.Path
) -> None:
    """The nearest thing that must not pass, so that the two tests above mean something."""
    said = await AsrAttester(asr.url).get_evidence(bytes(48))
    asr.answers["/aa/evidence"] = (200, {}, said.evidence)
    status, output = await verify(AsrAttester(asr.url), tmp_path)
    assert status != 0
    assert "REPORT_DATA" in output


@pytest.mark.parametrize("provider", ["coco", "coco_asr"])
async def test_we_accept_a_certificate_of_the_reference(
    agent: FakeAgent, asr: FakeAsr, tmp_path: pathlib.Path, provider: str
) -> None:
    attest = {"model": "background_check", "aa_provider": provider}
    if provider == "coco":
        attest |= {"aa_type": "uds", "aa_addr": f"unix://{agent.path}"}
    else:
        attest |= {"asr_addr": asr.url}
    path = tmp_path / "cert.pem"
    keys = ["--cert-out", str(path), "--key-out", str(tmp_path / "cert.key")]
    status, output = await run_reference("gen", "--attest", json.dumps(attest), *keys)
    assert status == 0, output

    der = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)
    peer = parse_peer_certificate(der, time.time())
    evidence = parse_evidence(peer.extension)
    assert isinstance(evidence, CocoEvidence)
    assert evidence.tee_type == "sample"
    assert evidence.aa_runtime_data == runtime_data_for(peer.spki_der)
    if provider == "coco":
        # The same three calls as ours, in the same order.
        assert [request.method for _, request in agent.requests] == [
            "GetEvidence",
            "GetTeeType",
            "GetAdditionalEvidence",
        ]
    assert report_data(evidence.aa_runtime_data.encode()).hex() == _report_data(evidence)


def _report_data(evidence: CocoEvidence) -> str:
    fields = json.loads(evidence.aa_evidence)
    return base64.b64decode(fields["report_data"]).hex()
