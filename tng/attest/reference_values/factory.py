"""From `reference_values` to reference values.

Sections of the configuration and trusted keys go in, `{NAME: VALUES}` comes out.  Source: the
types `sample`, `slsa` and `release_manifest` of TNG 2.12.  `sample` are plain values that the
operator vouches for; the others are signed, and the signer must be one of the trusted keys: those
of the section (`trusted_keys_paths`), and those that the caller trusts for all sections.

Invariant: a value that the operator did not write himself is signed by a key that he named.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tng.attest.reference_values.envelope import PublicKey, load_key
from tng.attest.reference_values.listed import list_values
from tng.attest.reference_values.values import MAX_DOCUMENT, Values, check_values, merge
from tng.attest.strict_json import Json, parse_object
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.config.verify import ReferencePayload, ReferenceValues

_MAX_KEY: Final = 16 * 1024  # octets of a file with a public key


def load_reference_values(
    sections: Sequence[ReferenceValues], keys: Sequence[PublicKey] = ()
) -> Values:
    """All reference values that an operator named, merged in their order.

    Args:
        sections: `reference_values`.
        keys: trusted beside each section's own to sign those of the types `slsa` and
            `release_manifest`.

    Raises:
        ConfigError: a file that cannot be read, no such values, or a signature that is missing or
            not by a trusted key.
    """
    values: Values = {}
    for index, section in enumerate(sections):
        where = f"reference_values[{index}]"
        values = merge(values, _section_values(section, keys, where), where)
    return values


def load_keys(paths: Sequence[str]) -> tuple[PublicKey, ...]:
    """Trusted keys.

    Args:
        paths: files with one public key each, PEM.

    Raises:
        ConfigError: a file that cannot be read, or no such key.
    """
    keys = []
    for path in paths:
        data = _read(path, _MAX_KEY, f"key {path!r}")
        try:
            keys.append(load_key(data))
        except ValueError as exc:
            raise ConfigError([f"key {path!r}: {exc}"]) from exc
    return tuple(keys)


def _section_values(section: ReferenceValues, keys: Sequence[PublicKey], where: str) -> Values:
    try:
        document = _document(section.payload, where)
        if section.type == "sample":
            return check_values(document, where)
        folder = Path(section.payload.path or ".").parent
        trusted = (*keys, *_own_keys(section, where))
        return list_values(
            document, lambda path: _read(str(folder / path), MAX_DOCUMENT, where), trusted, where
        )
    except ValueError as exc:
        raise ConfigError([f"{where}: {exc}"]) from exc


def _own_keys(section: ReferenceValues, where: str) -> tuple[PublicKey, ...]:
    try:
        return load_keys(section.trusted_keys_paths)
    except ConfigError as exc:
        raise ConfigError([f"{where}.trusted_keys_paths: {line}" for line in exc.problems]) from exc


def _document(payload: ReferencePayload, where: str) -> dict[str, Json]:
    if payload.type == "path":
        return parse_object(_read(payload.path or "", MAX_DOCUMENT, where))
    if isinstance(payload.content, str):
        return parse_object(payload.content.encode())
    # What came out of a configuration is written again: it then is JSON of bounded depth.
    return parse_object(json.dumps(payload.content).encode())


def _read(path: str, limit: int, where: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as exc:
        raise ConfigError([f"{where}: cannot be read: {exc}"]) from exc
    if len(data) > limit:
        raise ConfigError([f"{where}: {path!r} has more than {limit} octets"])
    return data
