from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tng.cli import trustee as command
from tng.endpoint import Endpoint
from tng.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RUN = """\
import argparse, sys
from tng.cli import trustee
parser = argparse.ArgumentParser()
trustee.add_parser(parser.add_subparsers())
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
"""


def _settings(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    return command._settings(parser.parse_args(["trustee", *words]))


def test_the_defaults_are_safe(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = _settings()
    assert settings.listen == Endpoint("127.0.0.1", 50005)
    assert settings.state == tmp_path / "tng" / "trustee"
    assert settings.simulated is None
    assert not settings.allow_sample
    assert (settings.admin_key, settings.resource_key) == (None, None)
    assert not settings.release_to_simulated
    assert (settings.grpc, settings.reference_keys) == (None, ())
    assert settings.allowed_tcb_status == {"UpToDate"}
    assert settings.pccs.startswith("https://api.trustedservices.intel.com")


@pytest.mark.parametrize("value", ["", "relative"])
def test_an_unusable_state_home_is_ignored(monkeypatch, tmp_path, value):
    monkeypatch.setenv("XDG_STATE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _settings().state == tmp_path / ".local" / "state" / "tng" / "trustee"


def test_every_option_is_taken(tmp_path):
    settings = _settings(
        *("--listen", "[::1]:0", "--state", str(tmp_path), "--pccs", "http://p:8081"),
        *("--allow-simulated", str(tmp_path / "p"), "--allow-sample"),
        *("--allow-tcb-status", "OutOfDate", "--allow-tcb-status", "SWHardeningNeeded"),
        *("--grpc", "127.0.0.1:50004", "--reference-key", "1.pem", "--reference-key", "2.pem"),
        *("--admin-key", "a.pem", "--resource-key", "r.bin", "--release-to-simulated"),
    )
    assert settings.listen == Endpoint("::1", 0)
    assert settings.state == tmp_path
    assert settings.pccs == "http://p:8081"
    assert settings.simulated == tmp_path / "p"
    assert settings.allow_sample
    assert (settings.admin_key, settings.resource_key) == (Path("a.pem"), Path("r.bin"))
    assert settings.release_to_simulated
    assert settings.grpc == Endpoint("127.0.0.1", 50004)
    assert settings.reference_keys == (Path("1.pem"), Path("2.pem"))
    assert settings.allowed_tcb_status == {"UpToDate", "OutOfDate", "SWHardeningNeeded"}
    assert _settings("--listen", "10.0.0.1:80").listen == Endpoint("10.0.0.1", 80)


@pytest.mark.parametrize(
    "words",
    [
        ("--listen", "127.0.0.1"),
        ("--listen", ":0"),
        ("--listen", "127.0.0.1:x"),
        ("--listen", "127.0.0.1:70000"),
        ("--pccs", "ftp://x"),
        ("--grpc", "127.0.0.1"),
    ],
)
def test_a_wrong_value_is_a_config_error_that_names_the_option(words):
    with pytest.raises(ConfigError, match=words[0]):
        _settings(*words)


@pytest.mark.parametrize("status", ["Revoked", "uptodate"])
def test_a_tcb_status_that_cannot_be_accepted_is_refused(status, capsys):
    with pytest.raises(SystemExit):
        _settings("--allow-tcb-status", status)
    assert "--allow-tcb-status" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_where_it_listens_and_ends_cleanly(tmp_path, number):
    words = ["trustee", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "state")]
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:")
        with urllib.request.urlopen(line.split()[-1] + "/status", timeout=10) as answer:
            assert json.load(answer)["status"] == "ok"
        process.send_signal(number)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
