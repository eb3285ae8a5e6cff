from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tng.attest.reference_values.statements import (
    MAX_SUBJECTS,
    manifest_digests,
    provenance_digests,
)

HEX256, HEX384 = "ab" * 32, "cd" * 48
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://slsa.dev/provenance/v1",
    "subject": [
        {"name": "image", "digest": {"sha256": HEX256, "sha384": HEX384}},
        {"name": "other", "digest": {}},
    ],
}
MANIFEST = {
    "schemaVersion": 1,
    "measurements": {"measurement.uki.SHA-384": {"algorithm": "sha384", "value": HEX384}},
}


def test_a_manifest_gives_digests_by_name() -> None:
    assert manifest_digests(json.dumps(MANIFEST).encode()) == {"measurement.uki.SHA-384": HEX384}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schemaVersion": 2}, "schemaVersion is 2"),
        ({"schemaVersion": True}, "schemaVersion is True"),
        ({"measurements": {}}, "expected 1 to"),
        ({"measurements": []}, "expected 1 to"),
        ({"measurements": {str(n): {} for n in range(MAX_SUBJECTS + 1)}}, "expected 1 to"),
        ({"measurements": {"a": HEX384}}, "'a' is no object"),
        ({"measurements": {"a": {"algorithm": "sha1", "value": HEX256}}}, "algorithm is 'sha1'"),
        ({"measurements": {"a": {"algorithm": ["x"], "value": HEX256}}}, "algorithm is"),
        ({"measurements": {"a": {"algorithm": "sha384", "value": HEX256}}}, "hex of sha384"),
        (
            {"measurements": {"a": {"algorithm": "sha256", "value": HEX256.upper()}}},
            "lower-case hex",
        ),
        ({"measurements": {"a": {"algorithm": "sha256", "value": 3}}}, "lower-case hex"),
    ],
)
def test_another_manifest_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        manifest_digests(json.dumps(MANIFEST | change).encode())


@pytest.mark.parametrize("version", ["v0.1", "v1"])
def test_a_provenance_gives_the_digests_of_its_subject(version: str) -> None:
    statement = STATEMENT | {"_type": f"https://in-toto.io/Statement/{version}"}
    assert provenance_digests(json.dumps(statement).encode(), "image") == [HEX256, HEX384]


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        ({"_type": "https://in-toto.io/Statement/v2"}, "image", "_type is"),
        ({"predicateType": "https://slsa.dev/verification_summary/v1"}, "image", "predicateType"),
        ({"predicateType": "https://evil.example/slsa.dev/provenance/v1"}, "image", "predicate"),
        ({"predicateType": None}, "image", "predicateType"),
        ({"subject": []}, "image", "expected 1 to"),
        ({"subject": {}}, "image", "expected 1 to"),
        ({"subject": ["image"]}, "image", "no subject is named 'image'"),
        ({}, "images", "no subject is named 'images'"),
        ({}, "other", "'other' has no digest"),
    ],
)
def test_another_statement_is_refused(change: dict[str, object], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        provenance_digests(json.dumps(STATEMENT | change).encode(), name)


@given(st.binary(max_size=40))
def test_garbage_is_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        manifest_digests(data)
    with contextlib.suppress(ValueError):
        provenance_digests(data, "a")
