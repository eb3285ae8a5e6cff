"""One GPU in software for all tests."""

from __future__ import annotations

import pytest

from stage.gpus import Gpu, make_gpu


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    return make_gpu()
