"""`tng exec`: run a program whose connections, or whose ports, go through a gateway.

In: a configuration whose entries are all of mode `hook`, and a command.  Out: the command's exit
status, 128 + n where signal n ended it, 1 where it could not be started.  Source: TNG 2.12.
A library of ours is loaded into the program and what it starts (LD_PRELOAD); nothing is changed on
the machine, and no privilege is needed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import TYPE_CHECKING

from tng.cli.commands import COMMANDS
from tng.cli.exec_library import child_environment, find_library
from tng.cli.exec_program import check_reach, find_program
from tng.cli.launch import add_audit_argument, add_config_arguments, read_config
from tng.cli.openssl_settings import load_openssl
from tng.errors import ConfigError, StartError, TngError

if TYPE_CHECKING:
    from tng.config.model import TngConfig

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_EPILOG = """\
examples:
  tng exec -c ingress.json -- curl http://10.0.0.5:8000/v1/models
  tng exec -c egress.json -- vllm serve /model --port 8000

The program has to be dynamically linked.  The log goes to standard error; see `--log-file`.
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "exec",
        help=COMMANDS["exec"],
        description="Run COMMAND with its captured connections (add_ingress) or ports (add_egress)"
        "\nled through tunnels.  Ends with it, with its exit status.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_arguments(parser)
    add_audit_argument(parser)
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the program; its exit status.

    Raises:
        ConfigError: the configuration is wrong, or not one for a program.
        StartError: the program cannot be run, or not be captured.
        TngError: the gateway failed; the program was ended.
    """
    command: list[str] = arguments.program[arguments.program[:1] == ["--"] :]
    if not command:
        raise ConfigError(["exec: expected a command to run: tng exec -c FILE -- COMMAND ..."])
    config = prepare_exec_config(read_config(arguments))
    if not sys.platform.startswith("linux"):
        raise StartError(f"tng exec needs Linux; this is {sys.platform}")
    library = find_library(os.environ)
    check_reach(find_program(command[0], os.environ), library, os.environ)
    return _run(config, command, str(library), arguments.audit_log)


def prepare_exec_config(text: str) -> TngConfig:
    """Parse a configuration that is to be run beside a program; every port is named in it.

    Raises:
        ConfigError: it is wrong, or asks for what cannot be had under `tng exec`.
        StartError: no port is free.
    """
    from tng.config.availability import unavailable
    from tng.config.exec_rules import exec_problems
    from tng.config.loader import parse_config
    from tng.gateway.hook_ports import with_ports

    config = parse_config(text)
    problems = [*exec_problems(config), *unavailable(config, under_exec=True)]
    if problems:
        raise ConfigError(problems)
    return with_ports(config)


def _run(
    config: TngConfig, command: list[str], library: str, audit_log: pathlib.Path | None
) -> int:
    load_openssl()
    import trio

    from tng.cli.audit_records import audited
    from tng.cli.exec_child import run_beside
    from tng.clock import SystemClock
    from tng.gateway.app import Gateway

    clock = SystemClock()
    environment = child_environment(config, os.environ, library)
    try:
        with audited(audit_log, clock, "exec") as trust:
            return trio.run(run_beside, Gateway(config, clock, trust), command, environment)
    except BaseExceptionGroup as group:
        known = group.subgroup(TngError)
        if known is None:
            raise
        raise _first(known) from group


def _first(group: BaseExceptionGroup[TngError]) -> TngError:
    """What ended the gateway: nurseries wrap it, people want to read it."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
