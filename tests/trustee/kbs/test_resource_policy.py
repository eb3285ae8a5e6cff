from __future__ import annotations

import asyncio
import hashlib
import importlib.util

import pytest

from tng.attest.kbs.resource_id import ResourceId
from tng.errors import StartError
from tng.trustee.kbs.database import Database
from tng.trustee.kbs.resource_policy import AFFIRMING_TEXT, DENY_ALL_TEXT, ResourcePolicy
from tng.trustee.problems import TrusteeRequestError
from tng.trustee.rego_process import RegoProcess

CORE = {"configuration": 2, "executables": 3, "file-system": 2, "hardware": 2}


def module(status="affirming", **changes):
    vector = {**CORE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return {"ear.status": status, "ear.trustworthiness-vector": vector}


PATH = ResourceId("default", "key", "prod")
MINE = """\
package policy

import rego.v1

allow if {
	startswith(data["resource-path"], "resource/default/")
	input.submods.cpu0["ear.status"] == "warning"
	input.iat == 5
}
"""
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("regorus") is None, reason="no Rego engine (extra `rego`)"
)


def objection(policy, submods, path=PATH):
    return asyncio.run(policy.objection({"submods": submods, "iat": 5}, path))


@pytest.fixture(scope="module")
def rego():
    with RegoProcess() as process:
        yield process


@pytest.fixture
def policy(tmp_path, rego):
    with Database.open(tmp_path / "db") as database:
        yield ResourcePolicy(database, rego.engine)


def test_the_default_wants_every_device_affirmed(policy):
    assert policy.text == AFFIRMING_TEXT
    assert objection(policy, {"cpu0": module()}) == ""
    assert objection(policy, {"cpu0": module(), "gpu0": module()}) == ""
    for status in ("none", "warning", "contraindicated", None, "Affirming"):
        assert objection(policy, {"cpu0": module(status)})
        assert objection(policy, {"cpu0": module(), "gpu0": module(status)})
    assert objection(policy, {})
    assert objection(policy, {"cpu0": "affirming"})


def test_nobody_means_nobody(policy):
    asyncio.run(policy.set(DENY_ALL_TEXT))
    assert "denies" in objection(policy, {"cpu0": module()})


def test_a_set_policy_is_still_there_after_a_restart(tmp_path):
    with Database.open(tmp_path / "db") as database:
        asyncio.run(ResourcePolicy(database).set(DENY_ALL_TEXT))
    with Database.open(tmp_path / "db") as database:
        assert ResourcePolicy(database).text == DENY_ALL_TEXT
        database.set_setting("resource-policy", "package other")
        with pytest.raises(TrusteeRequestError, match="Rego engine"):
            ResourcePolicy(database)


def test_an_unknown_text_without_an_engine_is_refused_and_changes_nothing(tmp_path):
    text = AFFIRMING_TEXT + "\n"
    with Database.open(tmp_path / "db") as database:
        policy = ResourcePolicy(database)
        with pytest.raises(TrusteeRequestError) as caught:
            asyncio.run(policy.set(text))
        assert hashlib.sha384(text.encode()).hexdigest() in str(caught.value)
        assert caught.value.http_status == 501
        assert policy.text == AFFIRMING_TEXT


@needs_engine
def test_a_text_of_ones_own_sees_the_claims_and_the_path(policy):
    asyncio.run(policy.set(MINE))
    assert objection(policy, {"cpu0": module("warning")}) == ""
    assert objection(policy, {"cpu0": module("affirming")}) == "allow is not true"
    assert objection(policy, {"cpu0": module("warning")}, ResourceId("other", "key", "prod"))
    assert objection(policy, {})


@needs_engine
@pytest.mark.parametrize(
    "value", ['"true"', "1", "[true]", '{"a": true}', "false", "null", "input.nothing"]
)
def test_only_true_is_a_yes(policy, value):
    asyncio.run(policy.set(f"package policy\n\nallow := {value}\n"))
    assert objection(policy, {"cpu0": module()})


@needs_engine
def test_what_stops_with_an_error_says_no(policy):
    asyncio.run(policy.set("package policy\n\nimport rego.v1\n\nallow if contains(1, input.iat)\n"))
    assert "cannot be evaluated" in objection(policy, {"cpu0": module()})


@needs_engine
@pytest.mark.parametrize("text", ["package other", "package policy\nallow {", "\n"])
def test_a_text_that_is_no_policy_is_the_administrators_fault(policy, text):
    with pytest.raises(TrusteeRequestError) as caught:
        asyncio.run(policy.set(text))
    assert caught.value.http_status == 400
    assert policy.text == AFFIRMING_TEXT


@needs_engine
def test_our_own_text_says_in_rego_what_its_twin_says(policy):
    asyncio.run(policy.set(AFFIRMING_TEXT + "\n"))
    assert objection(policy, {"cpu0": module(), "gpu0": module()}) == ""
    assert objection(policy, {"cpu0": module(), "gpu0": module("warning")})
    assert objection(policy, {})


def test_the_policies_that_trustee_ships_are_known(policy, shared, caplog):
    texts = shared / "vectors" / "attestation" / "policies"

    def put(name):
        caplog.clear()
        asyncio.run(policy.set((texts / f"{name}.rego").read_text()))

    put("affirming")
    assert objection(policy, {"cpu0": module("warning")})
    put("deny_all")
    assert objection(policy, {"cpu0": module()})
    put("openanolis_kbs_default_policy")
    assert objection(policy, {"cpu0": module("warning", hardware=32)}) == ""
    assert objection(policy, {"cpu0": module(hardware=-97)}) == ""
    assert "hardware" in objection(policy, {"cpu0": module(hardware=33)})
    assert objection(policy, {"gpu0": module()})
    assert objection(policy, {"cpu0": module(hardware="2")})
    assert objection(policy, {"cpu0": module(hardware=True)})
    assert "for tests only" not in caplog.text
    put("allow_all")
    assert objection(policy, {"cpu0": module("contraindicated")}) == ""
    assert "for tests only" in caplog.text


def test_a_stored_policy_that_cannot_be_evaluated_ends_the_start(start, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    with Database.open(tmp_path / "state" / "broker.sqlite") as database:
        database.set_setting("resource-policy", "package other")
    with pytest.raises(StartError, match="stored resource policy"):
        start()
