"""The documents that are made from the model, and the configurations that come with the project."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from tng.config.documents import documents, write_documents
from tng.config.loader import parse_config, prepare_config
from tng.config.manual import manual
from tng.config.schema import json_schema
from tng.config.strict import StrictModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.json"))


def _models(base: type[StrictModel]) -> list[type[StrictModel]]:
    return [m for sub in base.__subclasses__() for m in [sub, *_models(sub)]]


@pytest.mark.parametrize("name", sorted(documents()))
def test_a_document_is_what_the_model_says(name: str) -> None:
    """After a change: see `tng.config.documents`."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == documents()[name]


def test_documents_are_written_into_a_folder(tmp_path: pathlib.Path) -> None:
    write_documents(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(documents())


def test_every_field_is_described() -> None:
    for model in _models(StrictModel):
        if model.__module__.startswith("tng."):
            for name, field in model.model_fields.items():
                assert field.description, f"{model.__name__}.{name}"


def test_every_link_of_the_manual_leads_to_a_section() -> None:
    text = manual()
    sections = {line[3:].lower() for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\(#(\w+)\)", text)) <= sections


def test_the_manual_marks_extensions_and_what_comes_later() -> None:
    rows = {line.split("`")[1]: line for line in manual().splitlines() if line.startswith("| `")}
    assert "*Extension.*" in rows["allow_simulated"]
    assert "*Not in this version.*" in rows["trace"]
    assert "*Not in this version" not in rows["http_proxy"]


def _resolves(schema: object, definitions: dict[str, object]) -> None:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            assert reference.removeprefix("#/$defs/") in definitions
        for value in schema.values():
            _resolves(value, definitions)
    elif isinstance(schema, list):
        for value in schema:
            _resolves(value, definitions)


def test_the_schema_names_short_forms_and_older_keys() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    _resolves(schema, definitions)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert {"$ref": "#/$defs/MappingRule"} in definitions["Mapping"]["anyOf"]
    assert "dst_filter" in definitions["HttpProxy"]["properties"]
    assert "encap_in_http" in definitions["Ingress"]["properties"]
    assert "decap_from_http" in definitions["Egress"]["properties"]
    assert definitions["Listen"]["properties"]["port"]["maximum"] == 65535


def test_the_schema_takes_every_configuration_of_the_project() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not there")
    validator = jsonschema.Draft202012Validator(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())
    for file in CONFIGS:
        validator.validate(json.loads(file.read_text(encoding="utf-8")))
    assert not validator.is_valid({"add_ingress": [{"no_ra": True}]})
    assert not validator.is_valid({"metrics": {}})


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_configuration_of_the_project_can_be_launched(
    file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_text("a certificate")
    text = file.read_text(encoding="utf-8")
    for path in ("/etc/tng/trustee-ca.pem", "/run/secrets/tng-ohttp/key.pem"):
        text = text.replace(path, str(pem))
    assert prepare_config(text) == parse_config(text)


def test_every_configuration_is_in_the_table_and_nothing_else_is() -> None:
    table = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((\S+\.json)\)", table)) == [file.name for file in CONFIGS]
