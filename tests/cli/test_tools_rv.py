"""`tng tools rv`: values only from what was verified, or what was asked for by name."""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys

import pytest

from tng.attest.ear_token import Submodule, sign_ear
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.cli import tools_rv
from tng.errors import ConfigError, ErrorCode, TngError, UntrustedPeerError
from tng.trustee.identity import make_identity

NOW = 1_767_225_600


@pytest.fixture(scope="module")
def platform() -> SimulatedPlatform:
    return SimulatedPlatform.build(now=NOW)


@pytest.fixture
def folder(platform, tmp_path):
    evidence = platform.evidence(b"r")
    (tmp_path / "evidence.json").write_bytes(evidence)
    (tmp_path / "quote.bin").write_bytes(base64.b64decode(json.loads(evidence)["quote"]))
    (tmp_path / "root.der").write_bytes(platform.root_der)
    (tmp_path / "collateral.json").write_text(platform.collateral(NOW).to_json())
    return tmp_path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    tools_rv.add_parser(parser.add_subparsers())
    options = parser.parse_args(["rv", *map(str, words)])
    status: int = options.run(options)
    return status


def judged(folder) -> tuple[object, ...]:
    root = ("--root", folder / "root.der", "--at", NOW)
    return ("--collateral", folder / "collateral.json", *root)


def test_values_of_a_verified_quote_are_those_of_the_machine(folder, platform, capsys):
    assert run("from-quote", folder / "evidence.json", *judged(folder)) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    for name, expected in platform.reference_values().items():
        assert values[name] == expected
    assert "SKIP  8 report data" in said.err
    assert said.err.count("PASS") == 8


def test_a_quote_that_is_refused_gives_no_values(folder, capsys):
    words = ("--collateral", folder / "collateral.json", "--at", NOW)
    with pytest.raises(UntrustedPeerError):
        run("from-quote", folder / "evidence.json", *words)
    said = capsys.readouterr()
    assert said.out == ""
    assert "FAIL  3 quote signature" in said.err


@pytest.mark.parametrize("name", ["evidence.json", "quote.bin"])
def test_unverified_values_must_be_asked_for(folder, capsys, name):
    assert run("from-quote", folder / name, "--unverified") == 0
    said = capsys.readouterr()
    assert ("measurement.kernel.SHA-384" in json.loads(said.out)) is (name == "evidence.json")
    assert said.err == "SKIP  3 quote signature: --unverified\n"


def test_a_log_must_lead_to_the_registers_in_any_case(folder, platform):
    evidence = json.loads(platform.evidence(b"r"))
    log = bytearray(base64.b64decode(evidence["cc_eventlog"]))
    log[200] ^= 1
    evidence["cc_eventlog"] = base64.b64encode(log).decode()
    (folder / "evidence.json").write_text(json.dumps(evidence))
    with pytest.raises(TngError):
        run("from-quote", folder / "evidence.json", "--unverified")


@pytest.mark.parametrize("command", ["from-quote", "from-token"])
def test_verified_or_not_must_be_said(folder, command):
    with pytest.raises(ConfigError, match="or --unverified"):
        run(command, folder / "evidence.json")
    option = "--collateral" if command == "from-quote" else "--trusted-cert"
    with pytest.raises(ConfigError, match="or --unverified"):
        run(command, folder / "evidence.json", option, __file__, "--unverified")


# --- tokens ---

VECTOR = {"hardware": 2, "executables": 33}


@pytest.fixture(scope="module")
def identity():
    return make_identity(NOW)


def signed(identity, modules, *, simulated):
    return sign_ear(identity, modules, service="a service", now=NOW, simulated=simulated)


@pytest.fixture
def token(folder, platform, identity):
    from tng.attest.tdx.appraisal import judge_tdx

    claims = judge_tdx(
        platform.evidence(b"r"),
        expected_report_data=b"r",
        collateral=platform.collateral(NOW),
        now=NOW,
        root_ca_der=platform.root_der,
    ).claims
    modules = [Submodule(f"cpu{n}", "default", VECTOR, claims) for n in range(2)]
    text = signed(identity, modules, simulated=True)
    (folder / "token.jwt").write_text(f"{text}\n")
    (folder / "ca.pem").write_bytes(identity.ca_pem)
    return folder / "token.jwt"


def from_token(token, *words: object) -> int:
    given = ("--trusted-cert", token.parent / "ca.pem", "--at", NOW)
    return run("from-token", token, *(words or given))


def test_values_of_a_token_need_no_policy_to_have_affirmed_it(token, platform, capsys):
    assert from_token(token) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    for name, expected in platform.reference_values().items():
        assert values[name] == expected
    assert said.err.count("PASS") == 5
    assert said.err.count("SKIP") == 1
    assert "SKIP 11 real hardware: SIMULATED" in said.err


def test_an_unverified_token_is_said_to_be_so(token, capsys):
    assert from_token(token, "--unverified") == 0
    said = capsys.readouterr()
    assert "measurement.kernel.SHA-384" in json.loads(said.out)
    assert said.err.count("SKIP") == 4


def test_a_token_may_come_from_standard_input(token, monkeypatch, capsys):
    stream = io.TextIOWrapper(io.BytesIO(token.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert run("from-token", "-", "--unverified") == 0
    assert json.loads(capsys.readouterr().out)["mr_td"]


def test_a_token_of_another_signer_gives_no_values(token, capsys):
    (token.parent / "ca.pem").write_bytes(make_identity(NOW).ca_pem)
    with pytest.raises(UntrustedPeerError, match="token signer") as caught:
        from_token(token)
    assert caught.value.code is ErrorCode.AS_BAD_TOKEN
    said = capsys.readouterr()
    assert said.out == ""
    assert "FAIL  6 token signer" in said.err


def test_a_token_that_was_changed_gives_no_values(token):
    head, claims, signature = token.read_text().strip().split(".")
    token.write_text(f"{head}.{claims[:-4]}AAAA.{signature}")
    with pytest.raises(UntrustedPeerError, match="token signature"):
        from_token(token)
    token.write_text(f"{head}.{claims}")
    with pytest.raises(UntrustedPeerError, match="token format"):
        from_token(token)


def test_a_token_that_has_ended_gives_no_values(token):
    words = ("--trusted-cert", token.parent / "ca.pem", "--at", NOW + 86_400)
    with pytest.raises(UntrustedPeerError, match="see --at") as caught:
        from_token(token, *words)
    assert caught.value.code is ErrorCode.STALE


def test_a_token_without_a_chain_or_with_another_ones_is_refused(token):
    head, claims, signature = token.read_text().strip().split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    other = json.loads(
        base64.urlsafe_b64decode(
            signed(
                make_identity(NOW), [Submodule("cpu0", "p", VECTOR, {})], simulated=False
            ).partition(".")[0]
            + "=="
        )
    )
    for x5c, match in ((None, "no certificate chain"), (other["jwk"]["x5c"], "not the key")):
        jwk = {name: value for name, value in header["jwk"].items() if name != "x5c"}
        changed = header | {"jwk": jwk | ({} if x5c is None else {"x5c": x5c})}
        text = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
        token.write_text(f"{text}.{claims}.{signature}")
        with pytest.raises(UntrustedPeerError, match=match):
            from_token(token)


def test_a_token_about_no_trust_domain_has_no_values(token, identity, capsys):
    modules = [Submodule("cpu0", "default", VECTOR, {"sample": {}})]
    token.write_text(signed(identity, modules, simulated=False))
    with pytest.raises(UntrustedPeerError, match="no TDX trust domain"):
        from_token(token)
    assert "PASS 11 real hardware" in capsys.readouterr().err


def test_a_file_without_a_certificate_is_named(token):
    with pytest.raises(ConfigError, match="--trusted-cert"):
        from_token(token, "--trusted-cert", __file__)
