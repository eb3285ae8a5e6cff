"""`tng config`: look at a configuration without running it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from tng.cli.commands import COMMANDS
from tng.cli.launch import add_config_arguments, read_config, read_text

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "config",
        help=COMMANDS["config"],
        description="Look at a configuration without running it.",
    )
    actions = parser.add_subparsers(title="actions", required=True)
    check = actions.add_parser(
        "check",
        help="name every problem and every danger",
        description="Name every problem of a configuration (exit status 2), or else every danger"
        " (exit status 0).",
    )
    add_config_arguments(check)
    check.set_defaults(run=run_check)
    show = actions.add_parser(
        "show",
        help="print it as understood, defaults filled in",
        description="Print a configuration as understood: defaults filled in, secrets masked.",
    )
    add_config_arguments(show)
    show.set_defaults(run=run_show)
    render = actions.add_parser(
        "from-env",
        help="make a configuration from a cai.env file",
        description="Print the configuration of one side that a cai.env file stands for.",
    )
    render.add_argument("role", choices=["ingress", "egress"], help="which side")
    render.add_argument("file", help="the cai.env file")
    render.set_defaults(run=run_from_env)
    schema = actions.add_parser(
        "schema",
        help="print the JSON Schema",
        description="Print the JSON Schema (draft 2020-12) of configurations, for editors.",
    )
    schema.set_defaults(run=run_schema)


def run_check(arguments: argparse.Namespace) -> int:
    """Check a configuration; dangers are told, but do not refuse it.

    One whose entries are all of mode `hook` is checked as `tng exec` does, every other one as
    `tng launch` does.
    """
    from tng.cli.exec import prepare_exec_config
    from tng.config.dangers import dangers
    from tng.config.loader import parse_config, prepare_config

    text = read_config(arguments)
    parsed = parse_config(text)
    hooks = [entry.hook for entry in parsed.add_ingress]
    is_for_exec = all([*hooks, *(entry.hook for entry in parsed.add_egress)])
    config = prepare_exec_config(text) if is_for_exec else prepare_config(text)
    for danger in dangers(config):
        print(f"warning: {danger}")
    print("configuration OK")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print a configuration as understood; secrets are masked."""
    from tng.config.loader import parse_config

    config = parse_config(read_config(arguments))
    shown = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    json.dump(shown, sys.stdout, indent=2)
    print()
    return 0


def run_from_env(arguments: argparse.Namespace) -> int:
    """Print the configuration that a cai.env file stands for."""
    from tng.config.cai_env import config_from_cai_env, parse_cai_env

    values = parse_cai_env(read_text(arguments.file, "file"))
    json.dump(config_from_cai_env(values, arguments.role), sys.stdout, indent=2)
    print()
    return 0


def run_schema(_: argparse.Namespace) -> int:
    """Print the JSON Schema."""
    from tng.config.schema import json_schema

    json.dump(json_schema(), sys.stdout, indent=2)
    print()
    return 0
