"""A text that must not be seen: passwords, API keys, values of request headers.

In: the operator's text.  Out: the same text, only through `reveal`.  Everything that prints by
itself (repr, str, format, JSON, an error of the configuration) shows `***`.
"""

from __future__ import annotations

import hmac
from typing import Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MASK: Final = "***"
"""What is shown in place of a secret."""

_MAX_LENGTH: Final = 16_384  # characters; an access token is shorter, and a header line ends there


class Secret:
    """A text that shows itself only when asked to.

    Args:
        text: the secret.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text.  The caller neither logs it nor puts it into an error."""
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        ours, theirs = (s.encode("utf-8", "surrogatepass") for s in (self._text, other.reveal()))
        return hmac.compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """How the configuration reads a secret: from a JSON string, and it is never written."""
        return core_schema.no_info_plain_validator_function(
            cls._check,
            serialization=core_schema.plain_serializer_function_ser_schema(repr),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """JSON Schema of a secret."""
        return {"type": "string", "minLength": 1, "maxLength": _MAX_LENGTH, "writeOnly": True}

    @classmethod
    def _check(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str) or not 1 <= len(value) <= _MAX_LENGTH or "\0" in value:
            raise PydanticCustomError(
                "refused",
                "{text}",
                {"text": f"expected a string of 1-{_MAX_LENGTH} characters, got {MASK}"},
            )
        return cls(value)
