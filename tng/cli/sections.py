"""Sections of a configuration that are given on the command line, checked as in a whole one.

The text of an `attest` or `verify` section in, the section out.  Source: the options `--attest` and
`--verify` of the tools of TNG 2.12; tags that are left out have their defaults here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.config.model import Attest, TngConfig, Verify


def attest_section(text: str) -> Attest:
    """The section in `--attest`.

    Raises:
        ConfigError: not JSON, or no such section.
    """
    attest = _config(text, "attest").add_egress[0].attest
    assert attest is not None  # it was in the text
    return attest


def verify_section(text: str) -> Verify:
    """The section in `--verify`.

    Raises:
        ConfigError: not JSON, or no such section; a list of sections is none.
    """
    return _config(text, "verify").add_egress[0].verifiers[0]


def _config(text: str, name: str) -> TngConfig:
    from tng.config.loader import prepare_config

    try:
        section = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError([f"--{name}: not JSON: {exc}"]) from exc
    if not isinstance(section, dict):
        raise ConfigError([f"--{name}: expected one object, got {type(section).__name__}"])
    address = {"host": "127.0.0.1", "port": 1}
    entry = {"mapping": {"in": address, "out": address}, name: section}
    return prepare_config(json.dumps({"add_egress": [entry]}))
