"""What every test can use: reference material beside the checkout, deterministic properties."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import HealthCheck, settings

ROOT = pathlib.Path(__file__).resolve().parent.parent

settings.register_profile(
    "ci",
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("deep", max_examples=20_000, deadline=None)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with specifications and vectors of third parties, beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(
            "no folder `shared` beside the checkout: third-party vectors are not part of it"
        )
    return folder
