"""Names for the sections of a configuration that supervisor and workers talk about.

In: a configuration, and one of its `attest` or `verify` objects.  Out: the path of the entry that
it stands in, e.g. "add_egress[0]".  Invariant: both processes read the same text, so that a name
means the same section in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tng.config.model import Attest, Egress, Ingress, TngConfig, Verify


def entries(config: TngConfig) -> Iterator[tuple[str, Ingress | Egress]]:
    """Every entry under its path."""
    for number, ingress in enumerate(config.add_ingress):
        yield f"add_ingress[{number}]", ingress
    for number, egress in enumerate(config.add_egress):
        yield f"add_egress[{number}]", egress


def path_of(config: TngConfig, section: Attest | Verify) -> str:
    """The path of the entry that `section` stands in; by identity, since two may be equal."""
    for path, entry in entries(config):
        if entry.attest is section or any(verify is section for verify in entry.verifiers):
            return path
    raise AssertionError("a section is looked up in the configuration that it came from")
