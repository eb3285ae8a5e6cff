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
from tng.config.verify import Verify
from tng.config.walk import Path, walk

NOT_YET: Final = "not available in this version"
"""Words of every line."""

UNAVAILABLE_KEYS: Final[frozenset[tuple[type[StrictModel], str]]] = frozenset(
    {
        (TngConfig, "metric"),
        (TngConfig, "trace"),
        (Ingress, "socks5"),
        (Ingress, "netfilter"),
        (Ingress, "netfilter_udp"),
        (Ingress, "hook"),
        (Ingress, "mapping_udp"),
        (Ingress, "ohttp"),
        (Ingress, "quic"),
        (Egress, "netfilter"),
        (Egress, "netfilter_udp"),
        (Egress, "hook"),
        (Egress, "mapping_udp"),
        (Egress, "ohttp"),
        (Egress, "quic"),
        (Egress, "direct_forward"),
        (Verify, "verify_signer_transparency"),
        (Verify, "attestation_policy"),
        (Verify, "reference_values"),
        (Verify, "ita_jwks_addr"),
        (Verify, "api_key"),
        (Attest, "api_key"),
    }
)
"""Keys, by their names in Python; they may be absent, null, false or empty."""

UNAVAILABLE_VALUES: Final[dict[tuple[type[StrictModel], str], frozenset[str]]] = {
    (Attest, "aa_provider"): frozenset({"ita", "ita_asr"}),
    (Attest, "aa_type"): frozenset({"builtin"}),
    (Attest, "as_provider"): frozenset({"ita"}),
    (Attest, "as_type"): frozenset({"grpc", "builtin"}),
    (Verify, "as_provider"): frozenset({"ita"}),
    (Verify, "as_type"): frozenset({"grpc", "builtin"}),
}
"""Values of keys that are there otherwise."""

MAX_VERIFIERS: Final = 1
"""Entries of a list under `verify`."""


def unavailable(config: TngConfig) -> list[str]:
    """What the configuration asks for and this version has not, one line each."""
    return [line for path, model in walk(config) for line in _lines_of(path, model)]


def _lines_of(path: Path, model: StrictModel) -> Iterator[str]:
    for name, field in type(model).model_fields.items():
        value: object = getattr(model, name)
        at = (*path, json_names(name, field)[0])
        if (type(model), name) in UNAVAILABLE_KEYS and value not in (None, False, []):
            yield f"{dump_path(at)}: {_words(at)}"
        elif value in UNAVAILABLE_VALUES.get((type(model), name), ()):
            yield f"{dump_path(at)}: {quote(str(value))} is {NOT_YET}"
        elif name == "verify" and isinstance(value, list) and len(value) > MAX_VERIFIERS:
            yield f"{dump_path(at)}: more than one verifier is {NOT_YET}"


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
