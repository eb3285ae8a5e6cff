"""Rego from administrators: what stands between an uploaded text and the engine.

A text goes in, something that can be evaluated comes out, or the refusal that the administrator
reads: 501 where no engine is installed, 400 for a text that is none.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tng.attest.policy.rego import RegoEngine, RegoPolicy, make_rego_policy
from tng.errors import ConfigError
from tng.trustee.problems import ProblemCode, TrusteeRequestError

Engines: TypeAlias = Callable[[], RegoEngine]
"""Makes the engine, or says with a ConfigError that there is none."""


def without_engine() -> RegoEngine:
    """Stand for the engine where only texts with native twins are evaluated.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(["only texts with native twins are evaluated here"])


def text_sha384(text: str) -> str:
    """SHA-384 of a text, hexadecimal; by it shipped texts are known."""
    return hashlib.sha384(text.encode()).hexdigest()


def engine_for(text: str, engines: Engines) -> RegoEngine:
    """The engine, for a text that no native twin answers for.

    Raises:
        TrusteeRequestError: there is none (501).
    """
    try:
        return engines()
    except ConfigError as exc:
        raise TrusteeRequestError(
            f"Rego engine not available: {exc}; the policy's SHA-384 is {text_sha384(text)},"
            " none of the texts that are known without it",
            ProblemCode.NOT_IMPLEMENTED,
            field="policy",
        ) from exc


@contextlib.contextmanager
def policy_refusals() -> Iterator[None]:
    """In this block, a text that cannot be loaded is the administrator's fault (400)."""
    try:
        yield
    except ConfigError as exc:
        raise TrusteeRequestError(
            str(exc)[:500], ProblemCode.INVALID_ARGUMENT, field="policy"
        ) from exc


def load_text(name: str, text: str, engines: Engines) -> RegoPolicy:
    """A text that the engine can evaluate.

    Args:
        name: for messages.
        text: Rego; package `policy`.
        engines: see `Engines`.

    Raises:
        TrusteeRequestError: no such text (400), or no engine (501).
    """
    with policy_refusals():
        return make_rego_policy(name, text, engine_for(text, engines))
