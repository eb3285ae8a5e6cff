"""Two distributions that bring the same package are told apart before anything runs."""

from __future__ import annotations

import pytest

from tng.cli.conflict import installed_version, refuse_conflict
from tng.errors import StartError


def test_alone_all_is_well() -> None:
    refuse_conflict(lambda _: None)


def test_beside_the_other_distribution_nothing_runs_and_the_mend_is_named() -> None:
    with pytest.raises(StartError, match=r"tng-sdk 2\.12\.0 .*`pip uninstall tng-sdk`"):
        refuse_conflict({"tng-sdk": "2.12.0"}.get)


def test_versions_come_from_what_is_installed() -> None:
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("no-such-distribution-here") is None
