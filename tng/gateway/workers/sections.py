"""Names for the sections of a configuration that supervisor and workers talk about.

In: a configuration, and one of its `attest` or `verify` objects.  Out: the path of the entry that
it stands in, e.g. "add_egress[0]", or of the keys that peers share there,
"add_egress[0].ohttp.key".

Invariant: both processes read the same text, so that a name means the same section in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tng.config.ohttp import EgressOhttp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tng.config.model import Attest, Egress, Ingress, TngConfig, Verify


def entries(config: TngConfig) -> Iterator[tuple[str, Ingress | Egress]]:
    """Every entry under its path."""
    for number, ingress in enumerate(config.add_ingress):
        yield f"add_ingress[{number}]", ingress
    for number, egress in enumerate(config.add_egress):
        yield f"add_egress[{number}]", egress


def key_path(entry: str) -> str:
    """The path of an egress's HPKE keys, given that of the egress."""
    return f"{entry}.ohttp.key"


def path_of(config: TngConfig, section: Attest | Verify) -> str:
    """The path of what `section` stands in; by identity, since two may be equal."""
    for path, entry in entries(config):
        if entry.attest is section or any(verify is section for verify in entry.verifiers):
            return path
        key = entry.ohttp.key if isinstance(entry.ohttp, EgressOhttp) else None
        if key is not None and (key.attest is section or key.verify is section):
            return key_path(path)
    raise AssertionError("a section is looked up in the configuration that it came from")
