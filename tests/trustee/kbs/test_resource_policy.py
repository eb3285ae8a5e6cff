from __future__ import annotations

import asyncio
import hashlib

import pytest

from tng.errors import StartError
from tng.trustee.kbs.database import Database
from tng.trustee.kbs.resource_policy import AFFIRMING_TEXT, DENY_ALL_TEXT, ResourcePolicy
from tng.trustee.problems import TrusteeRequestError

CORE = {"configuration": 2, "executables": 3, "file-system": 2, "hardware": 2}


def module(status="affirming", **changes):
    vector = {**CORE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return {"ear.status": status, "ear.trustworthiness-vector": vector}


@pytest.fixture
def policy(tmp_path):
    with Database.open(tmp_path / "db") as database:
        yield ResourcePolicy(database)


def test_the_default_wants_every_device_affirmed(policy):
    assert policy.text == AFFIRMING_TEXT
    assert policy.objection({"cpu0": module()}) == ""
    assert policy.objection({"cpu0": module(), "gpu0": module()}) == ""
    for status in ("none", "warning", "contraindicated", None, "Affirming"):
        assert policy.objection({"cpu0": module(status)})
        assert policy.objection({"cpu0": module(), "gpu0": module(status)})
    assert policy.objection({})
    assert policy.objection({"cpu0": "affirming"})


def test_nobody_means_nobody(policy):
    asyncio.run(policy.set(DENY_ALL_TEXT))
    assert "denies" in policy.objection({"cpu0": module()})


def test_a_set_policy_is_still_there_after_a_restart(tmp_path):
    with Database.open(tmp_path / "db") as database:
        asyncio.run(ResourcePolicy(database).set(DENY_ALL_TEXT))
    with Database.open(tmp_path / "db") as database:
        assert ResourcePolicy(database).text == DENY_ALL_TEXT
        database.set_setting("resource-policy", "package other")
        with pytest.raises(TrusteeRequestError, match="Rego engine"):
            ResourcePolicy(database)


def test_an_unknown_text_is_refused_and_changes_nothing(policy):
    text = AFFIRMING_TEXT + "\n"
    with pytest.raises(TrusteeRequestError) as caught:
        asyncio.run(policy.set(text))
    assert hashlib.sha384(text.encode()).hexdigest() in str(caught.value)
    assert policy.text == AFFIRMING_TEXT


def test_the_policies_that_trustee_ships_are_known(policy, shared, caplog):
    texts = shared / "vectors" / "attestation" / "policies"

    def put(name):
        caplog.clear()
        asyncio.run(policy.set((texts / f"{name}.rego").read_text()))

    put("affirming")
    assert policy.objection({"cpu0": module("warning")})
    put("deny_all")
    assert policy.objection({"cpu0": module()})
    put("openanolis_kbs_default_policy")
    assert policy.objection({"cpu0": module("warning", hardware=32)}) == ""
    assert policy.objection({"cpu0": module(hardware=-97)}) == ""
    assert "hardware" in policy.objection({"cpu0": module(hardware=33)})
    assert policy.objection({"gpu0": module()})
    assert policy.objection({"cpu0": module(hardware="2")})
    assert policy.objection({"cpu0": module(hardware=True)})
    assert "for tests only" not in caplog.text
    put("allow_all")
    assert policy.objection({"cpu0": module("contraindicated")}) == ""
    assert "for tests only" in caplog.text


def test_a_stored_policy_that_cannot_be_evaluated_ends_the_start(start, tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    with Database.open(tmp_path / "state" / "broker.sqlite") as database:
        database.set_setting("resource-policy", "package other")
    with pytest.raises(StartError, match="stored resource policy"):
        start()
