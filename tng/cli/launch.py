"""`tng launch`: run a gateway until a signal ends it."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from tng.errors import ConfigError, TngError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "launch",
        help="run a gateway",
        description="Run the ingresses and egresses of one configuration until SIGTERM or SIGINT.",
    )
    add_config_arguments(parser)
    parser.set_defaults(run=run)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two ways to give a configuration; exactly one is needed."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-c", "--config-file", metavar="FILE", help="configuration file (JSON)")
    source.add_argument("--config-content", metavar="JSON", help="the configuration itself")


def read_config(arguments: argparse.Namespace) -> str:
    """The text of the configuration.

    Raises:
        ConfigError: the file cannot be read.
    """
    if arguments.config_content is not None:
        content: str = arguments.config_content
        return content
    try:
        return pathlib.Path(arguments.config_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            [f"--config-file {arguments.config_file}: cannot be read: {exc}"]
        ) from exc


def run(arguments: argparse.Namespace) -> int:
    """Run the gateway; 0 after a signal."""
    import trio

    from tng.clock import SystemClock
    from tng.config.loader import prepare_config
    from tng.gateway.app import Gateway

    config = prepare_config(read_config(arguments))
    try:
        trio.run(Gateway(config, SystemClock()).run)
    except BaseExceptionGroup as group:
        # What ends a gateway is one of our errors; nurseries wrap it, people want to read it.
        known = group.subgroup(TngError)
        if known is None:
            raise
        raise _first(known) from group
    return 0


def _first(group: BaseExceptionGroup[TngError]) -> TngError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
