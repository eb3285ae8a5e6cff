"""Reference values by name: their bounds, and how several sets become one.

JSON objects go in, `{NAME: VALUES}` comes out.  Source: the reference value provider service of
Trustee: lists of one name are merged, any other JSON replaces what was there.

Invariant: names, values and their number are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from tng.attest.strict_json import Json
from tng.errors import ConfigError

MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Octets of one file: ten thousand names with four digests each."""

MAX_VALUES: Final = 10_000
"""Names of all sets together; bounds what a policy is evaluated over."""

MAX_VALUE: Final = 65_536
"""Characters of one value as JSON: a thousand digests."""

MAX_NAME: Final = 256
"""Characters of a name."""

Values = dict[str, Json]
"""Reference values by name."""


def check_values(values: Mapping[str, Json], where: str) -> Values:
    """The same values, once they are known to be within bounds.

    Args:
        values: by name.
        where: place in the configuration, for the message.

    Raises:
        ConfigError: a name, a value or their number is out of bounds.
    """
    if len(values) > MAX_VALUES:
        raise ConfigError([f"{where}: more than {MAX_VALUES} reference values"])
    for name, value in values.items():
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise ConfigError(
                [f"{where}: expected names of 1 to {MAX_NAME} printables, got {name!r:.90}"]
            )
        if len(json.dumps(value)) > MAX_VALUE:
            raise ConfigError([f"{where}: {name!r:.90} has more than {MAX_VALUE} characters"])
    return dict(values)


def merge(old: Values, new: Values, where: str) -> Values:
    """Both sets in one.

    Raises:
        ConfigError: together they are out of bounds.
    """
    merged = dict(old)
    for name, value in new.items():
        merged[name] = _joined(merged.get(name), value)
    return check_values(merged, where)


def _joined(old: Json, new: Json) -> Json:
    if not isinstance(old, list) or not isinstance(new, list):
        return new
    seen = {json.dumps(item, sort_keys=True): item for item in (*old, *new)}
    return list(seen.values())
