"""A simulated platform: its evidence, its files, and that it says what it is."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tng.attest.tdx.appraisal import judge_tdx
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.simulator.keys import make_key, read_key, write_key
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.attest.tdx.simulator.spoil import EXPECTED_CODE, Spoil
from tng.errors import EvidenceError, LocalProtocolError

NOW = 1_767_225_600


def judge(platform: SimulatedPlatform, collateral: Collateral | None = None) -> str:
    return judge_tdx(
        platform.evidence(b"x"),
        expected_report_data=b"x",
        collateral=collateral or platform.collateral(NOW),
        now=NOW,
        root_ca_der=platform.root_der,
    ).tcb_status


def test_a_platform_comes_back_from_its_directory(tmp_path):
    made = SimulatedPlatform.create(tmp_path / "p", now=NOW)
    loaded = SimulatedPlatform.load(tmp_path / "p")
    assert loaded.root_der == made.root_der
    assert judge(loaded, made.collateral(NOW)) == "UpToDate"
    assert judge(made, loaded.collateral(NOW)) == "UpToDate"


def test_its_files_are_what_other_tools_need(tmp_path):
    directory = tmp_path / "p"
    platform = SimulatedPlatform.create(directory, now=NOW)
    assert (directory / "root.der").read_bytes() == platform.root_der
    assert judge(platform, Collateral.from_json((directory / "collateral.json").read_bytes()))
    assert (directory / "eventlog.bin").read_bytes() == platform.event_log.to_bytes()
    references = json.loads((directory / "reference_values.json").read_bytes())
    assert references["mr_td"] == [platform.mr_td.hex()]


def test_private_keys_are_for_their_owner_alone(tmp_path):
    SimulatedPlatform.create(tmp_path / "p", now=NOW)
    keys = list((tmp_path / "p").glob("*.key.pem"))
    assert len(keys) == 5
    assert {stat.S_IMODE(k.stat().st_mode) for k in keys} == {0o600}
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o700


def test_every_certificate_says_that_it_is_simulated(tmp_path):
    SimulatedPlatform.create(tmp_path / "p", now=NOW)
    chain = x509.load_pem_x509_certificates((tmp_path / "p" / "certificates.pem").read_bytes())
    for certificate in chain:
        assert "not Intel" in certificate.subject.rfc4514_string()
        assert "Simulated" in certificate.subject.rfc4514_string()
    assert "SIMULATED" in (tmp_path / "p" / "platform.json").read_text()


@pytest.mark.parametrize("spoil", [*Spoil, None])
def test_a_spoiled_platform_is_marked_and_stays_so(tmp_path, spoil):
    SimulatedPlatform.create(tmp_path / "p", now=NOW, spoil=spoil)
    assert SimulatedPlatform.load(tmp_path / "p").spoil is spoil
    assert spoil is None or spoil in EXPECTED_CODE
    assert json.loads((tmp_path / "p" / "platform.json").read_text())["spoil"] == spoil


def test_load_or_create_makes_one_and_then_keeps_it(tmp_path):
    directory = tmp_path / "deep" / "p"
    first = SimulatedPlatform.load_or_create(directory, NOW)
    again = SimulatedPlatform.load_or_create(directory, NOW + 5, spoil=Spoil.DEBUG)
    assert again.root_der == first.root_der
    assert again.spoil is None


@pytest.mark.slow
def test_two_processes_that_start_at_once_get_the_same_platform(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from tng.attest.tdx.simulator.platform import SimulatedPlatform\n"
        "p = SimulatedPlatform.load_or_create(pathlib.Path(sys.argv[1]), int(sys.argv[2]))\n"
        "print(p.root_der.hex())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "p"), str(NOW)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    roots = {process.communicate(timeout=60)[0] for process in processes}
    assert len(roots) == 1
    assert roots.pop()


def test_a_directory_in_use_is_left_alone(tmp_path):
    (tmp_path / "something").write_text("mine")
    with pytest.raises(EvidenceError, match="cannot be written"):
        SimulatedPlatform.create(tmp_path, now=NOW)
    assert [p.name for p in tmp_path.iterdir()] == ["something"]


def test_an_empty_directory_becomes_the_platform(tmp_path):
    (tmp_path / "p").mkdir()
    assert judge(SimulatedPlatform.load_or_create(tmp_path / "p", NOW))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="lock"):
        SimulatedPlatform.load_or_create(tmp_path / "file" / "p", NOW)


def spoil_file(name: str, contents: str):
    def change(directory):
        (directory / name).write_text(contents)

    return change


def swap_keys(directory):
    (directory / "pck.key.pem").write_bytes((directory / "root.key.pem").read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: (directory / "platform.json").unlink(),
        spoil_file("platform.json", "{"),
        spoil_file("platform.json", "[]"),
        spoil_file("platform.json", '{"kind":"x","format":1}'),
        spoil_file("certificates.pem", ""),
        spoil_file("root.key.pem", "no key"),
        lambda directory: (directory / "pck.key.pem").unlink(),
        swap_keys,
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, change):
    SimulatedPlatform.create(tmp_path / "p", now=NOW)
    change(tmp_path / "p")
    with pytest.raises(EvidenceError, match="holds no simulated platform"):
        SimulatedPlatform.load(tmp_path / "p")


def test_a_certificate_missing_from_the_file_is_refused(tmp_path):
    SimulatedPlatform.create(tmp_path / "p", now=NOW)
    path = tmp_path / "p" / "certificates.pem"
    path.write_text(path.read_text()[: path.read_text().rindex("-----BEGIN")])
    with pytest.raises(EvidenceError):
        SimulatedPlatform.load(tmp_path / "p")


@pytest.mark.parametrize("length", [0, 48, 64])
def test_evidence_takes_report_data_up_to_64_octets(length):
    platform = SimulatedPlatform.build(now=NOW)
    evidence = json.loads(platform.evidence(b"r" * length))
    assert list(evidence) == sorted(evidence)
    with pytest.raises(LocalProtocolError):
        platform.evidence(b"r" * 65)


def test_arguments_outside_their_range_are_refused():
    platform = SimulatedPlatform.build(now=NOW)
    for version in (3, 6):
        with pytest.raises(LocalProtocolError, match="version"):
            platform.quote(bytes(64), version=version)
    with pytest.raises(LocalProtocolError, match="64 octets"):
        platform.spoiled(Spoil.REPORT_DATA).quote(b"")
    with pytest.raises(LocalProtocolError, match="48 octets"):
        SimulatedPlatform.build(now=NOW, init_data_digest=bytes(49))


def test_keys_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "key"
    write_key(make_key(), path)
    assert isinstance(read_key(path), ec.EllipticCurvePrivateKey)
    with pytest.raises(FileExistsError):
        write_key(make_key(), path)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    other = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(other.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    with pytest.raises(ValueError, match="P-256"):
        read_key(path)
    sealed = serialization.BestAvailableEncryption(b"password")
    path.write_bytes(make_key().private_bytes(pem, pkcs8, sealed))
    with pytest.raises(ValueError, match="encrypted"):
        read_key(path)


def test_a_quote_takes_less_than_a_millisecond():
    platform = SimulatedPlatform.build(now=NOW)
    durations = []
    for _ in range(20):
        begin = time.perf_counter()
        platform.quote(bytes(64))
        durations.append(time.perf_counter() - begin)
    assert min(durations) < 1e-3
