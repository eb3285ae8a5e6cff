"""The API key of Intel Trust Authority from the environment, for configurations that name none.

The text of a configuration and the environment in, the text with the key out.  Source: TNG 2.12,
whose variable has the same name.

Invariant: a key that the operator wrote is never replaced, and a text that is no JSON is returned
as it is, for the reader of the configuration to say so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tng.attest.strict_json import Json

VARIABLE: Final = "ITA_API_KEY"
"""Name of the variable."""

_PROVIDER: Final = "as_provider"
_KEY: Final = "api_key"


def with_ita_key(text: str, environment: Mapping[str, str]) -> str:
    """The configuration in which every section that asks the service has a key, if there is one.

    Args:
        text: JSON.
        environment: where the key may stand.
    """
    key = environment.get(VARIABLE)
    if not key or '"ita"' not in text:
        return text
    from tng.attest.strict_json import parse_json

    try:
        config = parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return text
    return json.dumps(config) if _fill(config, key) else text


def _fill(value: Json, key: str) -> bool:
    """Whether a key was put in anywhere."""
    if isinstance(value, list):
        return any([_fill(item, key) for item in value])  # noqa: C419 - all of them, not the first
    if not isinstance(value, dict):
        return False
    filled = any([_fill(item, key) for item in value.values()])  # noqa: C419 - as above
    if value.get(_PROVIDER) == "ita" and _KEY not in value:
        value[_KEY] = key
        return True
    return filled
