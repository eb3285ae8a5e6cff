"""Policies in Rego, evaluated by an engine that is an extra of this package.

A text goes in, a `RegoPolicy` comes out, which answers like any other policy.  Source: the
Trustee attestation service, both kinds: package `policy`, either eight rules named like the claims
(`file_system`), or one object `trust_claims` with hyphenated names; `input` are the claims of one
device, reference values are `data.reference` and `query_reference_value(NAME)`, which is null for
a name without values.

Theory of operation: `RegoEngine` is the seam.  Behind it stands the module `regorus`, the engine
that Trustee uses, imported only when a text needs it.  Every evaluation has an engine of its own,
so that nothing is shared between threads or peers.  `query_reference_value` is a rule in a second
module beside the policy, so that no call goes from the engine back into Python.

Invariant: what does not parse is refused when it is loaded; what cannot be evaluated, or gives no
vector, is refused when it is evaluated.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from tng.attest.policy.base import CLAIMS, Appraisal, Claims, References, denied, make_appraisal
from tng.attest.strict_json import Json, parse_object
from tng.errors import ConfigError

MAX_POLICY_TEXT: Final = 262_144
"""Characters of a policy; the largest that Trustee ships has 17,000."""

MAX_INPUT: Final = 16 * 1024 * 1024
"""Characters of claims as JSON: evidence has at most 4 MiB, and claims repeat an event log."""

MAX_NESTING: Final = 10
"""Brackets inside each other; the engine's parser takes twice as long for each further one."""

INSTALL: Final = "pip install 'tng-gateway[rego]'"
"""How the engine comes onto a machine."""

_MODULE: Final = "regorus"
_PACKAGE: Final = re.compile(r"^\s*package[ \t]+policy[ \t]*(?:#.*)?\r?$", re.MULTILINE)
_REFERENCES: Final = """\
package policy

import rego.v1

query_reference_value(name) := object.get(data.reference, name, null)
"""
_NOT_CODE: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|`[^`]*`|#[^\n]*')
_OWN_FUNCTION: Final = re.compile(r"^\s*query_reference_value\s*\(", re.MULTILINE)
_MAX_MESSAGE: Final = 300


class RegoError(ValueError):
    """The engine cannot parse or evaluate a text."""


class RegoEngine(Protocol):
    """What evaluates Rego."""

    def parse(self, text: str) -> None:
        """Return if a text parses.

        Raises:
            RegoError: it does not.
        """
        ...

    def query(
        self,
        text: str,
        rules: Sequence[str],
        claims: Mapping[str, object],
        data: Mapping[str, object],
    ) -> dict[str, Json]:
        """Values of rules of the package `policy`; rules that are undefined are left out.

        Args:
            text: Rego.
            rules: their names.
            claims: the document `input`.
            data: members of the document `data`.

        Raises:
            RegoError: evaluation stopped with an error.
        """
        ...


class _Engine(Protocol):
    """The class `Engine` of the module, as far as it is used."""

    def set_gather_prints(self, b: bool) -> None: ...
    def add_policy(self, path: str, rego: str) -> object: ...
    def add_data_json(self, data: str) -> None: ...
    def set_input_json(self, input: str) -> None: ...  # noqa: A002 - the module's own name
    def eval_query_as_json(self, query: str) -> str: ...


class _Module(Protocol):
    def Engine(self) -> _Engine: ...  # noqa: N802 - a class


class RegorusEngine:
    """The engine of the module `regorus`.

    Args:
        module: that module.
    """

    def __init__(self, module: _Module) -> None:
        self._module = module

    def parse(self, text: str) -> None:
        """See `RegoEngine`."""
        self._engine(text)

    def query(
        self,
        text: str,
        rules: Sequence[str],
        claims: Mapping[str, object],
        data: Mapping[str, object],
    ) -> dict[str, Json]:
        """See `RegoEngine`."""
        engine = self._engine(text)
        try:
            engine.add_data_json(json.dumps(data))
            engine.set_input_json(json.dumps(claims))
            answers = {rule: engine.eval_query_as_json(f"data.policy.{rule}") for rule in rules}
        except RuntimeError as exc:
            # Without the cause, whose traceback would carry the engine out of its thread.
            raise RegoError(_first_words(exc)) from None
        finally:
            del engine
        values = {rule: _value(answer) for rule, answer in answers.items()}
        return {rule: value[0] for rule, value in values.items() if value}

    def _engine(self, text: str) -> _Engine:
        engine = self._module.Engine()
        engine.set_gather_prints(True)  # a policy's `print` is not to reach standard error
        try:
            engine.add_policy("policy.rego", text)
            if not _OWN_FUNCTION.search(text):
                engine.add_policy("reference_values.rego", _REFERENCES)
        except RuntimeError as exc:
            del engine
            raise RegoError(_first_words(exc)) from None
        return engine


def load_engine(module: str = _MODULE) -> RegoEngine:
    """The engine that is installed.

    Args:
        module: its name.

    Raises:
        ConfigError: there is none; the message says how to install it.
    """
    try:
        loaded = importlib.import_module(module)
    except ImportError as exc:
        raise ConfigError([f"a policy in Rego needs an engine, install it: {INSTALL}"]) from exc
    # The module has no types; the protocol says what is used of it.
    return RegorusEngine(cast("_Module", loaded))


@dataclass(frozen=True, slots=True)
class RegoPolicy:
    """A policy in Rego.  Made by `make_rego_policy`.

    Attributes:
        policy_id: its name.
        text: Rego.
        engine: evaluates it.
    """

    policy_id: str
    text: str
    engine: RegoEngine

    @property
    def trusts_all(self) -> bool:
        """Nobody knows what a text of somebody else affirms."""
        return False

    def evaluate(self, claims: Claims, references: References) -> Appraisal:
        """See `AppraisalPolicy`."""
        if len(json.dumps(claims)) > MAX_INPUT:
            raise denied(f"claims have more than {MAX_INPUT} characters as JSON")
        rules = [claim.replace("-", "_") for claim in CLAIMS]
        data = {"reference": references}
        try:
            answers = self.engine.query(self.text, ["trust_claims", *rules], claims, data)
        except RegoError as exc:
            raise denied(f"policy {self.policy_id!r} cannot be evaluated: {exc}") from exc
        values = answers.pop("trust_claims", None)
        if values is None:
            values = {rule.replace("_", "-"): value for rule, value in answers.items()}
        numbers = self._numbers(values)
        said = {claim: f"the policy's text gives {value}" for claim, value in numbers.items()}
        return make_appraisal(self.policy_id, numbers, said)

    def _numbers(self, values: Json) -> dict[str, int]:
        if not isinstance(values, dict):
            raise denied(f"policy {self.policy_id!r}: trust_claims is no object")
        numbers = {}
        for claim, value in values.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise denied(
                    f"policy {self.policy_id!r}: {claim[:40]} is {str(value)[:40]!r},"
                    " expected a whole number"
                )
            numbers[claim] = value
        return numbers


def make_rego_policy(policy_id: str, text: str, engine: RegoEngine) -> RegoPolicy:
    """A policy of a text.

    Raises:
        ConfigError: it is too long or nested too deep, has not the package `policy`, or does not
            parse.
    """
    if len(text) > MAX_POLICY_TEXT:
        raise ConfigError([f"policy {policy_id!r}: more than {MAX_POLICY_TEXT} characters"])
    if not _PACKAGE.search(text):
        raise ConfigError([f"policy {policy_id!r}: expected Rego with the line 'package policy'"])
    if _nesting(text) > MAX_NESTING:
        raise ConfigError([f"policy {policy_id!r}: brackets nested deeper than {MAX_NESTING}"])
    try:
        engine.parse(text)
    except RegoError as exc:
        raise ConfigError([f"policy {policy_id!r}: expected Rego: {exc}"]) from exc
    return RegoPolicy(policy_id, text, engine)


def _nesting(text: str) -> int:
    """Brackets inside each other, at most; those in texts and comments do not count."""
    deepest = depth = 0
    for character in _NOT_CODE.sub("", text):
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest


def _value(answer: str) -> list[Json]:
    """The one value of a query's answer; none where it is undefined."""
    try:
        results = parse_object(answer.encode()).get("result", [])
    except ValueError as exc:
        raise RegoError(f"the engine's answer cannot be read: {exc}") from exc
    match results:
        case []:
            return []
        case [{"expressions": [{"value": value}]}]:
            return [value]
        case _:
            raise RegoError("the engine's answer has not one value")


def _first_words(exc: RuntimeError) -> str:
    """What the engine says, without its drawing of the place and its own stack."""
    said = str(exc).partition("Stack backtrace:")[0]
    place = re.search(r"--> (\S+:\d+:\d+)", said)
    words = said.rpartition("error: ")[2].strip() or "unknown error"
    where = f" at {place[1]}" if place else ""
    return f"{' '.join(words.split())[:_MAX_MESSAGE]!r}{where}"
