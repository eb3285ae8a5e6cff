"""`tng tools quote`: every way to hand over a quote, every outcome, and its exit status."""

from __future__ import annotations

import argparse
import base64
import json

import pytest

from tng.attest.binding import canonical_json, report_data
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.cli import tools_quote
from tng.errors import AppraiserError, ConfigError, ErrorCode, StartError, UntrustedPeerError

NOW = 1_767_225_600
RUNTIME_DATA = {"key": "value"}
REPORT_DATA = report_data(canonical_json(RUNTIME_DATA))


@pytest.fixture(scope="module")
def platform() -> SimulatedPlatform:
    return SimulatedPlatform.build(now=NOW, init_data_digest=b"i" * 48)


@pytest.fixture
def folder(platform, tmp_path):
    evidence = platform.evidence(REPORT_DATA)
    quote = base64.b64decode(json.loads(evidence)["quote"])
    (tmp_path / "evidence.json").write_bytes(evidence)
    (tmp_path / "quote.bin").write_bytes(quote)
    (tmp_path / "quote.hex").write_text(f"0x{quote.hex()}\n")
    (tmp_path / "quote.b64").write_bytes(base64.encodebytes(quote))
    (tmp_path / "ccel.bin").write_bytes(platform.event_log.to_bytes())
    (tmp_path / "root.der").write_bytes(platform.root_der)
    (tmp_path / "runtime.json").write_text(json.dumps(RUNTIME_DATA))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "c.json").write_text(platform.collateral(NOW).to_json())
    return tmp_path


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    tools_quote.add_parser(parser.add_subparsers())
    options = parser.parse_args(["quote", *map(str, words)])
    status: int = options.run(options)
    return status


def verify(folder, *words: object, file: str = "evidence.json") -> int:
    given = ("--collateral", folder / "bundle", "--root", folder / "root.der", "--at", NOW)
    return run("verify", folder / file, *given, *words)


@pytest.mark.parametrize("name", ["quote.bin", "quote.hex", "quote.b64"])
def test_a_quote_is_read_however_it_is_written(folder, capsys, platform, name):
    assert run("decode", folder / name, "--event-log", folder / "ccel.bin") == 0
    said = capsys.readouterr().out
    assert f"quote.body.mr_td: {platform.mr_td.hex()}" in said
    assert "attributes: sept_ve_disable" in said
    assert "measurements: kernel SHA-384" in said
    assert "pck.simulated: yes" in said
    assert "SKIP  3 quote signature" in said
    assert "PASS 10 event log" in said


def test_what_a_quote_says_is_also_json(folder, capsys):
    assert run("decode", folder / "evidence.json", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["quote"]["body"]["report_data"] == REPORT_DATA.ljust(64, b"\0").hex()
    assert [check["outcome"] for check in said["checks"]] == ["skip", "pass"]


def test_a_quote_without_a_log_has_no_measurements(folder, capsys):
    assert run("decode", folder / "quote.bin") == 0
    said = capsys.readouterr().out
    assert "measurements: none" in said
    assert "SKIP 10 event log: there is none" in said


def test_a_log_of_another_machine_fails_the_reading(folder, capsys):
    log = (folder / "ccel.bin").read_bytes()
    (folder / "other.bin").write_bytes(log[:-9] + bytes([log[-9] ^ 1]) + log[-8:])
    assert run("decode", folder / "quote.bin", "--event-log", folder / "ccel.bin") == 0
    changed = log.replace(log[200:210], bytes(10))
    (folder / "other.bin").write_bytes(changed)
    assert run("decode", folder / "quote.bin", "--event-log", folder / "other.bin") == 1
    assert "FAIL 10 event log" in capsys.readouterr().out


def test_a_good_quote_is_accepted_and_every_check_is_shown(folder, capsys):
    assert verify(folder, "--report-data", REPORT_DATA.hex(), "--init-data", "69" * 48) == 0
    said = capsys.readouterr().out
    assert "accepted: yes" in said
    assert "simulated: yes" in said
    assert "tcb_status: UpToDate" in said
    assert said.count("PASS") == 10
    assert "claims" not in said


def test_runtime_data_stand_for_the_report_data(folder, capsys):
    assert verify(folder, "--runtime-data", folder / "runtime.json", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["accepted"] is True
    assert said["checks"][7]["outcome"] == "pass"
    assert said["checks"][8]["outcome"] == "skip"
    assert said["claims"]["tdx"]["simulated_platform"] is True
    (folder / "runtime.json").write_text('{"key": "other"}')
    with pytest.raises(UntrustedPeerError, match="report data"):
        verify(folder, "--runtime-data", folder / "runtime.json")


def test_a_check_that_was_given_up_is_never_shown_as_passed(folder, capsys):
    assert verify(folder, "--unbound", file="quote.bin") == 0
    said = capsys.readouterr().out
    assert "SKIP  8 report data" in said
    assert said.count("PASS") == 7
    assert said.count("SKIP") == 3


def test_a_quote_for_another_key_is_refused(folder, capsys):
    with pytest.raises(UntrustedPeerError) as caught:
        verify(folder, "--report-data", "00", "--json")
    assert caught.value.code is ErrorCode.BINDING_MISMATCH
    said = json.loads(capsys.readouterr().out)
    assert (said["accepted"], said["code"]) == (False, "binding_mismatch")
    assert [check["outcome"] for check in said["checks"]][7:] == ["fail", "skip", "skip"]


def test_simulated_evidence_is_refused_without_its_root(folder, capsys):
    words = ("--collateral", folder / "bundle", "--at", NOW, "--unbound")
    with pytest.raises(UntrustedPeerError) as caught:
        run("verify", folder / "evidence.json", *words)
    assert caught.value.code is ErrorCode.SIMULATED_EVIDENCE
    assert "FAIL  3 quote signature" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("time", "code"),
    [("2030-01-01", ErrorCode.COLLATERAL_EXPIRED), ("2026-01-01T00:00:00+00:00", None)],
)
def test_time_is_what_is_said(folder, time, code):
    words = ("--collateral", folder / "bundle", "--root", folder / "root.der", "--unbound")
    given = ("verify", folder / "quote.bin", *words, "--at", time)
    if code is None:
        assert run(*given) == 0
        return
    with pytest.raises(UntrustedPeerError) as caught:
        run(*given)
    assert caught.value.code is code


def test_now_is_the_time_otherwise(folder):
    words = ("--collateral", folder / "bundle", "--root", folder / "root.der", "--unbound")
    with pytest.raises(UntrustedPeerError):
        run("verify", folder / "quote.bin", *words)


def test_a_root_may_be_pem(folder, capsys):
    text = base64.encodebytes((folder / "root.der").read_bytes()).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
    (folder / "root.der").write_text(pem)
    assert verify(folder, "--unbound") == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--report-data", "xy"), "--report-data: expected hexadecimal"),
        (("--report-data", "00" * 65), "at most 64 octets"),
        (("--unbound", "--at", "noon"), "--at: expected"),
        (("--unbound", "--event-log", "x"), "--event-log: goes with a quote"),
        (("--unbound", "--root", __file__), "--root: .* holds no certificate"),
        (("--runtime-data", __file__), "--runtime-data: not a JSON object"),
    ],
)
def test_wrong_options_are_named(folder, words, match):
    with pytest.raises(ConfigError, match=match):
        verify(folder, *words)


def test_what_a_quote_is_bound_to_must_be_said(folder, capsys):
    with pytest.raises(SystemExit):
        verify(folder)
    assert "required" in capsys.readouterr().err


def test_files_that_are_not_there_are_named(folder):
    with pytest.raises(StartError, match="cannot be read"):
        run("decode", folder / "none")
    (folder / "bundle" / "c.json").unlink()
    with pytest.raises(AppraiserError, match="no collateral"):
        verify(folder, "--unbound")


def test_garbage_is_no_quote(folder):
    for garbage in (b"\xff" * 100, b"{}", b"", b"00"):
        (folder / "x").write_bytes(garbage)
        with pytest.raises(UntrustedPeerError):
            run("decode", folder / "x")
