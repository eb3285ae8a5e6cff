from __future__ import annotations

import asyncio

import pytest

from tng.errors import StartError
from tng.trustee.policies import MAX_UPLOADED, Policies
from tng.trustee.policy import HARDWARE_ONLY_TEXT, TRUST_ALL_TEXT
from tng.trustee.problems import TrusteeRequestError
from tng.trustee.state import StateDirectory


def put(policies, policy_id, text):
    return asyncio.run(policies.put(policy_id, text))


@pytest.fixture
def state(tmp_path):
    with StateDirectory.open(tmp_path / "state") as directory:
        yield directory


def test_no_policy_id_means_the_default(state):
    assert Policies(state).chosen_by(()).policy_id == "default"
    assert Policies(state).chosen_by(("trust_all",)).policy_id == "trust_all"


@pytest.mark.parametrize("ids", [("nothing",), ("default", "trust_all")])
def test_an_unknown_policy_and_two_policies_are_refused(state, ids):
    with pytest.raises(TrusteeRequestError) as caught:
        Policies(state).chosen_by(ids)
    assert caught.value.http_status == 400


def test_an_uploaded_policy_survives_a_restart(state):
    put(Policies(state), "mine", TRUST_ALL_TEXT)
    again = Policies(state)
    assert again.get("mine").trusts_all
    assert [policy.policy_id for policy in again.all()] == [
        "default",
        "hardware_only",
        "mine",
        "trust_all",
    ]


def test_a_deleted_policy_is_gone_and_shows_the_built_in_one_again(state):
    policies = Policies(state)
    put(policies, "hardware_only", TRUST_ALL_TEXT)
    assert policies.get("hardware_only").trusts_all
    asyncio.run(policies.delete("hardware_only"))
    assert not policies.get("hardware_only").trusts_all
    assert not Policies(state).get("hardware_only").trusts_all


@pytest.mark.parametrize(
    ("policy_id", "status"), [("default", 400), ("trust_all", 400), ("x", 404)]
)
def test_what_cannot_be_deleted_says_why(state, policy_id, status):
    policies = Policies(state)
    put(policies, "default", HARDWARE_ONLY_TEXT)
    with pytest.raises(TrusteeRequestError) as caught:
        asyncio.run(policies.delete(policy_id))
    assert caught.value.http_status == status


def test_a_refused_text_is_not_stored(state):
    with pytest.raises(TrusteeRequestError):
        put(Policies(state), "mine", "package policies")
    assert state.policies() == {}


def test_a_stored_policy_that_nothing_evaluates_stops_the_start(state):
    state.write_policy("mine", "package policies")
    with pytest.raises(StartError, match="mine"):
        Policies(state)


def test_the_number_of_uploaded_policies_is_bounded(state):
    policies = Policies(state)
    policies._uploaded = {f"p{n}": policies.get("default") for n in range(MAX_UPLOADED)}
    with pytest.raises(TrusteeRequestError, match="already"):
        put(policies, "one-more", TRUST_ALL_TEXT)
    put(policies, "p0", TRUST_ALL_TEXT)


def test_trust_all_is_announced(state, caplog):
    put(Policies(state), "mine", TRUST_ALL_TEXT)
    assert "mine affirms all evidence" in caplog.text
