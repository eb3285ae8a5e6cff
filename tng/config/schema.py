"""The configuration as JSON Schema (draft 2020-12), for editors; made from the model.

Out: a dictionary.  The short forms (one object for a list, one mapping rule without `rules`) and
the older names of keys are in it.  Rules between keys are in it where JSON Schema can say them
shortly; `tng.config.loader` is what decides.
"""

from __future__ import annotations

from typing import Final

from tng.config.entry import Egress, Ingress
from tng.config.model import TngConfig
from tng.config.proxy import HttpProxy
from tng.config.strict import json_names

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
"""What `$schema` says."""


def json_schema() -> dict[str, object]:
    """The schema of a whole configuration."""
    schema: dict[str, object] = TngConfig.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    for model in (Ingress, Egress, HttpProxy):
        definition = definitions[model.__name__]
        for name, field in model.model_fields.items():
            first, *older = json_names(name, field)
            for other in older:
                definition["properties"][other] = definition["properties"][first]
    for entry in (Ingress, Egress):
        definitions[entry.__name__]["allOf"] = _entry_rules(entry)
    title = "Configuration of the Trusted Network Gateway"
    return {"$schema": DIALECT, **schema, "title": title}


def _entry_rules(entry: type[Ingress | Egress]) -> list[object]:
    """One mode, and a word about trust."""
    trust: list[object] = [
        {"required": ["attest"]},
        {"required": ["verify"]},
        {"required": ["no_ra"], "properties": {"no_ra": {"const": True}}},
    ]
    return [{"oneOf": [{"required": [mode]} for mode in entry.MODES]}, {"anyOf": trust}]
