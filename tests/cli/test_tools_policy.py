"""`tng tools policy test`: rules, outcomes and exit statuses."""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import pathlib

import pytest

from tng.cli import tools_policy
from tng.errors import ConfigError

HEADER = {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"}
TDX = {"tdx": {"quote": {"header": HEADER}}}


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    tools_policy.add_parser(parser.add_subparsers())
    options = parser.parse_args(["policy", "test", *words])
    status: int = options.run(options)
    return status


@pytest.fixture
def claims(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(TDX))
    return str(path)


def token(path: pathlib.Path, payload: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    path.write_text(f"e30.{middle}.AA\n")
    return str(path)


def test_every_rule_is_printed_with_its_outcome(claims: str, capsys) -> None:
    assert run("--claims", claims) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "device: affirming"
    assert len(lines) == 9
    assert [line.split()[0] for line in lines[1:]].count("SKIP") == 4
    assert "  PASS  hardware              2  tdx: recognised" in lines


def test_a_policy_that_says_no_ends_with_one(claims: str, capsys) -> None:
    assert run("--policy", "hardware_only_strict", "--claims", claims) == 1
    said = capsys.readouterr().out
    assert said.startswith("device: contraindicated")
    assert "FAIL  hardware             97  tdx: quote.body.td_attributes is missing" in said


def test_reference_values_are_read(tmp_path: pathlib.Path, claims: str, capsys) -> None:
    path = tmp_path / "rv.json"
    path.write_text('{"tdx.xfam": ["e7"], "measurement.grub.SHA-384": ["aa"]}')
    words = ("--policy", "hardware_with_reference_values", "--reference-values", str(path))
    assert run(*words, "--claims", claims) == 1
    assert "names no grub" in capsys.readouterr().out


def test_json_has_the_same(claims: str, capsys) -> None:
    assert run("--json", "--claims", claims) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["affirmed"] is True
    device = report["devices"]["device"]
    assert device["status"] == "affirming"
    assert device["error"] is None
    outcomes = {rule["claim"]: rule["outcome"] for rule in device["rules"]}
    assert outcomes["hardware"] == "pass"
    assert outcomes["sourced-data"] == "skip"
    assert len(outcomes) == 8


def test_every_device_of_a_token_must_be_affirmed(tmp_path: pathlib.Path, capsys) -> None:
    path = tmp_path / "token.jwt"
    name = "ear.veraison.annotated-evidence"
    submods = {"cpu0": {name: TDX}, "gpu0": {name: {"nvidia": {}}}}
    assert run("--token", token(path, {"submods": {"cpu0": submods["cpu0"]}})) == 0
    assert run("--token", token(path, {"submods": submods})) == 1
    said = capsys.readouterr().out
    assert "cpu0: affirming" in said
    assert "gpu0: contraindicated" in said


def test_claims_that_cannot_be_evaluated_are_not_affirmed(tmp_path: pathlib.Path, capsys) -> None:
    path = tmp_path / "claims.json"
    body = {"quote": {"header": HEADER, "body": {"td_attributes": 3}}}
    path.write_text(json.dumps({"tdx": body}))
    words = ("--policy", "hardware_only_strict", "--claims", str(path))
    assert run(*words) == 1
    assert "device: cannot be evaluated" in capsys.readouterr().out
    assert run("--json", *words) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["affirmed"] is False
    assert "expected text" in report["devices"]["device"]["error"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e30.e30", "three segments"),
        ("e30.e30.e30", "submods"),
        ("e30.eyJzdWJtb2RzIjp7ImNwdTAiOnt9fX0.e30", "'cpu0' has no ear.veraison"),
        ("ä", "expected an EAR token"),
    ],
)
def test_a_file_that_is_no_token_is_refused(
    tmp_path: pathlib.Path, text: str, message: str
) -> None:
    path = tmp_path / "token.jwt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        run("--token", str(path))


def test_a_file_that_holds_no_claims_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text("[]")
    with pytest.raises(ConfigError, match="expected a JSON object of claims"):
        run("--claims", str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        run("--claims", str(tmp_path / "missing"))
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    with pytest.raises(ConfigError, match="more than 16777216 octets"):
        run("--claims", str(path))


@pytest.mark.parametrize("name", ["nope", "inline", "path"])
def test_a_policy_that_is_not_there_is_refused(claims: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--policy: expected FILE\.rego, or one of"):
        run("--policy", name, "--claims", claims)


def test_a_policy_that_is_not_available_is_refused(claims: str) -> None:
    with pytest.raises(ConfigError, match="not available in this version"):
        run("--policy", "hardware_strict_with_measurements", "--claims", claims)


def test_a_policy_in_rego_is_evaluated_or_asks_for_the_engine(
    tmp_path: pathlib.Path, claims: str, capsys
) -> None:
    path = tmp_path / "p.rego"
    path.write_text("package policy\n\nimport rego.v1\n\nhardware := 33 if input.tdx\n")
    if importlib.util.find_spec("regorus") is None:
        with pytest.raises(ConfigError, match=r"pip install 'tng-gateway\[rego\]'"):
            run("--policy", str(path), "--claims", claims)
        return
    assert run("--policy", str(path), "--claims", claims) == 1
    assert "FAIL  hardware             33  the policy's text gives 33" in capsys.readouterr().out
