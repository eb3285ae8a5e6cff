"""tng.attest.attester.factory: one attester per way of asking, and no default."""

from __future__ import annotations

import pathlib

import pytest

from tng.attest.attester.agent import AgentAttester
from tng.attest.attester.asr import AsrAttester
from tng.attest.attester.factory import make_attester
from tng.attest.attester.simulated import SimulatedAttester
from tng.attest.attester.tsm import TsmAttester
from tng.config.model import Attest
from tng.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"aa_addr": "unix:///run/aa.sock"}, AgentAttester),
        ({"aa_provider": "coco_asr", "asr_addr": "http://127.0.0.1:8006"}, AsrAttester),
        ({"aa_type": "tsm"}, TsmAttester),
        ({"aa_type": "simulated", "simulated_platform": "/platform"}, SimulatedAttester),
    ],
)
def test_each_section_gives_its_attester(section: dict[str, str], expected: type) -> None:
    assert isinstance(make_attester(Attest.model_construct(**section)), expected)


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"aa_type": "builtin"},
        {"aa_type": "simulated"},
        {"aa_provider": "coco_asr"},
        {"aa_provider": "ita", "aa_addr": "unix:///run/aa.sock"},
        {"aa_provider": "ita_asr", "asr_addr": "http://127.0.0.1:8006"},
    ],
)
def test_a_section_that_names_no_source_is_refused(section: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="no evidence source"):
        make_attester(Attest.model_construct(**section))


async def test_the_agent_is_asked_at_the_path_of_the_address(tmp_path: pathlib.Path) -> None:
    section = Attest.model_construct(aa_addr=f"unix://{tmp_path}/aa.sock")
    with pytest.raises(Exception, match=f"unix://{tmp_path}/aa.sock"):
        await make_attester(section).get_evidence(b"x")
