from __future__ import annotations

import json

import pytest

from tng.attest.reference_values.listed import MANIFEST, MAX_ITEMS, PROVENANCE, list_values

RELEASE, IN_TOTO = "application/vnd.trustee.rv.release+json", "application/vnd.in-toto+json"
HEX, OTHER = "ab" * 32, "cd" * 32


def manifest(**measured: str) -> dict[str, object]:
    return {
        "schemaVersion": 1,
        "measurements": {n: {"algorithm": "sha256", "value": v} for n, v in measured.items()},
    }


def statement(digest: str = HEX) -> dict[str, object]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "proxy", "digest": {"sha256": digest}}],
    }


def item(**changes: object) -> dict[str, object]:
    return {
        "id": "proxy",
        "version": "1.0.0",
        "type": "container",
        "provenance_info": {"type": MANIFEST, "rekor_url": "https://log"},
        "provenance_source": {"protocol": "file", "uri": "a"},
        "operation_type": "add",
    } | changes


def values(files: dict[str, object], *items: object, keys) -> dict[str, object]:
    return list_values(
        {"rv_list": list(items)}, lambda path: json.dumps(files[path]).encode(), keys, "here"
    )


def source(uri: str) -> dict[str, object]:
    return {"provenance_source": {"protocol": "file", "uri": uri}}


SLSA = {"provenance_info": {"type": PROVENANCE}}


def test_a_manifest_names_its_measurements(seal, trusted) -> None:
    files = {"a": seal(RELEASE, manifest(one=HEX, two=OTHER))}
    assert values(files, item(), keys=(trusted,)) == {"one": [HEX], "two": [OTHER]}


def test_a_manifest_of_one_goes_by_the_id_too_or_by_the_given_name(seal, trusted) -> None:
    files = {"a": seal(RELEASE, manifest(one=HEX))}
    assert values(files, item(), keys=(trusted,)) == {"proxy": [HEX], "one": [HEX]}
    assert values(files, item(rv_name="mine"), keys=(trusted,)) == {"mine": [HEX]}


def test_a_name_for_several_measurements_is_refused(seal, trusted) -> None:
    files = {"a": seal(RELEASE, manifest(one=HEX, two=OTHER))}
    with pytest.raises(ValueError, match=r"rv_list\[0\]: rv_name is for manifests with one"):
        values(files, item(rv_name="mine"), keys=(trusted,))


def test_a_provenance_goes_by_type_and_id_or_by_the_given_name(seal, trusted) -> None:
    files = {"a": seal(IN_TOTO, statement())}
    assert values(files, item(**SLSA), keys=(trusted,)) == {"measurement.container.proxy": [HEX]}
    assert values(files, item(**SLSA, rv_name="x"), keys=(trusted,)) == {"x": [HEX]}


def test_an_envelope_may_be_in_a_bundle_and_its_path_a_file_address(seal, trusted) -> None:
    files = {"/a": {"mediaType": "x", "dsseEnvelope": seal(IN_TOTO, statement())}}
    assert values(files, item(**SLSA, **source("file:///a")), keys=(trusted,))


def test_added_values_join_and_refreshed_ones_replace(seal, trusted) -> None:
    files = {"a": seal(IN_TOTO, statement()), "b": seal(IN_TOTO, statement(OTHER))}
    first, second = item(**SLSA, rv_name="x"), item(**SLSA, rv_name="x", **source("b"))
    assert values(files, first, second, keys=(trusted,)) == {"x": [HEX, OTHER]}
    refreshed = second | {"operation_type": "refresh"}
    assert values(files, first, refreshed, keys=(trusted,)) == {"x": [OTHER]}


@pytest.mark.parametrize("kind", ["manifest", "provenance"])
def test_nothing_is_taken_that_a_trusted_key_has_not_signed(
    kind: str, seal, seal_by_stranger, trusted
) -> None:
    payload_type, payload, changes = (
        (RELEASE, manifest(one=HEX), {}) if kind == "manifest" else (IN_TOTO, statement(), SLSA)
    )
    assert values({"a": seal(payload_type, payload)}, item(**changes), keys=(trusted,))
    for document, keys, message in (
        (seal_by_stranger(payload_type, payload), (trusted,), "none of 1 signatures"),
        (seal(payload_type, payload), (), "no public key is trusted"),
        (payload, (trusted,), "expected a DSSE envelope"),
        ({"releasePayload": payload}, (trusted,), "expected a DSSE envelope"),
        (seal("application/json", payload), (trusted,), "payloadType is"),
    ):
        with pytest.raises(ValueError, match=message):
            values({"a": document}, item(**changes), keys=keys)


def test_a_manifest_is_no_provenance(seal, trusted) -> None:
    with pytest.raises(ValueError, match="payloadType is"):
        values({"a": seal(RELEASE, manifest(one=HEX))}, item(**SLSA), keys=(trusted,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance_source": None}, "nothing is fetched over the network"),
        ({"provenance_source": {"protocol": "oci", "uri": "oci://x"}}, "nothing is fetched"),
        ({"provenance_source": {"protocol": "file"}}, "expected the text uri"),
        ({"operation_type": "delete"}, "operation_type is 'delete'"),
        ({"provenance_info": None}, "provenance_info.type is ''"),
        ({"provenance_info": {"type": "other"}}, "provenance_info.type is 'other'"),
        ({"id": ""}, "expected the text id"),
        ({"type": 3}, "expected the text type"),
        ({"rv_name": 3}, "expected the text rv_name"),
    ],
)
def test_an_item_of_another_form_is_refused(
    changes: dict[str, object], message: str, seal, trusted
) -> None:
    with pytest.raises(ValueError, match=message):
        values({"a": seal(RELEASE, manifest(one=HEX))}, item(**changes), keys=(trusted,))


@pytest.mark.parametrize(
    "document", [{}, {"rv_list": []}, {"rv_list": {}}, {"rv_list": [{}] * (MAX_ITEMS + 1)}]
)
def test_a_list_of_another_form_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected rv_list with 1 to 256 items"):
        list_values(document, lambda _: b"", (), "here")


def test_an_item_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rv_list\[0\]: expected an object"):
        values({}, "text", keys=())
