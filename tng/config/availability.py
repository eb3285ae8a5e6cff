"""What the grammar has and this version has not: a table, from which later versions take lines.

In: a valid configuration.  Out: a line for each thing in it that is built later.  A configuration
with such a thing is refused as a whole: nothing that the operator wrote is ever left out silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tng.config.attest import Attest
from tng.config.entry import Egress, Ingress
from tng.config.model import TngConfig
from tng.config.problems import dump_path, quote
from tng.config.strict import StrictModel, json_names
from tng.config.walk import Path, walk

NOT_YET: Final = "not available in this version"
"""Words of every line."""

UNAVAILABLE_KEYS: Final[frozenset[tuple[type[StrictModel], str]]] = frozenset(
    {
        (TngConfig, "trace"),
    }
)
"""Keys, by their names in Python; they may be absent, null, false or empty."""

EXEC_ONLY: Final[frozenset[tuple[type[StrictModel], str]]] = frozenset(
    {(Ingress, "hook"), (Egress, "hook")}
)
"""Keys that need a program to run: `tng exec` has one, `tng launch` has none."""

UNAVAILABLE_VALUES: Final[dict[tuple[type[StrictModel], str], frozenset[str]]] = {
    (Attest, "aa_type"): frozenset({"builtin"}),
    (Attest, "as_type"): frozenset({"builtin"}),
}
"""Values of keys that are there otherwise."""


def unavailable(config: TngConfig, *, under_exec: bool = False) -> list[str]:
    """What the configuration asks for and cannot have, one line each.

    Args:
        config: a valid one.
        under_exec: whether a program of its own is run beside it.
    """
    needs = UNAVAILABLE_KEYS if under_exec else UNAVAILABLE_KEYS | EXEC_ONLY
    return [line for path, model in walk(config) for line in _lines_of(path, model, needs)]


def _lines_of(
    path: Path, model: StrictModel, keys: frozenset[tuple[type[StrictModel], str]]
) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value: object = getattr(model, name)
        at = (*path, json_names(name, field)[0])
        if (type(model), name) in keys and value not in (None, False, []):
            yield f"{dump_path(at)}: {_words(at)}"
        elif value in UNAVAILABLE_VALUES.get((type(model), name), ()):
            yield f"{dump_path(at)}: {quote(str(value))} is {NOT_YET}"


def _words(at: Path) -> str:
    match at:
        case ("add_ingress" | "add_egress" as where, int(number), "hook"):
            kind = "Ingress" if where == "add_ingress" else "Egress"
            return (
                f"{kind} entry {number} uses 'hook' mode, which is only allowed via `tng exec`, "
                "not `tng launch`"
            )
        case _:
            return NOT_YET
