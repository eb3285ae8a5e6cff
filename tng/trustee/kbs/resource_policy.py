"""The resource policy: what a token must say so that its bearer gets a secret.

A token's claims and the path of what is asked for go in, an objection or "" comes out.  As with
appraisal policies, a text is known by its SHA-384, and each in the table has a native twin; every
other text is evaluated by the Rego engine: `data.policy.allow` over the claims as `input` and
`data["resource-path"]`.  Source: the key broker of openanolis/trustee 1.9.

Invariant: a policy that is stored can be evaluated, and what is evaluated says yes only with the
value `true`.  What holds under every policy (a token of
ours, the right appraisal policy, no simulated evidence) is asked in `release`, before this.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from tng.attest.policy.base import Tier
from tng.attest.policy.rego import RegoError, RegoPolicy
from tng.trustee.rego_text import Engines, load_text, text_sha384, without_engine

if TYPE_CHECKING:
    from tng.attest.kbs.resource_id import ResourceId
    from tng.attest.strict_json import Json
    from tng.trustee.kbs.database import Database

log = logging.getLogger(__name__)

AFFIRMING_TEXT: Final = """\
package policy

import rego.v1

# Releases resources to machines of which every device was affirmed.

default allow := false

allow if {
	count(input.submods) > 0
	every submod in input.submods {
		submod["ear.status"] == "affirming"
	}
}
"""
"""Text of the policy that holds until another is set."""

DENY_ALL_TEXT: Final = """\
package policy

# Releases nothing.

default allow := false
"""
"""Text of a policy that says no to everybody."""

_SETTING: Final = "resource-policy"
_CORE: Final = ("configuration", "executables", "file-system", "hardware")
_CORE_LIMIT: Final = 32
_ALLOW: Final = "allow"
_MAX_EVALUATING: Final = 2  # each waits for the one process that evaluates Rego


class Rule(enum.Enum):
    """Native evaluations."""

    AFFIRMING = "affirming"
    CORE_CLAIMS = "core claims"
    ANY_TOKEN = "any token"  # noqa: S105 - not a password
    NOBODY = "nobody"


_KNOWN: Final[dict[str, Rule]] = {
    text_sha384(AFFIRMING_TEXT): Rule.AFFIRMING,
    text_sha384(DENY_ALL_TEXT): Rule.NOBODY,
    # SHA-384 of texts that Trustee ships: its default, `affirming`, `allow_all`, `deny_all`.
    "d862d3704cfc39116654aae30c8dd0763b39f44e87847e80"
    "f06d024dfa56ffc16de3375c7368814febb595e273e3ead2": Rule.CORE_CLAIMS,
    "e51e3fbe90d919ef1a1602240f231051c6d8f34a587e1f3e"
    "aaa5d3ccd2efa765551e8c862583349af756d2845ec9d93d": Rule.AFFIRMING,
    "c687c10ed544cdb29fd1e2524d14b7beeb5786b0a1c15824"
    "7facb7014ec5476389e7a26359e2dccb6e6bb033235445ab": Rule.ANY_TOKEN,
    "02d2d388a810edb3552a3f1b7ec42979c57b10fcd27480e0"
    "b47836996f08827a00a55a9abc978db283cc264c5729cbef": Rule.NOBODY,
}


class ResourcePolicy:
    """The policy in force.

    Args:
        database: where it is kept.
        engines: makes the Rego engine, for texts without a native twin.

    Raises:
        StartError: the database cannot be read.
        TrusteeRequestError: the stored text cannot be evaluated by this version.
    """

    def __init__(self, database: Database, engines: Engines = without_engine) -> None:
        self._database = database
        self._engines = engines
        self._text = database.setting(_SETTING) or AFFIRMING_TEXT
        self._rule = _rule(self._text, engines)
        self._changing = asyncio.Lock()
        self._evaluating = asyncio.Semaphore(_MAX_EVALUATING)
        _warn(self._rule)

    @property
    def text(self) -> str:
        """Rego."""
        return self._text

    async def set(self, text: str) -> None:
        """Put another policy in force; it is stored when this returns.

        Raises:
            TrusteeRequestError: it cannot be evaluated (400), or not without an engine (501).
            StartError: it cannot be stored.
        """
        rule = await asyncio.to_thread(_rule, text, self._engines)
        async with self._changing:  # what is stored is what holds, whoever else sets one
            await asyncio.to_thread(self._database.set_setting, _SETTING, text)
            self._text, self._rule = text, rule
        log.info("resource policy set sha384=%s", text_sha384(text))
        _warn(rule)

    async def objection(self, claims: Mapping[str, Json], path: ResourceId) -> str:
        """Why the policy says no; "" if it says yes.

        Args:
            claims: of a token that was verified.
            path: what is asked for.
        """
        rule = self._rule
        if isinstance(rule, Rule):
            submods = claims.get("submods")
            return _known_objection(rule, submods if isinstance(submods, dict) else {})
        async with self._evaluating:
            return await asyncio.to_thread(_rego_objection, rule, claims, path)


def _known_objection(rule: Rule, submods: Mapping[str, Json]) -> str:
    match rule:
        case Rule.AFFIRMING:
            statuses = {name: _member(item, "ear.status") for name, item in submods.items()}
            bad = [f"{n} is {s}" for n, s in statuses.items() if s != Tier.AFFIRMING]
            return ", ".join(bad) if submods else "no device was appraised"
        case Rule.CORE_CLAIMS:
            vector = _member(submods.get("cpu0"), "ear.trustworthiness-vector")
            bad = [name for name in _CORE if not _at_most(_member(vector, name), _CORE_LIMIT)]
            return f"{', '.join(bad)} of cpu0 above {_CORE_LIMIT}" if bad else ""
        case Rule.ANY_TOKEN:
            return ""
        case Rule.NOBODY:
            return "the policy denies everything"


def _rego_objection(policy: RegoPolicy, claims: Mapping[str, Json], path: ResourceId) -> str:
    data = {"resource-path": f"resource/{path.path}"}
    try:
        answers = policy.engine.query(policy.text, [_ALLOW], claims, data)
    except RegoError as exc:
        return f"it cannot be evaluated: {exc}"
    return "" if answers.get(_ALLOW) is True else f"{_ALLOW} is not true"


def _rule(text: str, engines: Engines) -> Rule | RegoPolicy:
    rule = _KNOWN.get(text_sha384(text))
    return load_text("resource policy", text, engines) if rule is None else rule


def _warn(rule: Rule | RegoPolicy) -> None:
    if rule is Rule.ANY_TOKEN:
        log.warning("resource policy releases to every token, affirmed or not: for tests only")


def _at_most(value: Json, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value <= limit


def _member(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None
