"""The list of reference values whose provenance is signed: `rv_list`.

    {"rv_list": [{"id", "version", "type", "provenance_info": {"type", "rekor_url", ...},
                  "provenance_source": {"protocol": "file", "uri": PATH}, "operation_type",
                  "rv_name"?}]}

A list and a way to read a file go in, reference values come out.  Source: lists of TNG 2.12 for
`slsa` and `release_manifest`.  The signed envelope of each item is a file beside the list; nothing
is fetched over the network here, and a signature is always verified.

Invariant: each value comes from an envelope that a trusted key has signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tng.attest.reference_values.envelope import PublicKey, open_envelope
from tng.attest.reference_values.statements import (
    IN_TOTO_TYPES,
    RELEASE_TYPES,
    manifest_digests,
    provenance_digests,
)
from tng.attest.reference_values.values import Values, merge
from tng.attest.strict_json import Json, parse_object

MAX_ITEMS: Final = 256
"""Items of one list; each is a file that is read."""

MANIFEST: Final = "rv-release-manifest"
"""`provenance_info.type` of a release manifest."""

PROVENANCE: Final = "slsa-intoto-statements"
"""`provenance_info.type` of SLSA provenance."""

_OPERATIONS: Final = ("add", "refresh")
_BUNDLED: Final = "dsseEnvelope"  # member of a Sigstore bundle


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list.

    Attributes:
        id: of the artifact.
        kind: `type`, e.g. "container".
        provenance: `MANIFEST` or `PROVENANCE`.
        path: file with the envelope.
        replaces: whether its values replace those of the same name, or join them.
        name: under which the values are stored; None for the usual one.
    """

    id: str
    kind: str
    provenance: str
    path: str
    replaces: bool
    name: str | None


def list_values(
    document: dict[str, Json],
    read: Callable[[str], bytes],
    keys: Sequence[PublicKey],
    where: str,
) -> Values:
    """Reference values of a list.

    Args:
        document: the list, parsed.
        read: octets of the file of a path.
        keys: trusted to sign.
        where: place in the configuration, for messages.

    Raises:
        ValueError: no such list, or an item whose envelope is not accepted.
        ConfigError: values out of bounds, or a file that cannot be read.
    """
    items = document.get("rv_list")
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
        raise ValueError(f"expected rv_list with 1 to {MAX_ITEMS} items")
    values: Values = {}
    for index, raw in enumerate(items):
        try:
            item = _parse_item(raw)
            new = _item_values(item, read(item.path), keys)
        except ValueError as exc:
            raise ValueError(f"rv_list[{index}]: {exc}") from exc
        kept = {n: v for n, v in values.items() if not (item.replaces and n in new)}
        values = merge(kept, new, where)
    return values


def _parse_item(raw: Json) -> Item:
    if not isinstance(raw, dict):
        raise ValueError("expected an object")  # noqa: TRY004
    source = raw.get("provenance_source")
    if not isinstance(source, dict) or source.get("protocol") != "file":
        raise ValueError(
            "expected provenance_source with protocol 'file': nothing is fetched over the network,"
            " download the signed bundle and name its file in uri"
        )
    operation = _text(raw, "operation_type")
    if operation not in _OPERATIONS:
        raise ValueError(f"operation_type is {operation!r:.40}, expected 'add' or 'refresh'")
    info = raw.get("provenance_info")
    provenance = _text(info, "type") if isinstance(info, dict) else ""
    if provenance not in (MANIFEST, PROVENANCE):
        raise ValueError(
            f"provenance_info.type is {provenance!r:.40}, expected {MANIFEST!r} or {PROVENANCE!r}"
        )
    return Item(
        id=_text(raw, "id"),
        kind=_text(raw, "type"),
        provenance=provenance,
        path=_text(source, "uri").removeprefix("file://"),
        replaces=operation == "refresh",
        name=_text(raw, "rv_name") if raw.get("rv_name") is not None else None,
    )


def _item_values(item: Item, data: bytes, keys: Sequence[PublicKey]) -> Values:
    envelope = _envelope(parse_object(data))
    if item.provenance == PROVENANCE:
        payload = open_envelope(envelope, IN_TOTO_TYPES, keys)
        digests: list[Json] = [*provenance_digests(payload, item.id)]
        return {item.name or f"measurement.{item.kind}.{item.id}": digests}
    measured = manifest_digests(open_envelope(envelope, RELEASE_TYPES, keys))
    if item.name is None:
        # A manifest names its measurements; older ones had one, which went by the item's id.
        named = {item.id: next(iter(measured.values()))} if len(measured) == 1 else {}
        return {name: [digest] for name, digest in (named | measured).items()}
    if len(measured) != 1:
        raise ValueError(f"rv_name is for manifests with one measurement, not {len(measured)}")
    return {item.name: [*measured.values()]}


def _envelope(document: dict[str, Json]) -> dict[str, Json]:
    """The envelope itself, or the one inside a bundle."""
    inner = document.get(_BUNDLED)
    return inner if isinstance(inner, dict) else document


def _text(raw: dict[str, Json], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected the text {name}")
    return value
