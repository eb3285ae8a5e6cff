"""The manual of the configuration, `docs/CONFIG.md`, made from the model.

Out: Markdown, one table per object.  A test holds the file equal to this text, so that the manual
says what the loader does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType
from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tng.config.availability import UNAVAILABLE_KEYS, UNAVAILABLE_VALUES
from tng.config.model import TngConfig
from tng.config.secret import Secret
from tng.config.strict import StrictModel, json_names
from tng.config.values import ObjectOrList

_HEAD: Final = """# Configuration

<!-- Made from the model: edit tng/config, not this file. -->

A configuration is one JSON object, the same as for TNG 2.12. `docs/config.schema.json` is its JSON
Schema for editors. Examples, one per use, are in `configs/`.

The loader is strict. An unknown key anywhere is an error, and so is a number in quotes, a key that
stands twice in one object, and a key that does not go with the others. All problems are reported at
once, one line each, with the path of the value. Secrets are shown as `***`.

*Extension* marks what the reference does not know. *Not in this version* marks what is read and
checked, and then refused at start.

## Rules between keys

- An entry has exactly one mode, at most one of `rats_tls` and `ohttp`, and at least one of
  `attest`, `verify` and `"no_ra": true`. `no_ra` goes with neither of the others.
- A key for one model, provider or type is refused beside another one: it would have no effect.
- `out.host` of a mapping is required. Both ranges of a rule have the same size. Two listeners never
  share a port; `0.0.0.0` and `::` take the port of every address of their family.
- `policy_ids` names at least one policy, unless the attestation service is `builtin` or `ita`.
- Passport: `verify` needs `as_addr` or `trusted_certs_paths`, unless `skip_as_token_cert_verify`.
- A URL holds no user, no password, no query and no fragment. Credentials belong in `as_headers`.
- Files that are named must exist. The socket of an agent may appear later.
"""

_PLURALS: Final = {
    "name": "names",
    "path": "paths",
    "regular expression (RE2 syntax)": "regular expressions (RE2 syntax)",
}
_SHORT_FORMS: Final = {
    "Mapping": 'One rule alone may be written without `rules`: `{"in": ..., "out": ...}`.',
}


def manual() -> str:
    """The whole manual."""
    sections = ("\n".join(_section(model)) for model in _models(TngConfig))
    return "\n".join((_HEAD, *sections)).rstrip("\n") + "\n"


def _models(root: type[StrictModel]) -> list[type[StrictModel]]:
    """The classes of all objects, each once, in the order of a reader."""
    found = [root]
    for model in found:
        for field in model.model_fields.values():
            found += [m for m in _models_in(field.annotation) if m not in found]
    return found


def _models_in(annotation: object) -> list[type[StrictModel]]:
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return list(dict.fromkeys(m for part in get_args(annotation) for m in _models_in(part)))


def _section(model: type[StrictModel]) -> Iterator[str]:
    yield f"## {model.__name__}"
    yield ""
    yield (model.__doc__ or "").strip()
    if model.__name__ in _SHORT_FORMS:
        yield _SHORT_FORMS[model.__name__]
    yield ""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        first, *older = json_names(name, field)
        key = f"`{first}`" + "".join(f" (older: `{other}`)" for other in older)
        meaning = (field.description or "") + _marks(model, name, field)
        cells = (key, _type(field), _default(field), meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _marks(model: type[StrictModel], name: str, field: FieldInfo) -> str:
    marks = ""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("x-tng-extension") is True:
        marks += " *Extension.*"
    if (model, name) in UNAVAILABLE_KEYS:
        marks += " *Not in this version.*"
    values = sorted(UNAVAILABLE_VALUES.get((model, name), ()))
    if values:
        marks += f" *Not in this version:* {', '.join(f'`{value}`' for value in values)}."
    return marks


def _type(field: FieldInfo) -> str:
    suffix = ", or one object" if any(isinstance(m, ObjectOrList) for m in field.metadata) else ""
    for mark in field.metadata:
        what = getattr(mark, "what", None)
        if isinstance(what, str):
            return what.removeprefix("an ").removeprefix("a ")
    return _words(field.annotation) + suffix


def _words(annotation: object) -> str:
    if annotation is bool:
        return "true or false"
    if annotation is Secret:
        return "secret string"
    if annotation is object:
        return "any JSON"
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    arguments = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    marks = [part for part in arguments if isinstance(getattr(part, "what", None), str)]
    if marks:
        return str(marks[0].what).removeprefix("an ").removeprefix("a ")
    if get_origin(annotation) is list:
        words = _words(arguments[0])
        return f"list of {_PLURALS.get(words, words)}"
    kinds = [part for part in arguments if isinstance(part, type) or get_args(part)]
    if hasattr(annotation, "__metadata__"):
        kinds = kinds[:1]
    return " or ".join(dict.fromkeys(_words(kind) for kind in kinds))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value: object = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or value in ([], {}):
        return "absent"
    return f"`{json.dumps(value)}`"
