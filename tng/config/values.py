"""Values of single keys: ports, hosts, URLs, paths, regular expressions, durations.

In: what JSON gave.  Out: the value, or an error of the form `expected a port, got the string "80"`.
Nothing is converted: a number in quotes is no number, and true is not 1.
Source: TNG 2.12 (which values it takes), RFC 1123 section 2.1 (host names), RFC 3986 (URLs).
"""

from __future__ import annotations

import ipaddress
import math
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tng.endpoint import is_ip_literal

MAX_TEXT: Final = 4096
"""Characters of any text: PATH_MAX of Linux, and more than any name or pattern needs."""
_MAX_HOST: Final = 253  # RFC 1035 section 2.3.4, written without the final dot

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
"""A token of RFC 9110 section 5.6.2."""


def expected(what: str, reason: str = "") -> PydanticCustomError:
    """The error for a value of the wrong kind; `config.problems` adds what was seen.

    Args:
        what: the right kind, with its article.
        reason: why the value is not of that kind, where that is not plain to see.
    """
    return PydanticCustomError(
        "expected", "expected {what}{reason}", {"what": what, "reason": reason and f": {reason}"}
    )


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number.

    Attributes:
        low: the least.
        high: the greatest.
        unit: "seconds", "octets", or "" for a plain number.
    """

    low: int
    high: int
    unit: str = ""

    @property
    def what(self) -> str:
        """The kind of value, with its article."""
        return f"an integer {self.low}-{self.high}" + (f" ({self.unit})" if self.unit else "")

    def check(self, value: object) -> int:
        """The number; true and false are none."""
        if type(value) is not int or not self.low <= value <= self.high:
            raise expected(self.what)
        return value

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Read with `check`."""
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """JSON Schema of the number."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Duration:
    """A number of seconds, whole or not, from 0.

    Attributes:
        high: the greatest, seconds.
    """

    high: int

    @property
    def what(self) -> str:
        """The kind of value, with its article."""
        return f"a number 0-{self.high} (seconds)"

    def check(self, value: object) -> float:
        """The number of seconds."""
        if type(value) is int:
            value = min(value, self.high + 1)  # an integer may be too great for a float
        elif type(value) is not float:
            raise expected(self.what)
        if not math.isfinite(value) or not 0 <= value <= self.high:
            raise expected(self.what)
        return float(value)

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Read with `check`."""
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """JSON Schema of the number."""
        return {"type": "number", "minimum": 0, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Text:
    """A string of one kind.

    Attributes:
        what: the kind, with its article, as it stands after "expected".
        parse: gives the value to keep; ValueError, with the reason or without, for another kind.
        max_length: in characters.
        min_length: in characters.
    """

    what: str
    parse: Callable[[str], str]
    max_length: int = MAX_TEXT
    min_length: int = 1

    def check(self, value: object) -> str:
        """The text as it is kept."""
        if not isinstance(value, str):
            raise expected(self.what)
        if not self.min_length <= len(value) <= self.max_length or not value.isprintable():
            limits = f"{self.min_length}-{self.max_length}"
            raise expected(f"{self.what} of {limits} printable characters")
        try:
            return self.parse(value)
        except ValueError as exc:
            raise expected(self.what, str(exc)) from exc

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        """Read with `check`."""
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """JSON Schema of the string."""
        return {"type": "string", "minLength": self.min_length, "maxLength": self.max_length}


def _same(text: str) -> str:
    return text


def _parse_bind_host(text: str) -> str:
    if text == "localhost":
        return "127.0.0.1"  # as the reference (v2.12.0) binds it
    if not is_ip_literal(text):
        raise ValueError("a listener needs an address, not a name")
    return text


def _parse_host(text: str) -> str:
    if is_ip_literal(text):
        return text
    labels = text.removesuffix(".").split(".")
    if len(text) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError
    if labels[-1].isdigit():
        raise ValueError("it is not an IPv4 address, and no name ends in a number")
    return text


def _parse_url(text: str) -> str:
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError from None  # the library's text repeats what may be a password
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it must start with http:// or https://, and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL with a user or a password in it ends in logs; use a header")
    if parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError("paths are appended to it, so it has no query and no fragment")
    if " " in text or port == 0:
        raise ValueError
    _parse_host(parts.hostname)
    return text


def _parse_unix(text: str) -> str:
    if not text.startswith("unix:///") or len(text) == len("unix:///"):
        raise ValueError("it must start with unix:/// and name a socket")
    return text


def _parse_regex(text: str) -> str:
    import re2  # here, because only patterns need it and it is slow to load

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text, options)
    except re2.error as exc:
        reason = exc.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from exc
    return text


def _parse_domain_pattern(text: str) -> str:
    if text.count("*") > 1 or "*" in text[1:-1]:
        raise ValueError("the wildcard * must be at the start or end of the pattern")
    return text


def _parse_address(text: str) -> str:
    if not is_ip_literal(text):
        raise ValueError
    return text


def _parse_cidr(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def _parse_header_name(text: str) -> str:
    if not HEADER_NAME.fullmatch(text):
        raise ValueError
    return text


def _wrap_object(value: object) -> object:
    return [value] if isinstance(value, dict) else value


@dataclass(frozen=True, slots=True)
class ObjectOrList:
    """Mark of a list that may be written as one object, without the brackets."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Read an object as a list of one."""
        return core_schema.no_info_before_validator_function(_wrap_object, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """JSON Schema: the list, or one of its items."""
        inner = handler(schema)
        return {"anyOf": [inner, inner["items"]]}


Port = Annotated[int, Whole(1, 65535)]
"""A TCP or UDP port."""

Flag = Annotated[bool, Strict()]
"""true or false."""

BindHost = Annotated[str, Text("an IP address to listen on", _parse_bind_host)]
"""An IPv4 or IPv6 address without brackets; localhost is read as 127.0.0.1."""

Host = Annotated[str, Text("a host name or an IP address (without brackets)", _parse_host)]
"""Where connections go."""

Address = Annotated[str, Text("an IP address", _parse_address)]
"""An IPv4 or IPv6 address without brackets."""

Cidr = Annotated[str, Text("an address range such as 10.0.0.0/8", _parse_cidr)]
"""A network whose host bits are zero."""

Url = Annotated[str, Text("a URL (http or https)", _parse_url)]
"""Base of a service: no query, no fragment, no user."""

UnixAddress = Annotated[str, Text("an address unix:///path/of/the.sock", _parse_unix)]
"""A Unix socket."""

Regex = Annotated[str, Text("a regular expression (RE2 syntax)", _parse_regex)]
"""A pattern that matches in linear time."""

DomainPattern = Annotated[str, Text("a domain, with * at the start or end", _parse_domain_pattern)]
"""A domain, a suffix `*.example.org`, a prefix `api.*`, or `*`."""

Path = Annotated[str, Text("a path", _same)]
"""A file or a directory."""

Name = Annotated[str, Text("a name", _same, 256)]
"""A short text without control characters."""

Template = Annotated[str, Text("a text", _same, min_length=0)]
"""A text that may be empty."""

HeaderName = Annotated[str, Text("the name of an HTTP header", _parse_header_name, 256)]
"""Letters, digits and a few signs (RFC 9110 section 5.6.2)."""
