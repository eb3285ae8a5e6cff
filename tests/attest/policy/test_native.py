"""The shipped policies by what they accept, and the nearest thing that they refuse.

That they say what their texts say is held by test_cross_check.
"""

from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.policy.native import SHIPPED
from tng.errors import UntrustedPeerError


def event(kind: str, digest: str, **details: object) -> dict[str, object]:
    digests = [{"alg": "SHA-384", "digest": digest}]
    return {"type_name": kind, "details": details, "digests": digests}


LOG = [
    event("EV_EFI_BOOT_SERVICES_APPLICATION", "a1", device_paths=["File(shimx64.efi)"]),
    event("EV_EFI_BOOT_SERVICES_APPLICATION", "a2", device_paths=["File(grubx64.efi)"]),
    event("EV_IPL", "a3", string="grub_cmd linux /vmlinuz"),
    event("EV_IPL", "a4", string="Kernel: /vmlinuz"),
    event("EV_IPL", "a5", string="Initrd: /initrd"),
]
TDX = {
    "quote": {
        "header": {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"},
        "body": {"xfam": "e7", "td_attributes": "0000001000000000"},
    },
    "uefi_event_logs": LOG,
}
KNOWN = {
    "measurement.shim.SHA-384": ["a1"],
    "measurement.grub.SHA-384": ["a2"],
    "measurement.kernel_cmdline.SHA-384": ["a3"],
    "measurement.kernel.SHA-384": ["a4"],
    "measurement.initrd.SHA-384": ["a5"],
    "tdx.xfam": ["e7"],
    "measurement.model.m": ["aa"],
}
every_policy = pytest.mark.parametrize("name", SHIPPED)
MEASURING = ("hardware_with_reference_values", "hardware_strict_with_reference_values")
STRICT = ("hardware_only_strict", "hardware_strict_with_reference_values")


def vector(name: str, claims: dict[str, object], references: object = KNOWN) -> dict[str, int]:
    return SHIPPED[name].evaluate(claims, references).vector


def reason(name: str, claim: str, claims: dict[str, object], references: object = KNOWN) -> str:
    rules = SHIPPED[name].evaluate(claims, references).rules
    return next(rule.reason for rule in rules if rule.claim == claim)


@every_policy
def test_a_known_guest_is_affirmed(name: str) -> None:
    SHIPPED[name].evaluate({"tdx": TDX}, KNOWN).require_affirming()


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "trust_all"])
@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sample": {"svn": "1"}},
        {"nvidia": {}},
        {"tdx": {}},
        {"tdx": {**TDX, "quote": {"header": {"tee_type": "81000000"}}}},
        {"csv": {"version": "3"}},
        {"tpm": False},
    ],
)
def test_hardware_that_is_not_recognised_is_refused(name: str, claims: dict[str, object]) -> None:
    assert vector(name, claims)["hardware"] == 97
    with pytest.raises(UntrustedPeerError, match="contraindicated"):
        SHIPPED[name].evaluate(claims, KNOWN).require_affirming()


def test_trust_all_affirms_anything_and_says_so() -> None:
    assert set(vector("trust_all", {}).values()) == {2}
    assert [name for name, policy in SHIPPED.items() if policy.trusts_all] == ["trust_all"]


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize("attributes", ["0100001000000000", "0f", "0A", "", "g0"])
def test_the_strict_policies_refuse_a_debug_guest(name: str, attributes: str) -> None:
    claims = copy.deepcopy({"tdx": TDX})
    claims["tdx"]["quote"]["body"]["td_attributes"] = attributes
    assert vector(name, claims)["hardware"] == 97
    assert "expected debug to be off" in reason(name, "hardware", claims)


@pytest.mark.parametrize("name", STRICT)
@pytest.mark.parametrize("log", [{}, {"uefi_event_logs": []}])
def test_the_strict_policies_refuse_a_guest_without_event_log(
    name: str, log: dict[str, object]
) -> None:
    claims = {"tdx": {"quote": TDX["quote"], **log}}
    assert reason(name, "hardware", claims) == "tdx: there is no event log"


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("missing", [name for name in KNOWN if "model" not in name])
def test_a_measurement_without_reference_value_is_refused(name: str, missing: str) -> None:
    fewer = {key: value for key, value in KNOWN.items() if key != missing}
    with pytest.raises(UntrustedPeerError, match="says warning") as caught:
        SHIPPED[name].evaluate({"tdx": TDX}, fewer).require_affirming()
    assert missing in str(caught.value)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (LOG[1:], "names no shim"),
        ([*LOG, event("EV_IPL", "ff", string="Kernel: /other")], "different digests of kernel"),
        ([*LOG[:4], {**LOG[4], "digests": []}], "names no initrd"),
    ],
)
def test_a_boot_log_must_name_each_component_once(log: list[object], words: str) -> None:
    claims = {"tdx": {**TDX, "uefi_event_logs": log}}
    assert words in reason(MEASURING[0], "executables", claims)
    assert vector(MEASURING[0], claims)["executables"] == 33


def test_claims_of_another_form_end_evaluation() -> None:
    claims = {"tdx": {**TDX, "uefi_event_logs": [event("EV_IPL", "a", string=3), *LOG]}}
    with pytest.raises(UntrustedPeerError, match="expected text at details"):
        SHIPPED[MEASURING[0]].evaluate(claims, KNOWN)


def test_no_command_line_is_refused() -> None:
    claims = {"tdx": {**TDX, "uefi_event_logs": [*LOG[:2], *LOG[3:]]}}
    assert "names no kernel_cmdline" in reason(MEASURING[0], "configuration", claims)


TPM = {
    "kernel_cmdline": "ro",
    **{
        f"measurement.{part}.SHA-256": "aa"
        for part in ("grub", "shim", "initrd", "kernel", "kernel_cmdline")
    },
}
TPM_KNOWN = {name: ["aa"] for name in TPM if name != "kernel_cmdline"}


@pytest.mark.parametrize("tee", ["tpm", "hygontpm"])
def test_a_tpm_is_known_by_its_digests(tee: str) -> None:
    assert vector(MEASURING[0], {tee: TPM}, TPM_KNOWN) == {
        "executables": 3,
        "hardware": 2,
        "configuration": 2,
        "file-system": 2,
    }
    for name in TPM_KNOWN:
        fewer = {key: value for key, value in TPM_KNOWN.items() if key != name}
        with pytest.raises(UntrustedPeerError, match=r"not known from reference values"):
            SHIPPED[MEASURING[0]].evaluate({tee: TPM}, fewer).require_affirming()
    assert vector(MEASURING[0], {tee: {**TPM, "kernel_cmdline": None}}, TPM_KNOWN)
    bare = {name: value for name, value in TPM.items() if name != "kernel_cmdline"}
    assert vector(MEASURING[0], {tee: bare}, TPM_KNOWN)["configuration"] == 36


def loaded(content: object, **changes: str) -> dict[str, object]:
    data = {"domain": "trustiflux.alibaba.com", "operation": "load-model", "content": content}
    return event("EV_EVENT_TAG", "00", unicode_name="AAEL", data=data | changes)


@pytest.mark.parametrize(
    ("log", "value"),
    [
        ([], 3),
        ([loaded('{"model-id":"m","hash":"aa"}')], 3),
        ([loaded("{", domain="file")], 3),
        ([loaded("{", operation="other")], 3),
        ([event("EV_EVENT_TAG", "0", unicode_name="other")], 3),
        ([loaded('{"model-id":"m","hash":"bb"}')], 33),
        ([loaded('{"model-id":"n","hash":"aa"}')], 33),
        ([loaded('{"model-id":"m"}')], 33),
        ([loaded("{")], 33),
    ],
)
def test_models_that_were_loaded_must_be_known(log: list[object], value: int) -> None:
    assert vector(MEASURING[0], {"system": {"uefi_event_logs": log}})["executables"] == value


def test_a_system_without_log_has_no_known_executables() -> None:
    assert reason(MEASURING[0], "executables", {"system": {}}) == "system: there is no event log"


def test_snp_is_refused_where_debug_is_allowed() -> None:
    fine = {"policy_debug_allowed": "0", "policy_migrate_ma": "0"}
    SHIPPED[MEASURING[0]].evaluate({"snp": fine}, {}).require_affirming()
    for name in fine:
        assert vector(MEASURING[0], {"snp": {**fine, name: "1"}})["configuration"] == 36


def test_claims_of_two_tees_that_disagree_keep_the_default() -> None:
    claims = {"tdx": TDX, "snp": {"policy_debug_allowed": "0", "policy_migrate_ma": "0"}}
    assert reason(MEASURING[0], "file-system", claims) == "different values for tdx, snp"
    assert vector(MEASURING[0], claims)["file-system"] == 35


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["quote", "header", "body", "uefi_event_logs", "details", "x"]), inner
        )
    ),
    max_leaves=10,
)


@every_policy
@given(claims=st.dictionaries(st.sampled_from(["tdx", "tpm", "system", "snp", "csv"]), ANYTHING))
def test_any_claims_give_a_vector_or_a_refusal(name: str, claims: dict[str, object]) -> None:
    with contextlib.suppress(UntrustedPeerError):
        assert SHIPPED[name].evaluate(claims, KNOWN).vector
