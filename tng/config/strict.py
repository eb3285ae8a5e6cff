"""The strict model: what every object of the configuration has in common.

A `StrictModel` refuses unknown keys, is frozen, and states its rules between fields in `faults`:
as many as there are, each with the path below the object.  They reach the operator together
with the errors of single fields (`config.problems` words both).

    class Range(StrictModel):
        low: int
        high: int

        def faults(self) -> Iterator[Fault]:
            if self.high < self.low:
                yield Fault(("high",), "must not be below `low`")

Source of the grammar: TNG 2.12.  Invariant: an instance obeys every rule that can be stated
without looking at the machine or at another object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator
from pydantic.config import JsonDict, JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule.

    Attributes:
        path: from the object that states the rule; JSON names and list positions.
        text: what is wrong and what to do; no secret.
    """

    path: tuple[str | int, ...]
    text: str


class StrictModel(BaseModel):
    """Base of every object of the configuration."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True
    )

    def faults(self) -> Iterator[Fault]:
        """Rules between the fields of this object that are broken."""
        return iter(())

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        found = tuple(self.faults())
        if found:
            text = "; ".join(f"{'.'.join(map(str, f.path))}: {f.text}" for f in found)
            raise PydanticCustomError("faults", "{text}", {"text": text, "faults": found})
        return self


def json_names(field_name: str, field: FieldInfo) -> tuple[str, ...]:
    """Names of a field in JSON, the preferred one first."""
    if isinstance(field.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in field.validation_alias.choices)
    return (field.alias or field_name,)


def written_keys(model: StrictModel) -> set[str]:
    """Names (in Python) of the fields that the operator wrote with a value other than null."""
    return {name for name in model.model_fields_set if getattr(model, name) is not None}


@dataclass(frozen=True, slots=True)
class Keys:
    """Which keys go with one value of a tag.

    Attributes:
        required: must be written.
        optional: may be written.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def variant_faults(
    model: StrictModel, tag: str, table: Mapping[str, Keys], *, common: tuple[str, ...] = ()
) -> Iterator[Fault]:
    """Faults of an object whose keys depend on the value of one of them.

    Args:
        model: the object.
        tag: the key that decides.
        table: which keys go with which value of the tag.
        common: keys that go with every value.
    """
    value = str(getattr(model, tag))
    written = written_keys(model)
    keys = table[value]
    for name in keys.required:
        if name not in written:
            yield Fault((name,), f'required key is missing (it goes with "{tag}": "{value}")')
    for name in type(model).model_fields:
        if name in written - {tag, *common, *keys.required, *keys.optional}:
            others = [v for v, k in table.items() if name in k.required + k.optional]
            yield Fault(
                (name,),
                f'does not go with "{tag}": "{value}"; it is for "{tag}": '
                + " or ".join(f'"{other}"' for other in others),
            )


def variant_schema(tag: str, table: Mapping[str, Keys]) -> JsonDict:
    """JSON Schema of `variant_faults`: the required keys of each value of the tag.

    Args:
        tag: the key that decides; it is required itself.
        table: which keys go with which value of the tag.
    """
    rules: list[JsonValue] = [
        {
            "if": {"properties": {tag: {"const": value}}, "required": [tag]},
            "then": {"required": list(keys.required)},
        }
        for value, keys in table.items()
        if keys.required
    ]
    return {"allOf": rules}
