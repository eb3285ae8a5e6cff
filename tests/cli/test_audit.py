"""`tng audit verify`, and what gateways and the attestation service write into the log."""

from __future__ import annotations

import json
import pathlib

import pytest

from stage.gateways import free_port
from stage.processes import running
from tng.attest.verifier.judgements import Judged
from tng.cli import audit_records
from tng.cli.main import main
from tng.clock import FixedClock
from tng.errors import ErrorCode
from tng.observe.audit import AuditLog
from tng.trustee.decisions import Act, Decision
from tng.verdict import Check, Outcome, Verdict

CLOCK = FixedClock(1_800_000_000.0)
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJub2JvZHkifQ.c2lnbmF0dXJl"


def verdict(*, accepted: bool, detail: str = "seen") -> Verdict:
    outcome = Outcome.PASS if accepted else Outcome.FAIL
    return Verdict(
        accepted=accepted,
        code=None if accepted else ErrorCode.POLICY_DENIED,
        checks=(Check(13, "policy", outcome, detail),),
        tee="tdx",
        simulated=False,
        policy_ids=("default",),
        peer="ab" * 32,
        judged_at=1_800_000_000.0,
        valid_until=1_800_000_300.0 if accepted else 0.0,
    )


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "audit.jsonl"
    with audit_records.opened(path, CLOCK, "launch") as audit:
        told = audit_records.on_judgement(audit)
        told(Judged(b"\1" * 32, "10.0.0.7:443", verdict(accepted=True), ""))
        told(Judged(b"\2" * 32, "10.0.0.8:443", verdict(accepted=False), "policy: another"))
    return path


def records(path: pathlib.Path) -> list[dict[str, object]]:
    return [json.loads(line)["record"] for line in path.read_text().splitlines()]


def verify_log(*words: object) -> int:
    return main(["audit", "verify", *map(str, words)])


def test_a_judgement_is_recorded_with_every_check_and_its_validity(path: pathlib.Path) -> None:
    started, accepted, refused, stopped = records(path)
    assert (started["kind"], stopped["kind"]) == ("started", "stopped")
    assert accepted["shown"] == "01" * 32
    found = accepted["verdict"]
    assert isinstance(found, dict)
    assert found["peer"] == "ab" * 32
    assert found["policy_ids"] == ["default"]
    assert found["valid_until"] == 1_800_000_300.0
    assert found["checks"] == [
        {"number": 13, "name": "policy", "outcome": "pass", "detail": "seen"}
    ]
    assert refused["reason"] == "policy: another"


def test_what_looks_like_a_credential_is_masked(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "audit"
    with AuditLog(path, CLOCK) as audit:
        judged = Judged(
            b"\1" * 32, "peer", verdict(accepted=False, detail=f"saw {TOKEN}"), f"not {TOKEN}"
        )
        audit_records.on_judgement(audit)(judged)
    assert TOKEN not in path.read_text()
    assert "***" in path.read_text()


def test_a_decision_of_the_service_is_recorded(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "audit"
    with AuditLog(path, CLOCK) as audit:
        audit_records.on_decision(audit)(
            Decision(Act.RELEASE, False, 5.0, "ab" * 32, "kbs:///a/b/c", "denied", True, "::1")
        )
    assert records(path) == [
        {
            "kind": "decision",
            "at": 5.0,
            "act": "release",
            "granted": False,
            "subject": "ab" * 32,
            "target": "kbs:///a/b/c",
            "code": "denied",
            "simulated": True,
            "client": "::1",
        }
    ]


def test_a_log_that_holds_is_exit_status_0(
    path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify_log(path) == 0
    said = capfd.readouterr().out
    head = said.split()[-1]
    assert said == f"PASS 4 records, 1 to 4, digest {head}\n"
    assert verify_log(path, "--head", head.upper()) == 0
    capfd.readouterr()
    assert verify_log(path, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["intact"], found["records"], found["head"]) == (True, 4, head)


def test_the_first_altered_line_is_named(
    path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path.write_text(path.read_text().replace("policy: another", "policy: the same"))
    assert verify_log(path) == 1
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith(f"FAIL {path}: line 3: altered: ")
    assert said[1].startswith("up to there: 2 records, 1 to 2, digest ")
    assert verify_log(path, "--json") == 1
    found = json.loads(capfd.readouterr().out)
    assert found["problem"] == {
        "file": str(path),
        "line": 3,
        "kind": "altered",
        "detail": found["problem"]["detail"],
    }


def test_a_log_that_was_cut_is_found_by_its_digest(
    path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    verify_log(path)
    head = capfd.readouterr().out.split()[-1]
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert verify_log(path) == 0
    assert verify_log(path, "--head", head) == 1
    assert "head: no line has the digest" in capfd.readouterr().out


def test_rotated_files_are_one_log(path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = path.read_text().splitlines(keepends=True)
    older = path.with_name("older")
    older.write_text("".join(lines[:2]))
    path.write_text("".join(lines[2:]))
    assert verify_log(older, path) == 0
    capfd.readouterr()
    assert verify_log(path) == 0
    assert "NOTE begins at record 3" in capfd.readouterr().out
    assert verify_log(path, older) == 1


def test_wrong_words_and_absent_files(
    path: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify_log(path, "--head", "abc") == 2
    assert verify_log(tmp_path / "nowhere") == 1
    assert "cannot be read" in capfd.readouterr().err
    (tmp_path / "empty").touch()
    assert verify_log(tmp_path / "empty") == 0
    assert "0 records" in capfd.readouterr().out


@pytest.mark.slow
def test_the_attestation_service_writes_what_it_decides(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port, path = free_port(), tmp_path / "audit"
    words = ["trustee", "--listen", f"127.0.0.1:{port}", "--state", str(tmp_path / "state")]
    words += ["--allow-simulated", str(tmp_path / "platform"), "--audit-log", str(path)]
    attest = {"aa_type": "simulated", "simulated_platform": str(tmp_path / "platform")}
    verify = {"as_addr": f"http://127.0.0.1:{port}/as/", "policy_ids": ["default"]}
    certificate = ["--cert-out", str(tmp_path / "c"), "--key-out", str(tmp_path / "k")]
    with running(tmp_path, "trustee", "-m", "tng", *words) as process:
        process.await_http(port, "/as/certificate")
        tool = ["tools", "rats-tls"]
        assert main([*tool, "gen", "--attest", json.dumps(attest), *certificate]) == 0
        judge = [*tool, "verify", "--cert", str(tmp_path / "c"), "--verify"]
        assert main([*judge, json.dumps({**verify, "allow_simulated": True})]) == 0
        assert main([*judge, json.dumps({**verify, "policy_ids": ["unknown"]})]) == 1
        assert process.stop() == 0
    found = [record for record in records(path) if record["kind"] == "decision"]
    assert [(record["act"], record["granted"]) for record in found] == [
        ("appraise", True),
        ("appraise", False),
    ]
    assert verify_log(path) == 0
