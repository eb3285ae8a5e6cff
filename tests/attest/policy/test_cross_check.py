"""The native policies and the texts that they are twins of say the same, by a Rego engine."""

from __future__ import annotations

import copy
import functools
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.policy.base import CLAIMS, Appraisal, AppraisalPolicy
from tng.attest.policy.factory import policy_from_text
from tng.attest.policy.native import (
    HARDWARE_ONLY,
    HARDWARE_ONLY_STRICT,
    HARDWARE_STRICT_WITH_REFERENCE_VALUES,
    HARDWARE_WITH_REFERENCE_VALUES,
    TRUST_ALL,
    TRUSTEE_1_8_DEFAULT,
    NativePolicy,
)
from tng.attest.policy.rego import make_rego_policy
from tng.errors import UntrustedPeerError
from tng.verdict import Outcome

pytest.importorskip("regorus", reason="no Rego engine installed (extra `rego`)")

from tng.attest.policy.rego import load_engine

ENGINE = load_engine()
SHARED = pathlib.Path(__file__).resolve().parents[4] / "shared" / "vectors" / "attestation"
REFERENCE = pathlib.Path(__file__).resolve().parents[3] / ".reference" / "bin" / "tng"

# The strict rules, as conditions in front of those that a text has already.
STRICT_CONDITIONS = """
\tregex.match("^[0-9a-f][02468ace]", input.tdx.quote.body.td_attributes)
\tcount(input.tdx.uefi_event_logs) > 0
"""
VENDOR = 'input.tdx.quote.header.vendor_id == "939a7233f79c4ca9940a0db3957f0607"'


@functools.cache
def text(name: str) -> str:
    path = SHARED / "policies" / f"{name}.rego"
    if not path.is_file():
        pytest.skip("no folder `shared` beside the checkout: the texts are not part of it")
    return path.read_text()


def strict(name: str) -> str:
    assert VENDOR in text(name)
    return text(name).replace(VENDOR, VENDOR + STRICT_CONDITIONS)


TWINS = {
    "hardware_only": (HARDWARE_ONLY, lambda: text("hardware_only")),
    "hardware_only_strict": (HARDWARE_ONLY_STRICT, lambda: strict("hardware_only")),
    "trust_all": (TRUST_ALL, lambda: text("trust_all")),
    "1.8": (TRUSTEE_1_8_DEFAULT, lambda: text("openanolis_v1.8.4_ear_default_policy_cpu")),
    "1.9": (
        HARDWARE_WITH_REFERENCE_VALUES,
        lambda: text("openanolis_v1.9_ear_default_policy_cpu"),
    ),
    "1.9 strict": (
        HARDWARE_STRICT_WITH_REFERENCE_VALUES,
        lambda: strict("openanolis_v1.9_ear_default_policy_cpu"),
    ),
}
every_twin = pytest.mark.parametrize("name", TWINS)


def answer(
    policy: AppraisalPolicy, claims: dict[str, object], references: dict[str, object]
) -> dict[str, int] | None:
    """The vector; None where evaluation stops with an error."""
    try:
        return policy.evaluate(claims, references).vector
    except UntrustedPeerError:
        return None


@functools.cache
def rego_of(name: str) -> AppraisalPolicy:
    native, make_text = TWINS[name]
    return make_rego_policy(native.policy_id, make_text(), ENGINE)


def agree(name: str, claims: dict[str, object], references: dict[str, object]) -> None:
    native, rego = TWINS[name][0], rego_of(name)
    said, expected = answer(native, claims, references), answer(rego, claims, references)
    if expected is None:
        # Where the engine stops, the twin may stop or doubt, and never affirms.
        assert said is None or doubts(native, claims, references)
    else:
        assert said == expected


def doubts(native: NativePolicy, claims, references) -> bool:
    appraisal = native.evaluate(claims, references)
    return any(rule.outcome is Outcome.FAIL for rule in appraisal.rules)


# Claims: from one real guest's form, bent in every place that a policy looks at.

HEADER = {"tee_type": "81000000", "vendor_id": "939a7233f79c4ca9940a0db3957f0607"}


def application(path: str, digest: str) -> dict[str, object]:
    return {
        "type_name": "EV_EFI_BOOT_SERVICES_APPLICATION",
        "details": {"device_paths": ["Pci(1,2)", f"File({path})"]},
        "digests": [{"alg": "SHA-384", "digest": digest}],
    }


def loader(said: str, digest: str) -> dict[str, object]:
    return {
        "type_name": "EV_IPL",
        "details": {"string": said},
        "digests": [{"alg": "SHA-384", "digest": digest}],
    }


def aael(domain: str, operation: str, content: object) -> dict[str, object]:
    return {
        "type_name": "EV_EVENT_TAG",
        "details": {
            "unicode_name": "AAEL",
            "data": {"domain": domain, "operation": operation, "content": content},
        },
        "digests": [{"alg": "SHA-384", "digest": "00"}],
    }


MODEL = aael("trustiflux.alibaba.com", "load-model", '{"model-id":"m","hash":"aa"}')
LOG = [
    application("shimx64.efi", "a1"),
    application("grubx64.efi", "a2"),
    loader("grub_cmd linux /vmlinuz ro", "a3"),
    loader("Kernel: /vmlinuz", "a4"),
    loader("Initrd: /initrd", "a5"),
]
TDX: dict[str, object] = {
    "quote": {
        "header": HEADER,
        "body": {"xfam": "e7", "td_attributes": "0000001000000000"},
    },
    "uefi_event_logs": LOG,
}
TPM: dict[str, object] = {
    "kernel_cmdline": "ro",
    "measurement.kernel_cmdline.SHA-256": "a3",
    **{f"measurement.{n}.SHA-256": "a1" for n in ("grub", "shim", "initrd", "kernel")},
}
REFERENCES: dict[str, object] = {
    "measurement.shim.SHA-384": ["a1"],
    "measurement.grub.SHA-384": ["a0", "a2"],
    "measurement.kernel_cmdline.SHA-384": ["a3"],
    "measurement.kernel.SHA-384": ["a4"],
    "measurement.initrd.SHA-384": ["a5"],
    "measurement.kernel_cmdline.SHA-256": ["a3"],
    **{f"measurement.{n}.SHA-256": ["a1"] for n in ("grub", "shim", "initrd", "kernel")},
    "measurement.model.m": ["aa"],
    "tdx.xfam": ["e7"],
}


def bent(claims: dict[str, object], path: tuple[object, ...], value: object) -> dict[str, object]:
    """Claims with one place replaced."""
    whole = copy.deepcopy(claims)
    place: object = whole
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return whole


def with_log(*events: object) -> dict[str, object]:
    return {"tdx": {**TDX, "uefi_event_logs": list(events)}}


CASES: dict[str, dict[str, object]] = {
    "a known TDX guest": {"tdx": TDX},
    "nothing": {},
    "sample": {"sample": {"svn": "1"}},
    "another vendor": bent({"tdx": TDX}, ("tdx", "quote", "header", "vendor_id"), "00"),
    "an SGX enclave": bent({"tdx": TDX}, ("tdx", "quote", "header", "tee_type"), "00000000"),
    "debug": bent({"tdx": TDX}, ("tdx", "quote", "body", "td_attributes"), "0100001000000000"),
    "odd attributes": bent({"tdx": TDX}, ("tdx", "quote", "body", "td_attributes"), "0G"),
    "attributes no text": bent({"tdx": TDX}, ("tdx", "quote", "body", "td_attributes"), 0),
    "no event log": {"tdx": {"quote": TDX["quote"]}},
    "empty event log": with_log(),
    "event log null": bent({"tdx": TDX}, ("tdx", "uefi_event_logs"), None),
    "event log an object": bent({"tdx": TDX}, ("tdx", "uefi_event_logs"), dict(enumerate("ab"))),
    "other xfam": bent({"tdx": TDX}, ("tdx", "quote", "body", "xfam"), "e8"),
    "other kernel": with_log(*LOG[:3], loader("Kernel: /vmlinuz", "ff"), LOG[4]),
    "two kernels": with_log(*LOG, loader("Kernel: /other", "ff")),
    "the kernel twice": with_log(*LOG, LOG[3]),
    "two command lines, one known": with_log(*LOG, loader("kernel_cmdline: x", "ff")),
    "unknown command line": with_log(*LOG[:2], loader("kernel_cmdline: x", "ff"), *LOG[3:]),
    "no grub": with_log(LOG[0], *LOG[2:]),
    "a path no text": with_log(bent(LOG[1], ("details", "device_paths"), [1, "grub"]), *LOG),
    "no digests": with_log(*LOG[:4], bent(LOG[4], ("digests",), [])),
    "digest without algorithm": with_log(*LOG[:4], bent(LOG[4], ("digests",), [{"digest": "a5"}])),
    "SHA-256 first": with_log(
        *LOG[:4], bent(LOG[4], ("digests",), [{"alg": "SHA-256", "digest": "a5"}])
    ),
    "tdx null": {"tdx": None},
    "tdx false": {"tdx": False},
    "csv 1": {"csv": {"version": "1", "uefi_event_logs": LOG}},
    "csv 2": {"csv": {"version": "2"}},
    "csv 3": {"csv": {"version": "3"}},
    "csv number": {"csv": {"version": 1}},
    "tpm": {"tpm": TPM},
    "tpm without command line": {"tpm": {k: v for k, v in TPM.items() if k != "kernel_cmdline"}},
    "tpm of two algorithms": {
        "tpm": {**TPM, "measurement.grub.SHA-256": "ff", "measurement.grub.SHA-1": "a1"}
    },
    "tpm empty": {"tpm": {}},
    "tpm null": {"tpm": None},
    "tpm false": {"tpm": False},
    "tpm zero": {"tpm": 0},
    "hygontpm": {"hygontpm": TPM},
    "snp": {"snp": {"policy_debug_allowed": "0", "policy_migrate_ma": "0"}},
    "snp debug": {"snp": {"policy_debug_allowed": "1", "policy_migrate_ma": "0"}},
    "snp number": {"snp": {"policy_debug_allowed": 0, "policy_migrate_ma": "0"}},
    "snp and tdx": {"snp": {}, "tdx": TDX},
    "system without log": {"system": {}},
    "system with a known model": {"system": {"uefi_event_logs": [MODEL]}},
    "system without models": {"system": {"uefi_event_logs": [aael("file", "/bin/x", "aa")]}},
    "system with another model": {
        "system": {
            "uefi_event_logs": [
                aael("trustiflux.alibaba.com", "load-model", '{"model-id":"n","hash":"aa"}')
            ]
        }
    },
    "system with a model that is not JSON": {
        "system": {"uefi_event_logs": [aael("trustiflux.alibaba.com", "load-model", "{")]}
    },
    "system with a model without hash": {
        "system": {
            "uefi_event_logs": [aael("trustiflux.alibaba.com", "load-model", '{"model-id":"m"}')]
        }
    },
    "tdx and tpm": {"tdx": TDX, "tpm": TPM},
}


@every_twin
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("references", [REFERENCES, {}], ids=["known", "none"])
def test_twin_and_text_say_the_same(name: str, case: str, references) -> None:
    agree(name, CASES[case], references)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a1", "81000000", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("a"), inner),
    max_leaves=4,
)
DIGESTS = st.sampled_from(["a1", "a2", "a3", "a4", "a5", "ff"])
WORDS = ("Kernel", "Initrd", "kernel_cmdline: x", "grub_cmd linux Kernel", "other")
EVENTS = st.one_of(
    st.builds(application, st.sampled_from(["grub", "shim", "shim-grub", "k"]), DIGESTS),
    st.builds(loader, st.sampled_from(WORDS), DIGESTS),
    st.builds(
        aael,
        st.sampled_from(["trustiflux.alibaba.com", "file"]),
        st.sampled_from(["load-model", "/bin"]),
        st.sampled_from(['{"model-id":"m","hash":"aa"}', '{"model-id":"n"}', "{"]),
    ),
    st.sampled_from([*LOG, MODEL]),
    JSON_VALUES,
)
NAMES = ("tdx", "csv", "tpm", "hygontpm", "snp", "system", "sample")


@st.composite
def devices(draw: st.DrawFn) -> dict[str, object]:
    """Claims of one TEE; now and then a place in them holds anything."""
    tee = draw(st.sampled_from(NAMES))
    log = draw(st.sampled_from([LOG, []]) | st.lists(EVENTS, max_size=6))
    claims: dict[str, object] = {"version": draw(st.sampled_from(["1", "3"])), **TPM}
    claims |= {**copy.deepcopy(TDX), "uefi_event_logs": log}
    claims |= {name: draw(st.sampled_from(["0", "1"])) for name in CASES["snp"]["snp"]}
    for name in draw(st.lists(st.sampled_from(sorted(claims)), max_size=2)):
        claims[name] = draw(JSON_VALUES)
    return {tee: claims}


@pytest.mark.slow
@every_twin
@given(claims=devices(), known=st.sets(st.sampled_from(sorted(REFERENCES))))
def test_twin_and_text_say_the_same_of_any_claims(name: str, claims, known: set[str]) -> None:
    references = {key: value for key, value in REFERENCES.items() if key not in known}
    agree(name, claims, references)


def test_a_real_guest_is_affirmed_with_its_reference_values_and_not_without() -> None:
    text("hardware_only")
    evidence = json.loads((SHARED / "evidence/tng_ear_annotated_evidence.json").read_text())
    values = json.loads((SHARED / "evidence/tng_ear_reference_values.json").read_text())
    assert HARDWARE_WITH_REFERENCE_VALUES.evaluate(evidence, values).vector == {
        "executables": 3,
        "hardware": 2,
        "configuration": 2,
        "file-system": 2,
    }
    for name in values:
        fewer = {key: value for key, value in values.items() if key != name}
        with pytest.raises(UntrustedPeerError, match=r"executables is 33|configuration is 36"):
            HARDWARE_WITH_REFERENCE_VALUES.evaluate(evidence, fewer).require_affirming()
    for name in TWINS:
        agree(name, evidence, values)
        agree(name, evidence, {})


def test_upstream_policies_are_evaluated_too() -> None:
    evidence = json.loads(
        (SHARED / "evidence/upstream_parse_tdx_claims_expected.json").read_text()
        if SHARED.is_dir()
        else pytest.skip("no folder `shared` beside the checkout")
    )
    claims = {"tdx": evidence.get("tdx", evidence)}
    policy = policy_from_text("up", text("upstream_ear_default_policy_cpu"), lambda: ENGINE)
    appraisal: Appraisal = policy.evaluate(claims, {})
    assert set(appraisal.vector) == set(CLAIMS)
    assert appraisal.vector["hardware"] == 97
    body = claims["tdx"]["quote"]["body"]
    values = {"mr_td": [body["mr_td"]], "rtmr_1": [body["rtmr_1"]], "rtmr_2": [body["rtmr_2"]]}
    claims["tdx"] |= {"tcb_status": "UpToDate", "collateral_expiration_status": "0"}
    known = policy.evaluate(claims, values).vector
    assert (known["hardware"], known["executables"]) == (2, 4)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("marker", "name"),
    [
        (b"# General-purpose appraisal", "hardware_only"),
        (b"# Hardware-only appraisal with stricter", "hardware_only_strict"),
    ],
)
def test_twins_agree_with_the_texts_in_the_reference_itself(marker: bytes, name: str) -> None:
    if not REFERENCE.is_file():
        pytest.skip("the reference is not installed")
    image = REFERENCE.read_bytes()
    start = image.index(b"package policy\n\nimport rego.v1\n\n" + marker)
    rego = image[start : image.index(b"package policy", start + 1)].decode()
    native = TWINS[name][0]
    policy = make_rego_policy(native.policy_id, rego, ENGINE)
    for claims in CASES.values():
        expected = answer(policy, claims, REFERENCES)
        if expected is not None:
            assert answer(native, claims, REFERENCES) == expected
