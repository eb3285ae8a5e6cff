"""`tng tools`: commands that look at one part of an installation, or prepare it.

One module per tool, each with `add_parser`; a new one is a word in `_TOOLS`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from tng.cli import (
    tools_kbs,
    tools_ohttp,
    tools_policy,
    tools_quote,
    tools_rats_tls,
    tools_rv,
    tools_token,
)
from tng.cli.commands import COMMANDS

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_TOOLS: Final = (
    tools_kbs,
    tools_ohttp,
    tools_policy,
    tools_quote,
    tools_rats_tls,
    tools_rv,
    tools_token,
)


def add_parser(commands: Subparsers) -> None:
    """Add the group to the command line."""
    parser = commands.add_parser(
        "tools",
        help=COMMANDS["tools"],
        description="Single tools around a gateway and its attestation service.",
    )
    tools = parser.add_subparsers(title="tools", dest="tool", required=True)
    for tool in _TOOLS:
        tool.add_parser(tools)
