from __future__ import annotations

import json
import pathlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tng.attest.reference_values.factory import load_keys, load_reference_values
from tng.attest.reference_values.values import MAX_DOCUMENT
from tng.config.verify import ReferenceValues
from tng.errors import ConfigError

RELEASE = "application/vnd.trustee.rv.release+json"
MANIFEST = {
    "schemaVersion": 1,
    "measurements": {"m": {"algorithm": "sha256", "value": "ab" * 32}},
}


def section(kind: str = "sample", **payload: object) -> ReferenceValues:
    return ReferenceValues.model_validate({"type": kind, "payload": payload})


def listed(uri: str) -> dict[str, object]:
    return {
        "rv_list": [
            {
                "id": "m",
                "version": "1",
                "type": "binary",
                "provenance_info": {"type": "rv-release-manifest"},
                "provenance_source": {"protocol": "file", "uri": uri},
                "operation_type": "refresh",
            }
        ]
    }


def test_samples_come_inline_or_from_files_and_are_merged(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rv.json"
    path.write_text('{"a": ["2"], "b": {"c": 1}}')
    sections = [
        section(type="inline", content={"a": ["1"]}),
        section(type="path", path=str(path)),
        section(type="inline", content='{"a": ["3"]}'),
    ]
    assert load_reference_values(sections) == {"a": ["1", "2", "3"], "b": {"c": 1}}
    assert load_reference_values([]) == {}


@pytest.mark.parametrize("kind", ["release_manifest", "slsa"])
def test_a_list_names_files_beside_it(kind: str, tmp_path: pathlib.Path, seal, trusted) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps(seal(RELEASE, MANIFEST)))
    path = tmp_path / "list.json"
    path.write_text(json.dumps(listed("bundle.json")))
    sections = [section(kind, type="path", path=str(path))]
    assert load_reference_values(sections, (trusted,)) == {"m": ["ab" * 32]}
    with pytest.raises(ConfigError, match="no public key is trusted to sign"):
        load_reference_values(sections)


def test_an_inline_list_names_files_by_their_whole_path(
    tmp_path: pathlib.Path, seal, seal_by_stranger, trusted
) -> None:
    bundle = tmp_path / "bundle.json"
    sections = [section("release_manifest", type="inline", content=listed(str(bundle)))]
    bundle.write_text(json.dumps(seal(RELEASE, MANIFEST)))
    assert load_reference_values(sections, (trusted,)) == {"m": ["ab" * 32]}
    bundle.write_text(json.dumps(seal_by_stranger(RELEASE, MANIFEST)))
    with pytest.raises(ConfigError, match=r"reference_values\[0\]: rv_list\[0\]: none of 1"):
        load_reference_values(sections, (trusted,))


def test_a_section_trusts_its_own_keys_and_no_other_sections(
    tmp_path: pathlib.Path, seal, trusted
) -> None:
    bundle, key = tmp_path / "bundle.json", tmp_path / "key.pem"
    bundle.write_text(json.dumps(seal(RELEASE, MANIFEST)))
    key.write_bytes(trusted.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    without = section("slsa", type="inline", content=listed(str(bundle)))
    with_key = without.model_copy(update={"trusted_keys_paths": [str(key)]})
    assert load_reference_values([with_key]) == {"m": ["ab" * 32]}
    with pytest.raises(ConfigError, match=r"^reference_values\[1\]: .*name files in trusted_keys"):
        load_reference_values([with_key, without])
    key.write_text("no key")
    with pytest.raises(ConfigError, match=r"reference_values\[0\]\.trusted_keys_paths: key .*PEM"):
        load_reference_values([with_key])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"type": "inline", "content": ["a"]}, "expected an object"),
        ({"type": "inline", "content": "{"}, "reference_values"),
        ({"type": "inline", "content": {"": 1}}, "expected names"),
        ({"type": "path", "path": "/nowhere/rv.json"}, "cannot be read"),
    ],
)
def test_what_is_no_set_of_values_is_refused(payload: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_reference_values([section(**payload)])


def test_a_file_beyond_the_limit_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rv.json"
    path.write_text(" " * MAX_DOCUMENT + "{}")
    with pytest.raises(ConfigError, match="has more than 4194304 octets"):
        load_reference_values([section(type="path", path=str(path))])


def test_keys_are_loaded_from_files(tmp_path: pathlib.Path, trusted) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(trusted.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert load_keys([str(path)]) == (trusted,)
    path.write_text("no key")
    with pytest.raises(ConfigError, match=r"key\.pem': expected a public key in PEM"):
        load_keys([str(path)])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys([str(tmp_path / "missing.pem")])
