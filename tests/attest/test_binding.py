"""tng.attest.binding: the reference's digests, and RFC 8785's examples."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.binding import canonical_json, pubkey_claims, report_data, runtime_data_for
from tng.errors import ErrorCode, RemoteProtocolError
from tng.wire.dice import HashAlgorithm

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("name", ["bc_sample", "bc_sample_additional", "bc_tdx_fake"])
def test_golden_keys_have_the_reference_claims_and_report_data(
    shared: pathlib.Path, name: str
) -> None:
    vector = json.loads((shared / "vectors" / "ratls" / f"{name}.json").read_text())
    spki = bytes.fromhex(vector["spki_der_hex"])
    evidence = vector["evidence"]
    assert pubkey_claims(spki) == evidence["expected_claims"]
    text = runtime_data_for(spki)
    assert text == evidence["map"]["aa_runtime_data"]
    assert report_data(text.encode()).hex() == evidence["report_data_hex"]


def test_another_key_has_other_claims() -> None:
    assert pubkey_claims(b"a") != pubkey_claims(b"b")
    assert pubkey_claims(b"a")["pubkey-hash"].startswith("ggFYI")


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [(HashAlgorithm.SHA256, 32), (HashAlgorithm.SHA384, 48), (HashAlgorithm.SHA512, 64)],
)
def test_report_data_is_the_digest_without_padding(algorithm: HashAlgorithm, size: int) -> None:
    digest = hashlib.new(f"sha{size * 8}", b"claims").digest()
    assert report_data(b"claims", algorithm) == digest


def test_the_example_of_rfc_8785_section_3_2_3() -> None:
    """Sorted by UTF-16 code units, not by code points."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    text = canonical_json(dict.fromkeys(keys, 0)).decode()
    assert list(json.loads(text)) == [
        "\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33",
    ]  # fmt: skip


def test_the_example_of_rfc_8785_section_3_2_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '\u20ac$\u000f\u000aA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert (
        canonical_json(value)
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (333333333.33333325, "333333333.33333325"),
        (0.000001, "0.000001"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1e-7, "1e-7"),
        (1424953923781206.2, "1424953923781206.2"),
        (100.0, "100"),
    ],
)
def test_numbers_of_rfc_8785_appendix_b(value: float, text: str) -> None:
    assert canonical_json(value) == text.encode()


@pytest.mark.parametrize(
    "value",
    [
        2**53 + 1,
        -(2**53) - 1,
        float("nan"),
        float("inf"),
        "\ud800",
        {"\udc00": 1},
        {1: 2},
        b"x",
        {1},
    ],
)
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="canonical") as refused:
        canonical_json([value])
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_claims_may_nest_but_not_without_end() -> None:
    nested: object = 1
    for _ in range(64):
        nested = [nested]
    assert canonical_json(nested) == b"[" * 64 + b"1" + b"]" * 64
    with pytest.raises(RemoteProtocolError, match="deeper"):
        canonical_json([nested])


@given(JSON)
def test_canonical_text_means_the_same_and_is_its_own_canonical_form(value: object) -> None:
    text = canonical_json(value)
    again = json.loads(text)
    assert json.loads(text, parse_int=float) == value
    assert canonical_json(again) == text
