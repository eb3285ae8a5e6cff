"""The reference and we beside each other: gRPC to one service, and the builtin service in each."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stage.agent_over_http import agent_over_http
from stage.gateways import free_port
from stage.grpc_endpoint import running_endpoint
from stage.grpc_service import old_service
from stage.octet_service import octet_service
from stage.processes import get, running
from tng.attest.binding import report_data, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.attest.evidence import CocoToken, dump_evidence, parse_evidence
from tng.attest.signer_identity import SignerIdentity
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.verifier.factory import make_verifier
from tng.clock import SystemClock
from tng.config.model import Verify
from tng.errors import UntrustedPeerError
from tng.trustee.attestation import AttestationService
from tng.trustee.challenge import Challenger
from tng.trustee.grpc_endpoint import GrpcParts
from tng.trustee.identity import make_identity
from tng.trustee.policies import Policies
from tng.trustee.sample_evidence import SampleVerifier
from tng.trustee.state import StateDirectory
from tng.wire.dice import CocoEvidence

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / ".reference" / "bin" / "tng"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.exists(), reason="the reference is not there: tools/reference"
    ),
]

BUILTIN = {"model": "background_check", "as_provider": "coco", "as_type": "builtin"}


def sample_evidence(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    return json.dumps({"svn": "1", "report_data": text, "measure_register": "00" * 32}).encode()


def tools(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(REFERENCE), "tools", "rats-tls", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def generated(folder: pathlib.Path, attest: dict[str, object]) -> x509.Certificate:
    """The certificate that the reference makes for an `attest` section."""
    file = folder / "generated.pem"
    words = ["--attest", json.dumps(attest), "--cert-out", str(file)]
    made = tools("gen", *words, "--key-out", str(folder / "generated.key"))
    assert made.returncode == 0, made.stdout + made.stderr
    return x509.load_pem_x509_certificate(file.read_bytes())


def ours(tee: str, evidence: object, *, runtime_data: str | None = None) -> x509.Certificate:
    """A certificate of ours; `evidence` makes the TEE's words for some report data."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = runtime_data_for(spki)
    said = evidence(report_data((runtime_data or text).encode()))
    extension = dump_evidence(CocoEvidence(tee, said, None, text))
    return make_certificate(key, extension, int(SystemClock().now()))


def reference_accepts(folder: pathlib.Path, certificate: x509.Certificate, policy: str) -> bool:
    file = folder / "shown.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    verify = {**BUILTIN, "attestation_policy": {"type": policy}}
    said = tools("verify", "--cert", str(file), "--verify", json.dumps(verify))
    return said.returncode == 0 and "verified OK" in said.stdout


async def we_accept(certificate: x509.Certificate, policy: str) -> bool:
    verify = Verify.model_validate({**BUILTIN, "attestation_policy": {"type": policy}})
    verifier = make_verifier(verify, SystemClock())
    try:
        await verifier.judge(certificate.public_bytes(Encoding.DER), "a peer")
    except UntrustedPeerError:
        return False
    finally:
        await verifier.aclose()
    return True


@pytest.mark.parametrize(("policy", "is_fine"), [("trust_all", True), ("hardware_only", False)])
async def test_both_builtin_services_say_the_same_of_sample_evidence(
    tmp_path: pathlib.Path, policy: str, is_fine: bool
) -> None:
    with agent_over_http("sample", sample_evidence) as url:
        attest = {"model": "background_check", "aa_provider": "coco_asr", "asr_addr": url}
        theirs = generated(tmp_path, attest)
    for certificate in (theirs, ours("sample", sample_evidence)):
        assert await we_accept(certificate, policy) is is_fine
        assert reference_accepts(tmp_path, certificate, policy) is is_fine


async def test_both_refuse_evidence_about_another_key_and_evidence_of_no_hardware(
    tmp_path: pathlib.Path,
) -> None:
    platform = SimulatedPlatform.create(tmp_path / "platform", now=int(SystemClock().now()))
    for certificate in (
        ours("sample", sample_evidence, runtime_data="{}"),
        ours("sample", lambda data: b"{}"),
        ours("tdx", platform.evidence),
    ):
        assert not await we_accept(certificate, "trust_all")
        assert not reference_accepts(tmp_path, certificate, "trust_all")


@pytest.mark.parametrize("ours_is", ["ingress", "egress"])
def test_traffic_flows_between_the_makes_when_the_builtin_service_of_either_judges(
    tmp_path: pathlib.Path, ours_is: str
) -> None:
    entrances, exits = [free_port(), free_port()], [free_port(), free_port()]
    transports: list[dict[str, object]] = [{}, {"ohttp": {}}]
    verify = {**BUILTIN, "attestation_policy": {"type": "trust_all"}}

    def mapped(port: int, to: int, **keys: object) -> dict[str, object]:
        ends = {"in": {"host": "127.0.0.1", "port": port}, "out": {"host": "127.0.0.1", "port": to}}
        return {"mapping": ends, **keys}

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(agent_over_http("sample", sample_evidence))
        service = stack.enter_context(octet_service())
        attest = {"aa_provider": "coco_asr", "asr_addr": url}
        triples = list(zip(entrances, exits, transports, strict=True))
        egress = [mapped(b, service.port, attest=attest, **t) for _, b, t in triples]
        ingress = [mapped(a, b, verify=verify, **t) for a, b, t in triples]
        for name, entries in (("egress", egress), ("ingress", ingress)):
            words = ["launch", "--config-content", json.dumps({f"add_{name}": entries})]
            is_ours = name == ours_is
            words = ["-m", "tng", *words] if is_ours else words
            program = sys.executable if is_ours else str(REFERENCE)
            stack.enter_context(running(tmp_path, name, *words, program=program))
        for port in entrances:
            assert answered(port), (tmp_path / f"{ours_is}.log").read_text()


def answered(port: int) -> bool:
    """Whether a request through the ingress on `port` reaches the service in time."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if get(port, "/octets/10")[0] == 200:
                return True
        except http.client.HTTPException:
            pass  # the egress has no certificate yet
        time.sleep(0.05)
    return False


@dataclasses.dataclass
class Embedded:
    """The embedded service behind its gRPC endpoint."""

    port: int
    identity: SignerIdentity


@contextlib.contextmanager
def embedded(folder: pathlib.Path) -> Iterator[Embedded]:
    clock = SystemClock()
    identity = make_identity(clock.now())
    with StateDirectory.open(folder / "state") as state:
        challenger = Challenger(state.challenge_key())
        verifiers = {"sample": SampleVerifier()}
        service = AttestationService(identity, challenger, Policies(state), verifiers, clock)
        with running_endpoint(GrpcParts(service, challenger, dict, clock, 10)) as port:
            yield Embedded(port, identity)


def passport(url: str, port: int) -> dict[str, object]:
    return {
        "model": "passport",
        "aa_provider": "coco_asr",
        "asr_addr": url,
        "as_provider": "coco",
        "as_type": "grpc",
        "as_addr": f"http://127.0.0.1:{port}",
        "as_headers": {"x-key": "k"},
        "policy_ids": ["trust_all"],
    }


async def test_the_reference_gets_its_passport_from_our_grpc_endpoint(
    tmp_path: pathlib.Path,
) -> None:
    with embedded(tmp_path) as service, agent_over_http("sample", sample_evidence) as url:
        certificate = generated(tmp_path, passport(url, service.port))
    anchor = tmp_path / "ca.pem"
    anchor.write_bytes(service.identity.ca_pem)
    section = {"model": "passport", "policy_ids": ["trust_all"]}
    verify = Verify.model_validate({**section, "trusted_certs_paths": [str(anchor)]})
    verifier = make_verifier(verify, SystemClock())
    peer = await verifier.judge(certificate.public_bytes(Encoding.DER), "a peer")
    assert peer.verdict.tee == "sample"
    assert peer.verdict.policy_ids == ("trust_all",)


async def test_we_fall_back_to_the_older_generation_as_the_reference_does(
    tmp_path: pathlib.Path,
) -> None:
    with old_service("a.b.c") as service, agent_over_http("sample", sample_evidence) as url:
        certificate = generated(tmp_path, passport(url, service.port))
        assert _token(certificate) == "a.b.c"
        theirs, asked = service.flat[-1], len(service.calls)
        assert asked == 2
        await service.ask_as_we_do(parse(ours("sample", sample_evidence)))
        assert len(service.calls) == 2 * asked
        assert set(theirs) == set(service.flat[-1])


def _token(certificate: x509.Certificate) -> str:
    evidence = parse(certificate)
    assert isinstance(evidence, CocoToken)
    return evidence.text


def parse(certificate: x509.Certificate) -> object:
    oid = x509.ObjectIdentifier("2.23.133.5.4.9")
    extension = certificate.extensions.get_extension_for_oid(oid).value
    return parse_evidence(extension.value)
