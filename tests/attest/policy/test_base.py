from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.policy.base import CLAIMS, VALUES, Rule, Tier, make_appraisal, tier_of
from tng.errors import ErrorCode, UntrustedPeerError
from tng.verdict import Outcome

# As measured on the attestation service itself.
EDGES = [
    (-128, "contraindicated"),
    (-97, "contraindicated"),
    (-96, "warning"),
    (-33, "warning"),
    (-32, "affirming"),
    (-2, "affirming"),
    (-1, "none"),
    (0, "none"),
    (1, "none"),
    (2, "affirming"),
    (31, "affirming"),
    (32, "warning"),
    (95, "warning"),
    (96, "contraindicated"),
    (127, "contraindicated"),
]


@pytest.mark.parametrize(("value", "tier"), EDGES)
def test_each_tier_ends_where_the_draft_says(value: int, tier: str) -> None:
    assert tier_of(value) == tier


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(None, "skip"), (0, "skip"), (2, "pass"), (3, "pass"), (33, "fail"), (97, "fail")],
)
def test_only_an_affirming_value_passes(value: int | None, outcome: str) -> None:
    assert Rule("hardware", value, "").outcome == outcome


@given(st.dictionaries(st.sampled_from(CLAIMS), st.sampled_from(VALUES), min_size=1))
def test_the_status_is_the_worst_tier_and_no_rule_is_lost(values: dict[str, int]) -> None:
    appraisal = make_appraisal("p", values, {})
    assert appraisal.vector == values
    assert tuple(rule.claim for rule in appraisal.rules) == CLAIMS
    order = list(Tier)
    assert order.index(appraisal.status) == max(order.index(tier_of(v)) for v in values.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "sets no trust claim"),
        ({"file_system": 2}, "'file_system', which is no trust claim"),
        ({"hardware": 128}, "hardware to 128, expected -128 to 127"),
        ({"hardware": -129}, "hardware to -129"),
    ],
)
def test_what_is_no_vector_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(UntrustedPeerError, match=message) as caught:
        make_appraisal("p", values, {})
    assert caught.value.code is ErrorCode.POLICY_DENIED


def test_an_affirming_appraisal_is_accepted_even_with_claims_that_assert_nothing() -> None:
    make_appraisal("p", {"hardware": 2, "file-system": 0}, {}).require_affirming()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hardware": 97, "executables": 2}, "contraindicated: hardware is 97: why"),
        ({"hardware": 36}, "warning: hardware is 36"),
        ({"hardware": 0}, "says none: no claim is affirmed"),
    ],
)
def test_any_other_appraisal_is_refused_with_its_reasons(
    values: dict[str, int], message: str
) -> None:
    with pytest.raises(UntrustedPeerError, match=message) as caught:
        make_appraisal("p", values, {"hardware": "why"}).require_affirming()
    assert caught.value.code is ErrorCode.POLICY_DENIED


def test_a_claim_that_is_not_set_is_a_skip() -> None:
    rules = {rule.claim: rule for rule in make_appraisal("p", {"hardware": 2}, {}).rules}
    assert rules["executables"].outcome is Outcome.SKIP
    assert rules["executables"].tier is Tier.NONE
    assert rules["executables"].reason == "not set by this policy"
