"""tng.wire.dice: the reference's layout octet for octet, and a refusal for everything near it."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

import cbor2
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from tng.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from tng.wire.dice import (
    MAX_EXTENSION,
    MAX_RUNTIME_DATA,
    TAG_COCO_EVIDENCE,
    TAG_COCO_TOKEN,
    TAG_ITA_EVIDENCE,
    TAG_ITA_TOKEN,
    TEE_TYPES,
    CocoEvidence,
    DiceEvidence,
    HashAlgorithm,
    dump_coco_evidence,
    dump_dice,
    parse_coco_evidence,
    parse_dice,
)

EVIDENCE = CocoEvidence("tdx", b'{"quote":""}', None, '{"pubkey-hash":"x"}', HashAlgorithm.SHA384)
FIELDS: dict[object, object] = {
    "tee_type": "tdx",
    "aa_evidence": b'{"quote":""}',
    "aa_additional_evidence": None,
    "aa_runtime_data": '{"pubkey-hash":"x"}',
    "aa_runtime_data_hash_algo": 7,
}
OID = x509.ObjectIdentifier("2.23.133.5.4.9")


def tagged(value: object, tag: int = TAG_COCO_EVIDENCE) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(tag, value))


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("bc_sample", TAG_COCO_EVIDENCE),
        ("bc_sample_additional", TAG_COCO_EVIDENCE),
        ("bc_tdx_fake", TAG_COCO_EVIDENCE),
        ("py_bc_sample", TAG_COCO_EVIDENCE),
        ("pp_ear", TAG_COCO_TOKEN),
        ("pp_simple", TAG_COCO_TOKEN),
        ("ita_bc", TAG_ITA_EVIDENCE),
        ("ita_bc_gpu", TAG_ITA_EVIDENCE),
        ("ita_pp", TAG_ITA_TOKEN),
    ],
)
def test_golden_extensions_are_dumped_octet_for_octet(
    shared: pathlib.Path, name: str, tag: int
) -> None:
    der = (shared / "vectors" / "ratls" / f"{name}.der").read_bytes()
    extension = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(OID).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    dice = parse_dice(extension.value)
    assert dice.tag == tag
    assert dump_dice(dice) == extension.value
    if tag == TAG_COCO_EVIDENCE:
        evidence = parse_coco_evidence(dice.payload)
        assert dump_coco_evidence(evidence) == dice.payload
        assert (evidence.aa_additional_evidence is None) is (name != "bc_sample_additional")


def test_the_head_is_four_octets_of_tag_and_an_array_of_two() -> None:
    assert dump_dice(DiceEvidence(0xC0C001, b"jwt")).hex() == "da00c0c00182" + "436a7774" + "40"


@pytest.mark.parametrize("tag", [0, 0xFFFF, 1 << 32])
def test_a_tag_that_is_not_written_in_four_octets_is_our_own_bug(tag: int) -> None:
    with pytest.raises(LocalProtocolError):
        dump_dice(DiceEvidence(tag, b""))


def test_a_tag_head_of_eight_octets_is_taken_as_the_reference_takes_it() -> None:
    data = bytes.fromhex("db0000000000c0c00082426162" + "40")
    assert parse_dice(data) == DiceEvidence(TAG_COCO_EVIDENCE, b"ab")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        pytest.param(b"", "one definite", id="nothing"),
        pytest.param(dump_dice(DiceEvidence(0xC0C000, b"ab"))[:-1], "one definite", id="cut"),
        pytest.param(cbor2.dumps([b"ab", b""]), "tagged", id="no tag"),
        pytest.param(cbor2.dumps(tagged([b"ab", b""])), "tagged", id="wrapped once more"),
        pytest.param(tagged([b"ab"]), "array of 2", id="array of 1"),
        pytest.param(tagged([b"ab", b"", b""]), "array of 2", id="array of 3"),
        pytest.param(tagged({"a": b"ab"}), "array of 2", id="map"),
        pytest.param(tagged(["ab", b""]), "byte strings", id="text payload"),
        pytest.param(tagged([b"ab", None]), "byte strings", id="claims null"),
        pytest.param(tagged([b"ab", 1.5]), "byte strings", id="claims a number"),
        pytest.param(tagged([b"ab", cbor2.CBORTag(70000, b"")]), "byte strings", id="inner tag"),
        pytest.param(tagged([b"ab", cbor2.CBORTag(24, b"")]), "one definite", id="embedded CBOR"),
        # Stricter on purpose: the next four.
        pytest.param(tagged([b"ab", b"claims"]), "claims buffer", id="claims"),
        pytest.param(tagged([b"ab", b""]) + b"\0", "followed by 1", id="trailing octet"),
        pytest.param(
            bytes.fromhex("da00c0c0009f42616240ff"), "one definite", id="indefinite array"
        ),
        pytest.param(
            bytes.fromhex("da00c0c000825f4161ff40"), "one definite", id="indefinite string"
        ),
        pytest.param(bytes(MAX_EXTENSION + 1), "limit", id="too long"),
        pytest.param(b"\x81" * 1000, "one definite", id="deep"),
    ],
)
def test_what_is_not_tag_and_two_byte_strings_is_refused(data: bytes, word: str) -> None:
    with pytest.raises(RemoteProtocolError, match=word) as refused:
        parse_dice(data)
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED


def test_evidence_survives_the_round_trip() -> None:
    assert parse_coco_evidence(dump_coco_evidence(EVIDENCE)) == EVIDENCE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"tee_type": "sample"}, {"tee_type": "sample"}),
        ({"aa_additional_evidence": b"{}"}, {"aa_additional_evidence": b"{}"}),
        ({"aa_runtime_data_hash_algo": 1}, {"hash_algorithm": HashAlgorithm.SHA256}),
        ({"aa_runtime_data_hash_algo": 8}, {"hash_algorithm": HashAlgorithm.SHA512}),
        ({"something_new": 1}, {}),
        ({"aa_runtime_data": '{"b": 1, "a": 2}'}, {"aa_runtime_data": '{"b": 1, "a": 2}'}),
    ],
)
def test_variants_that_change_nothing_are_accepted(
    change: dict[object, object], expected: dict[str, object]
) -> None:
    seen = parse_coco_evidence(cbor2.dumps(FIELDS | change))
    assert seen == dataclasses.replace(EVIDENCE, **expected)  # type: ignore[arg-type]


def test_keys_may_come_in_any_order_and_no_additional_evidence_may_be_absent() -> None:
    fields = dict(reversed(FIELDS.items()))
    del fields["aa_additional_evidence"]
    assert parse_coco_evidence(cbor2.dumps(fields)) == EVIDENCE


def test_every_tee_of_the_reference_is_known() -> None:
    for tee in TEE_TYPES:
        assert parse_coco_evidence(cbor2.dumps(FIELDS | {"tee_type": tee})).tee_type == tee


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tee_type", "Sample"),
        ("tee_type", "az-tdx-vtpm"),
        ("tee_type", "x" * 1000),
        ("tee_type", 1),
        ("tee_type", None),
        ("aa_evidence", "text"),
        ("aa_evidence", None),
        ("aa_evidence", [1, 2, 3]),  # stricter on purpose: one spelling of a byte string
        ("aa_additional_evidence", "{}"),
        ("aa_additional_evidence", {}),
        ("aa_runtime_data", b"{}"),
        ("aa_runtime_data", None),
        ("aa_runtime_data", "x" * (MAX_RUNTIME_DATA + 1)),
        ("aa_runtime_data_hash_algo", 9),
        ("aa_runtime_data_hash_algo", 0),
        ("aa_runtime_data_hash_algo", 2**40),
        ("aa_runtime_data_hash_algo", True),
        ("aa_runtime_data_hash_algo", 7.0),
        ("aa_runtime_data_hash_algo", "sha384"),
        ("aa_runtime_data_hash_algo", None),
        ("aa_runtime_data_hash_algo", 2**70),
    ],
)
def test_a_known_key_with_another_kind_of_value_is_refused(key: str, value: object) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        parse_coco_evidence(cbor2.dumps(FIELDS | {key: value}))
    assert refused.value.code is ErrorCode.EVIDENCE_MALFORMED
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("key", ["tee_type", "aa_evidence", "aa_runtime_data"])
def test_a_missing_key_is_refused(key: str) -> None:
    with pytest.raises(RemoteProtocolError, match=key):
        parse_coco_evidence(cbor2.dumps({k: v for k, v in FIELDS.items() if k != key}))


def test_a_key_that_comes_twice_is_refused() -> None:
    """Stricter on purpose: two readers could take two different ones."""
    twice = bytearray(cbor2.dumps(FIELDS))
    twice[0] += 1
    with pytest.raises(RemoteProtocolError, match="Duplicate"):
        parse_coco_evidence(bytes(twice) + cbor2.dumps("tee_type") + cbor2.dumps("sample"))


@pytest.mark.parametrize("value", [[1, 2, 3, 4, 5], "text", None, {1: 2}])
def test_what_is_no_map_with_text_keys_is_refused(value: object) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_coco_evidence(cbor2.dumps(value))


def test_octets_behind_the_map_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="followed"):
        parse_coco_evidence(dump_coco_evidence(EVIDENCE) + b"\xf6")


def test_repr_shows_no_evidence() -> None:
    assert "quote" not in repr(EVIDENCE)


@given(st.integers(0x10000, 0xFFFFFFFF), st.binary(max_size=300))
def test_dice_round_trip(tag: int, payload: bytes) -> None:
    assert parse_dice(dump_dice(DiceEvidence(tag, payload))) == DiceEvidence(tag, payload)


@given(st.binary(max_size=200))
def test_garbage_gives_remote_protocol_errors_only(data: bytes) -> None:
    for parse in (parse_dice, parse_coco_evidence):
        with contextlib.suppress(RemoteProtocolError):
            parse(data)


@given(st.integers(0, 300), st.integers(0, 255))
def test_one_changed_octet_gives_evidence_or_a_defined_error(at: int, octet: int) -> None:
    data = bytearray(dump_coco_evidence(EVIDENCE))
    data[at % len(data)] = octet
    with contextlib.suppress(RemoteProtocolError):
        parse_coco_evidence(bytes(data))
