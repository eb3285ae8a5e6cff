"""Objects with free keys: HTTP headers, whose values are secrets, and labels of metrics.

Invariant: no header can end its line and begin another one (RFC 9110 section 5.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tng.config.secret import Secret
from tng.config.values import HEADER_NAME, MAX_TEXT, expected

_MAX_ITEMS: Final = 64  # headers of a request, labels of a number


@dataclass(frozen=True, slots=True)
class _StringMap:
    what: str

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.check, serialization=core_schema.plain_serializer_function_ser_schema(_shown)
        )

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": MAX_TEXT},
            "maxProperties": _MAX_ITEMS,
        }

    def check(self, value: object) -> object:
        return dict(self.items(value))

    def items(self, value: object) -> Iterator[tuple[str, str]]:
        if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
            raise expected(self.what)
        for name, text in value.items():
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_TEXT:
                raise expected(self.what)
            if not isinstance(text, str) or len(text) > MAX_TEXT or not text.isprintable():
                raise expected(self.what)
            yield name, text


def _shown(items: dict[str, object]) -> dict[str, str]:
    return {name: str(text) for name, text in items.items()}


class _HeaderMap(_StringMap):
    def check(self, value: object) -> object:
        headers = {}
        for name, text in self.items(value):
            if not HEADER_NAME.fullmatch(name):
                raise expected(self.what)
            headers[name] = Secret(text)
        return headers


Headers = Annotated[
    dict[str, Secret],
    _HeaderMap(f"an object of up to {_MAX_ITEMS} names of HTTP headers with printable strings"),
]
"""HTTP headers for a service; the values are secrets."""

Tags = Annotated[
    dict[str, str],
    _StringMap(f"an object of up to {_MAX_ITEMS} names with printable strings"),
]
"""Labels of a number."""
