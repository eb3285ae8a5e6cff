"""`tng tools token explain`: each check, and an exit status that no skipped check improves."""

from __future__ import annotations

import importlib.util
import io
import json
import pathlib
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.binding import pubkey_claims, runtime_data_for
from tng.attest.certificate import make_certificate
from tng.cli.main import main

_SPEC = importlib.util.spec_from_file_location(
    "token_signer", pathlib.Path(__file__).parents[1] / "attest" / "conftest.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
signers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(signers)


class Stage:
    """A token about a certificate's key, and the files that go with it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.signer = signers.TokenSigner()
        key = ec.generate_private_key(ec.SECP256R1())
        self.spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.token, self.anchor = folder / "token.jwt", folder / "ca.pem"
        self.certificate = folder / "cert.pem"
        certificate = make_certificate(key, runtime_data_for(self.spki).encode(), self.signer.now)
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.anchor.write_bytes(self.signer.ca.public_bytes(Encoding.PEM))
        self.write()

    def write(self, **changes: object) -> None:
        claims = {**self.signer.claims(pubkey_claims(self.spki)), **changes}
        self.token.write_text(self.signer.sign(claims) + "\n")

    def explain(self, *words: object) -> int:
        at = ("--at", self.signer.now)
        return main(["tools", "token", "explain", str(self.token), *map(str, (*at, *words))])

    @property
    def everything(self) -> tuple[object, ...]:
        return (
            *("--trusted-cert", self.anchor, "--cert", self.certificate),
            *("--policy-id", "default"),
        )


@pytest.fixture
def stage(tmp_path: pathlib.Path) -> Stage:
    return Stage(tmp_path)


def outcomes(said: str) -> dict[int, str]:
    return {check["number"]: check["outcome"] for check in json.loads(said)["checks"]}


def test_a_token_that_passes_every_check_is_exit_status_0(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage.explain(*stage.everything) == 0
    said = capfd.readouterr().out
    assert "submodule cpu0: " in said
    assert "PASS 10 key binding" in said
    assert said.endswith("result: passed\n")
    assert "SKIP" not in said
    assert stage.explain(*stage.everything, "--json") == 0
    assert set(outcomes(capfd.readouterr().out).values()) == {"pass"}


@pytest.mark.parametrize(
    ("left_out", "number", "reason"),
    [
        ("--trusted-cert", 6, "anybody may have signed"),
        ("--cert", 10, "was not compared"),
        ("--policy-id", 13, "no --policy-id"),
    ],
)
def test_a_check_that_was_not_made_is_no_pass(
    stage: Stage, capfd: pytest.CaptureFixture[str], left_out: str, number: int, reason: str
) -> None:
    words = list(stage.everything)
    at = words.index(left_out)
    del words[at : at + 2]
    assert stage.explain(*words) == 3
    said = capfd.readouterr().out
    assert f"SKIP {number:>2} " in said
    assert reason in said
    assert said.endswith("result: incomplete\n")


def test_checks_behind_one_that_failed_were_not_reached(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    assert stage.explain(*stage.everything, "--policy-id", "another", "--json") == 1
    assert outcomes(capfd.readouterr().out)[13] == "fail"
    stage.write(exp=stage.signer.now - 3600)
    assert stage.explain(*stage.everything, "--json") == 1
    found = outcomes(capfd.readouterr().out)
    assert found[8] == "fail"
    assert {found[number] for number in range(9, 14)} == {"skip"}


def test_another_signer_and_another_key_fail(
    stage: Stage, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    other = Stage(tmp_path / "other")
    words = ("--trusted-cert", other.anchor, "--cert", stage.certificate, "--json")
    assert stage.explain(*words) == 1
    assert outcomes(capfd.readouterr().out)[6] == "fail"
    words = ("--trusted-cert", stage.anchor, "--cert", other.certificate, "--json")
    assert stage.explain(*words) == 1
    assert outcomes(capfd.readouterr().out)[10] == "fail"


@pytest.mark.parametrize("text", ["", "no token", "a.b.c", "ü", "x" * 100])
def test_what_is_no_token_fails_the_first_check(
    stage: Stage, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    stage.token.write_text(text)
    assert stage.explain("--json") == 1
    assert outcomes(capfd.readouterr().out)[5] == "fail"


def test_a_token_may_come_from_standard_input(
    stage: Stage, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = stage.token.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    words = ["tools", "token", "explain", "-", "--at", str(stage.signer.now)]
    assert main([*words, *map(str, stage.everything)]) == 0


def test_control_characters_of_a_token_do_not_reach_the_terminal(
    stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    stage.write(iss="\x1b[2J\nPASS 6")
    stage.explain()
    said = capfd.readouterr().out
    assert "\x1b" not in said
    assert "iss: ?[2J?PASS 6\n" in said


def test_files_that_hold_something_else_are_usage_errors(
    stage: Stage, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text("x")
    (tmp_path / "p").write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
    assert stage.explain("--trusted-cert", tmp_path / "x") == 2
    assert stage.explain("--cert", tmp_path / "x") == 2
    assert stage.explain("--cert", tmp_path / "p") == 2
    assert main(["tools", "token", "explain", str(tmp_path / "nowhere")]) == 1
