"""Errors in the operator's words: one line each, with the path as it stands in the file.

In: a pydantic `ValidationError` and the JSON it is about.  Out: lines such as

    add_ingress[0].http_proxy.proxy_listen.port: expected an integer 1-65535, got the string "80"
    add_ingress[0].verify: unknown key "as_address", did you mean "as_addr"? (known: ...)

Invariant: no line shows the value of a secret, of an unknown key, or a character that could
forge a line of a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tng.config.secret import MASK
from tng.config.strict import Fault, StrictModel, json_names

_MAX_LINES: Final = 50  # more do not help anybody, and a hostile file could cause millions
_MAX_SHOWN: Final = 60  # characters of a value or a key that are repeated in a line
_SECRET_KEYS: Final = frozenset({"api_key", "password", "as_headers", "headers"})
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_NOT_SUPPORTED: Final = {"web_page_inject": "the `web_page_inject` field is not supported"}
_TOP: Final = "configuration"
_ABSENT: Final = object()

PathParts = Sequence[str | int]
"""JSON names and positions, from the top."""


def problem_lines(error: ValidationError, data: object, root: type[StrictModel]) -> list[str]:
    """All problems of a configuration, in the order of the file.

    Args:
        error: what `root.model_validate(data)` raised.
        data: the JSON, to show paths as they are written there.
        root: class of the whole.
    """
    lines: list[str] = []
    for details in error.errors(include_url=False):
        lines.extend(_lines_of(details, data, root))
        if len(lines) > _MAX_LINES:
            return [*lines[:_MAX_LINES], f"{_TOP}: and more problems like these"]
    return lines


def dump_path(parts: PathParts) -> str:
    """A path for people: `add_ingress[0].mapping.rules[1].in`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{quote(part)}]"
    return text or _TOP


def quote(text: str) -> str:
    """A text from outside for one line of a log: quoted, cut, ASCII, without credentials."""
    end = text.rfind("@")
    if end >= 0:  # user and password of a URL, however it is misspelt
        text = text[: text.find("//", 0, end) + 2 if "//" in text[:end] else 0] + MASK + text[end:]
    return json.dumps(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")


def describe(value: object) -> str:
    """A value of JSON for one line of a log, with its type."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            kind = "integer" if isinstance(value, int) else "number"
            return f"the {kind} {str(value)[:_MAX_SHOWN]}"
        case str():
            return f"the string {quote(value)}"
        case list():
            return "a list"
        case _:
            return "an object"


def closest(word: str, known: Sequence[str]) -> str:
    """`, did you mean "..."?`, or nothing when no known word is close."""
    import difflib  # here, because only mistakes need it

    near = difflib.get_close_matches(word[:_MAX_SHOWN], known, n=1)
    return f", did you mean {quote(near[0])}?" if near else ""


def _lines_of(details: ErrorDetails, data: object, root: type[StrictModel]) -> Iterator[str]:
    kind, loc = details["type"], details["loc"]
    if kind == "extra_forbidden":
        yield _unknown_key(loc, data, root)
    elif kind == "faults":
        for fault in details["ctx"]["faults"]:
            assert isinstance(fault, Fault)
            path = _as_written((*loc, *fault.path), data, keep_last=bool(fault.path))
            yield f"{dump_path(path)}: {fault.text}"
    else:
        path = _as_written(loc, data, keep_last=kind == "missing")
        secret = not _SECRET_KEYS.isdisjoint(map(str, loc))
        yield f"{dump_path(path)}: {_wording(details, secret=secret)}"


def _as_written(loc: PathParts, data: object, *, keep_last: bool) -> list[str | int]:
    """The path in the file: without tags of unions, and without steps the short forms leave out.

    Args:
        loc: path in the normal form.
        data: the file.
        keep_last: whether the last step stands for a key that the file may lack.
    """
    path: list[str | int] = []
    here = data
    for number, part in enumerate(loc, 1):
        below = _item(here, part)
        if below is _ABSENT and not (keep_last and number == len(loc)):
            continue
        here = below
        path.append(part)
    return path


def _item(value: object, part: str | int) -> object:
    if isinstance(value, dict):
        return value.get(part, _ABSENT)
    inside = isinstance(value, list) and isinstance(part, int) and part < len(value)
    return value[part] if inside else _ABSENT  # type: ignore[index]  # `inside` says that it fits


def _unknown_key(loc: PathParts, data: object, root: type[StrictModel]) -> str:
    key = str(loc[-1])
    parent = dump_path(_as_written(loc[:-1], data, keep_last=False))
    if key in _NOT_SUPPORTED:
        return f"{parent}: {_NOT_SUPPORTED[key]}"
    names = [json_names(n, f) for n, f in _model_at(root, loc[:-1]).model_fields.items()]
    for choices in names:
        if key in choices:
            return f"{parent}: {quote(key)} is another name of {quote(choices[0])}: give one"
    known = [choices[0] for choices in names]
    hint = closest(key, known)
    return f"{parent}: unknown key {quote(key)}{hint} (known: {', '.join(known)})"


def _model_at(root: type[StrictModel], loc: PathParts) -> type[StrictModel]:
    """The class of the object at a path."""
    model = root
    for part in loc:
        for name, field in model.model_fields.items():
            if part in json_names(name, field):
                model = _models_in(field.annotation)[0]
                break
    return model


def _models_in(annotation: object) -> list[type[StrictModel]]:
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _wording(details: ErrorDetails, *, secret: bool) -> str:
    context = details.get("ctx", {})
    value = details["input"]
    got = f"got {MASK if secret else describe(value)}"
    match details["type"]:
        case "missing":
            return "required key is missing"
        case "refused":
            return details["msg"]
        case "expected":
            reason = "" if secret else context["reason"]
            return f"expected {context['what']}, {got}{reason}"
        case "literal_error":
            known = re.findall(r"'([^']*)'", context["expected"])
            hint = closest(value, known) if isinstance(value, str) else ""
            words = ", ".join(map(quote, known))
            return f"expected {'one of ' if len(known) > 1 else ''}{words}, {got}{hint}"
        case "bool_type":
            return f"expected true or false, {got}"
        case "list_type":
            return f"expected a list, {got}"
        case "model_type":
            return f"expected an object, {got}"
        case "too_long":
            return f"expected at most {context['max_length']} items, got more"
        case "too_short":
            return f"expected at least {context['min_length']} item, got an empty list"
        case _:
            return f"{details['msg'].lower()}, {got}"
