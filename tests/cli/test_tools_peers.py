"""`tng tools rats-tls` and `tng tools ohttp` with a live egress and a live attestation service."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import socket
import ssl
import stat
import threading
from collections.abc import Iterator

import pytest

from stage.attested import Vouchers, gateway, vouchers
from stage.gateways import free_port, mapping
from tng.cli.main import main

pytestmark = pytest.mark.slow

MODELS = ("background_check", "passport")


@dataclasses.dataclass(frozen=True)
class Lab:
    """Ports of egresses by transport and model, and who vouches for them."""

    trust: Vouchers
    ports: dict[tuple[str, str], int]

    def verify(self, model: str = "background_check", **changes: object) -> tuple[str, str]:
        return "--verify", json.dumps({**self.trust.verify("ours", model=model), **changes})

    def attest(self, *, known: bool = True) -> tuple[str, str]:
        return "--attest", json.dumps(self.trust.attest("ours", known=known))

    def endpoint(self, transport: str, model: str) -> tuple[str, str]:
        scheme = "http://" if transport == "ohttp" else ""
        return "--endpoint", f"{scheme}127.0.0.1:{self.ports[transport, model]}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("tools")
    with vouchers(folder) as trust:
        ports, entries = {}, []
        for transport, extra in (("rats-tls", {}), ("ohttp", {"ohttp": {}})):
            for model in (*MODELS, "no_ra"):
                port = ports[transport, model] = free_port()
                shown = {"attest": trust.attest("ours", passport=model == "passport")}
                entry = {"no_ra": True} if model == "no_ra" else shown
                entries.append({**mapping(port, free_port()), **extra, **entry})
        port = ports["rats-tls", "mutual"] = free_port()
        both = {"attest": trust.attest("ours"), "verify": trust.verify("ours")}
        entries.append({**mapping(port, free_port()), **both})
        with gateway(folder, "ours", "egress", {"add_egress": entries}) as (process, control):
            process.await_http(control, "/readyz")
            yield Lab(trust, ports)


def rats_tls(*words: object) -> int:
    return main(["tools", "rats-tls", *map(str, words)])


def ohttp(*words: object) -> int:
    return main(["tools", "ohttp", *map(str, words)])


def names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- rats-tls -----------------------------------------------------------------------


def test_a_certificate_that_was_made_is_accepted(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    assert rats_tls("gen", *lab.attest(), "--cert-out", certificate, "--key-out", key) == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    capfd.readouterr()
    assert rats_tls("verify", "--cert", certificate, *lab.verify()) == 0
    said = capfd.readouterr()
    first, token = said.out.splitlines()
    assert first == "verified OK"
    assert json.loads(token).count(".") == 2
    assert "PASS 10 key binding" in said.err
    der = tmp_path / "c.der"
    der.write_bytes(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    assert rats_tls("verify", "--cert", der, *lab.verify(), "--json") == 0
    assert json.loads(capfd.readouterr().out)["accepted"] is True


def test_without_files_both_go_to_standard_output(
    lab: Lab, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert rats_tls("gen", *lab.attest()) == 0
    said = capfdbinary.readouterr().out
    assert said.index(b"BEGIN CERTIFICATE") < said.index(b"BEGIN PRIVATE KEY")


@pytest.mark.parametrize("refused", ["stranger", "simulated", "another model"])
def test_a_certificate_that_must_not_be_accepted_is_exit_status_1(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], refused: str
) -> None:
    certificate = tmp_path / "c.pem"
    attest = lab.attest(known=refused != "stranger")
    rats_tls("gen", *attest, "--cert-out", certificate, "--key-out", tmp_path / "k")
    verify = {
        "stranger": lab.verify(),
        "simulated": lab.verify(allow_simulated=False),
        "another model": lab.verify("passport"),
    }[refused]
    capfd.readouterr()
    assert rats_tls("verify", "--cert", certificate, *verify) == 1
    said = capfd.readouterr()
    assert "FAIL" in said.err
    assert said.out == ""
    assert rats_tls("verify", "--cert", certificate, *verify, "--json") == 1
    assert json.loads(capfd.readouterr().out)["accepted"] is False


@pytest.mark.parametrize("model", MODELS)
def test_a_live_egress_is_dumped_and_judged(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], model: str
) -> None:
    endpoint = lab.endpoint("rats-tls", model)
    assert rats_tls("verify", *endpoint, *lab.verify(model)) == 0
    assert rats_tls("dump", *endpoint, "--out-dir", tmp_path) == 0
    parts = {
        "background_check": {"evidence.json", "quote.bin"},
        "passport": {
            "attestation_result.jwt",
            "attestation_result.claims.json",
            "eventlog.json",
        },
    }[model]
    assert names(tmp_path) == {"cert.pem", "cert.json"} | parts
    assert json.loads((tmp_path / "cert.json").read_text())["shown"]["model"] == model
    capfd.readouterr()
    assert rats_tls("verify", "--cert", tmp_path / "cert.pem", *lab.verify(model)) == 0
    assert rats_tls("dump", *endpoint) == 0
    assert "BEGIN CERTIFICATE" in capfd.readouterr().out


def test_an_egress_without_evidence_is_dumped_and_refused(lab: Lab, tmp_path: pathlib.Path) -> None:
    endpoint = lab.endpoint("rats-tls", "no_ra")
    assert rats_tls("dump", *endpoint, "--out-dir", tmp_path) == 0
    assert json.loads((tmp_path / "cert.json").read_text())["shown"] is None
    assert rats_tls("verify", *endpoint, *lab.verify()) == 1


def test_an_egress_that_verifies_shows_its_certificate_to_anybody(
    lab: Lab, tmp_path: pathlib.Path
) -> None:
    endpoint = lab.endpoint("rats-tls", "mutual")
    assert rats_tls("dump", *endpoint, "--cert-out", tmp_path / "c.pem") == 0
    assert rats_tls("dump", *endpoint, *lab.attest(), "--cert-out", tmp_path / "d.pem") == 0
    assert (tmp_path / "c.pem").read_bytes() == (tmp_path / "d.pem").read_bytes()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03"])
def test_what_does_not_speak_tls_is_an_error(
    answer: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def reply() -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.recv(4096)
            accepted.sendall(answer)

    thread = threading.Thread(target=reply)
    thread.start()
    port = listening.getsockname()[1]
    assert rats_tls("dump", "--endpoint", f"127.0.0.1:{port}") == 1
    thread.join(10)
    listening.close()
    assert f"127.0.0.1:{port}" in capfd.readouterr().err
    assert rats_tls("dump", "--endpoint", f"127.0.0.1:{port}") == 1


# -- ohttp --------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_key_is_dumped_judged_and_taken_apart(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], model: str
) -> None:
    endpoint, verify = lab.endpoint("ohttp", model), lab.verify(model)
    online, offline = tmp_path / "online", tmp_path / "offline"
    assert ohttp("dump", *endpoint, *verify, "--out-dir", online) == 0
    expected = {
        "raw.json",
        "hpke.base64",
        "hpke.json",
        "attestation_result.jwt",
        "attestation_result.claims.json",
        "eventlog.json",
    } | ({"quote.bin"} if model == "background_check" else set())
    assert names(online) == expected
    config = json.loads((online / "hpke.json").read_text())["configs"][0]
    assert config["kem"] == "X25519Sha256"
    assert config["symmetric_suites"] == [
        "HkdfSha256+Aes128Gcm",
        "HkdfSha256+ChaCha20Poly1305",
    ]
    capfd.readouterr()
    assert ohttp("verify", "--raw", online / "raw.json", *verify) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "verified OK"
    assert lines[1].startswith("attestation_result: ey")
    assert lines[2] == "claims:"
    assert "eat_profile" in json.loads("\n".join(lines[3:]))
    assert ohttp("verify", "--raw", online / "raw.json", *verify, "--json") == 0
    assert json.loads(capfd.readouterr().out)["accepted"] is True
    token = online / "attestation_result.jwt"
    words = ("--raw", online / "raw.json", "--out-dir", offline, "--attestation-result", token)
    assert ohttp("decode", *words) == 0
    assert names(offline) == expected - {"attestation_result.jwt"}
    for path in offline.iterdir():
        assert path.read_bytes() == (online / path.name).read_bytes()


def test_a_bare_key_is_printed_or_written(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint = lab.endpoint("ohttp", "background_check")
    assert ohttp("dump", *endpoint) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["attestation_info"] is None
    assert ohttp("dump", *endpoint, "--raw", tmp_path / "raw.json") == 0
    assert json.loads((tmp_path / "raw.json").read_text())["hpke_key_config"]
    assert ohttp("verify", "--raw", tmp_path / "raw.json", *lab.verify()) == 1
    assert "without evidence" in capfd.readouterr().err
    assert ohttp("decode", "--raw", tmp_path / "raw.json", "--out-dir", tmp_path / "d") == 0
    assert names(tmp_path / "d") == {"raw.json", "hpke.base64", "hpke.json"}


@pytest.mark.parametrize("changed", ["key", "policy", "simulated"])
def test_a_key_that_must_not_be_accepted_is_exit_status_1(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], changed: str
) -> None:
    raw = tmp_path / "raw.json"
    ohttp("dump", *lab.endpoint("ohttp", "passport"), *lab.verify("passport"), "--raw", raw)
    verify = lab.verify("passport")
    if changed == "key":
        other = tmp_path / "other.json"
        ohttp("dump", *lab.endpoint("ohttp", "no_ra"), "--raw", other)
        answer = json.loads(raw.read_text())
        answer["hpke_key_config"] = json.loads(other.read_text())["hpke_key_config"]
        raw.write_text(json.dumps(answer))
    else:
        changes = {"policy": {"policy_ids": ["another"]}, "simulated": {"allow_simulated": False}}
        verify = lab.verify("passport", **changes[changed])
    capfd.readouterr()
    assert ohttp("verify", "--raw", raw, *verify) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "FAIL" in said.err


def test_what_was_refused_is_kept_for_a_look(lab: Lab, tmp_path: pathlib.Path) -> None:
    verify = lab.verify(allow_simulated=False)
    endpoint = lab.endpoint("ohttp", "background_check")
    assert ohttp("dump", *endpoint, *verify, "--out-dir", tmp_path / "d") == 1
    assert names(tmp_path / "d") == {"raw.json", "hpke.base64", "hpke.json", "quote.bin"}
    assert ohttp("dump", *lab.endpoint("ohttp", "no_ra"), *lab.verify()) == 1


def test_what_is_no_egress_with_ohttp_is_an_error(
    lab: Lab, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ohttp("dump", "--endpoint", "127.0.0.1:1") == 2
    assert ohttp("dump", "--endpoint", f"http://127.0.0.1:{free_port()}") == 1
    assert ohttp("dump", "--endpoint", lab.trust.service) == 1
    assert "does an egress with `ohttp` listen" in capfd.readouterr().err
    for text in ("{}", "[]", "x"):
        (tmp_path / "raw").write_text(text)
        assert ohttp("decode", "--raw", tmp_path / "raw", "--out-dir", tmp_path / "d") == 1
    ohttp("dump", *lab.endpoint("ohttp", "no_ra"), "--raw", tmp_path / "raw")
    (tmp_path / "token").write_text("no token")
    words = ("--raw", tmp_path / "raw", "--out-dir", tmp_path / "d")
    assert ohttp("decode", *words, "--attestation-result", tmp_path / "token") == 2
    assert ohttp("decode", *words[:2], "--out-dir", tmp_path / "raw") == 1


@pytest.mark.parametrize("section", ["{", "[]", '"x"', '{"modell": 1}'])
def test_a_section_that_is_none_is_a_usage_error(section: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "raw").write_text("{}")
    assert rats_tls("gen", "--attest", section) == 2
    assert ohttp("verify", "--raw", tmp_path / "raw", "--verify", section) == 2
    pem = tmp_path / "pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    verify = ("--verify", '{"as_addr": "http://127.0.0.1:1", "policy_ids": []}')
    assert rats_tls("verify", "--cert", pem, *verify) == 2
    assert rats_tls("verify", "--endpoint", "nonsense:x", *verify) == 2
