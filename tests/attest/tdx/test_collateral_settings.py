"""Where collateral comes from, in the order of the surroundings that say it."""

from __future__ import annotations

import pytest

from tng.attest.tdx.collateral import INTEL_PCS_URL
from tng.attest.tdx.collateral_settings import CollateralSettings, collateral_settings, shown
from tng.errors import ConfigError

QCNL = '// comment\n{\n  // "pccs_url": "https://no",\n  "pccs_url": "https://q/sgx/certification/v4/",\n}'


@pytest.mark.parametrize(
    ("environment", "qcnl", "urls"),
    [
        ({}, "", (INTEL_PCS_URL,)),
        ({}, QCNL, ("https://q/sgx/certification/v4/",)),
        ({}, "PCCS_URL=https://q\nUSE_SECURE_CERT=TRUE\n", ("https://q",)),
        ({"PCCS_URL": "http://a"}, QCNL, ("http://a",)),
        ({"PCCS_URL": "http://a", "PCCS_URLS": "http://b, https://c"}, "", ("http://b", "https://c")),
        ({"PCCS_URLS": "", "PCCS_URL": "http://a"}, "", ("http://a",)),
    ],
)  # fmt: skip
def test_the_first_word_counts(environment, qcnl, urls):
    assert collateral_settings(environment, qcnl).urls == urls


def test_folders_are_named_by_variables_of_ours(tmp_path):
    environment = {
        "TNG_COLLATERAL_CACHE": str(tmp_path / "new"),
        "TNG_COLLATERAL_BUNDLE": str(tmp_path),
    }
    assert collateral_settings(environment) == CollateralSettings(
        cache=tmp_path / "new", bundle=tmp_path
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PCCS_URL": "ftp://a"},
        {"PCCS_URL": "a"},
        {"PCCS_URL": "http://"},
        {"PCCS_URL": "http://[::1"},
        {"PCCS_URLS": "http://a," * 8 + "http://a"},
        {"TNG_COLLATERAL_BUNDLE": "/nowhere/at/all"},
    ],
)
def test_a_setting_that_cannot_be_used_is_named(environment):
    with pytest.raises(ConfigError, match=next(iter(environment))):
        collateral_settings(environment)


def test_a_url_is_shown_without_its_password():
    assert shown("https://user:s3cret@h:5/x?k=1") == "https://h:5"
