from __future__ import annotations

import base64
import logging
import pathlib

import pytest

from tng.attest.policy.factory import POLICY_ID, make_policy, policy_from_text
from tng.attest.policy.native import (
    HARDWARE_ONLY,
    HARDWARE_WITH_REFERENCE_VALUES,
    SHIPPED,
    TRUST_ALL,
    TRUSTEE_1_8_DEFAULT,
)
from tng.attest.policy.rego import RegoEngine, RegoPolicy
from tng.config.verify import AttestationPolicy
from tng.errors import ConfigError

TEXT = "package policy\n\nimport rego.v1\n\nhardware := 2\n"


class FakeEngine:
    def parse(self, text: str) -> None: ...
    def query(self, text, rules, claims, data):
        return {"hardware": 2}


def no_engine() -> RegoEngine:
    raise ConfigError(["there is no engine"])


def section(**members: object) -> AttestationPolicy:
    return AttestationPolicy.model_validate(members)


def test_nothing_means_hardware_only() -> None:
    for chosen in (None, section(type="default"), section(type="hardware_only")):
        policy = make_policy(chosen, no_engine)
        assert policy.policy_id == POLICY_ID
        assert policy.defaults == HARDWARE_ONLY.defaults
        assert policy.branches == HARDWARE_ONLY.branches


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_needs_no_engine(name: str) -> None:
    policy = make_policy(section(type=name), no_engine)
    assert policy.branches == SHIPPED[name].branches
    assert policy.defaults == SHIPPED[name].defaults


@pytest.mark.parametrize("name", ["transparency_log", "hardware_strict_with_measurements"])
def test_a_type_that_is_not_there_is_refused_by_name(name: str) -> None:
    chosen = section(type=name, **({"services": []} if name == "transparency_log" else {}))
    with pytest.raises(ConfigError, match=f"{name}' is not available in this version"):
        make_policy(chosen, no_engine)


def test_trust_all_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_policy(section(type="trust_all")).trusts_all
    assert "affirms all evidence" in caplog.text


def test_other_policies_are_not(caplog: pytest.LogCaptureFixture) -> None:
    assert not make_policy(None).trusts_all
    assert caplog.text == ""


def test_a_text_comes_inline_or_from_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "p.rego"
    path.write_text(TEXT)
    inline = section(type="inline", content=base64.b64encode(TEXT.encode()).decode())
    for chosen in (inline, section(type="path", path=str(path))):
        policy = make_policy(chosen, FakeEngine)
        assert isinstance(policy, RegoPolicy)
        assert policy.text == TEXT
        assert policy.evaluate({}, {}).vector == {"hardware": 2}


def test_a_text_without_twin_needs_the_engine() -> None:
    with pytest.raises(ConfigError, match="there is no engine"):
        policy_from_text("p", TEXT, no_engine)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"type": "inline", "content": {"a": 1}}, "expected the policy's text as base64"),
        ({"type": "inline", "content": "%%%"}, "expected UTF-8 text"),
        ({"type": "inline", "content": "/w=="}, "expected UTF-8 text"),
        ({"type": "path", "path": "/nowhere/p.rego"}, "attestation_policy.path: cannot be read"),
    ],
)
def test_a_text_that_cannot_be_had_is_refused(members: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_policy(section(**members), FakeEngine)


def test_texts_with_a_twin_are_known_by_their_hash(shared: pathlib.Path) -> None:
    folder = shared / "vectors" / "attestation" / "policies"
    for name, twin in (
        ("hardware_only", HARDWARE_ONLY),
        ("trust_all", TRUST_ALL),
        ("openanolis_v1.8.4_ear_default_policy_cpu", TRUSTEE_1_8_DEFAULT),
        ("openanolis_v1.9_ear_default_policy_cpu", HARDWARE_WITH_REFERENCE_VALUES),
    ):
        text = (folder / f"{name}.rego").read_bytes().decode()
        policy = policy_from_text("mine", text, no_engine)
        assert policy.policy_id == "mine"
        assert policy.branches == twin.branches
        with pytest.raises(ConfigError, match="no engine"):
            policy_from_text("mine", text + "\n", no_engine)
