"""Which collateral settings the command line hands to judges."""

from __future__ import annotations

import pytest

from tng.attest.tdx.collateral import INTEL_PCS_URL
from tng.attest.verifier.trustee import TrusteeVerifier
from tng.cli.collateral import judge_with_surroundings, settings_for
from tng.clock import SystemClock
from tng.config.model import Verify
from tng.errors import ConfigError

BUILTIN = Verify.model_validate({"as_type": "builtin"})
REMOTE = Verify.model_validate({"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]})


def test_the_environment_is_looked_at_for_the_builtin_service_alone(tmp_path):
    bad = {"PCCS_URL": "ftp://no"}
    assert settings_for((REMOTE,), bad, tmp_path / "gone") is None
    with pytest.raises(ConfigError, match="PCCS_URL"):
        settings_for((REMOTE, BUILTIN), bad, tmp_path / "gone")


def test_the_file_of_the_vendors_tools_counts_where_it_is_there(tmp_path):
    file = tmp_path / "qcnl.conf"
    settings = settings_for((BUILTIN,), {}, file)
    assert settings is not None
    assert settings.urls == (INTEL_PCS_URL,)
    file.write_text('{"pccs_url": "https://pccs.example"}')
    settings = settings_for((BUILTIN,), {}, file)
    assert settings is not None
    assert settings.urls == ("https://pccs.example",)
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"qcnl\.conf"):
        settings_for((BUILTIN,), {}, file)


def test_a_judge_comes_of_it(monkeypatch):
    monkeypatch.setenv("PCCS_URLS", "https://one.example")
    judge = judge_with_surroundings((BUILTIN,), SystemClock())
    assert isinstance(judge, TrusteeVerifier)
    assert judge.models == ("background_check",)
