"""The command `tng`: words in, exit status out.

0 clean, 1 runtime failure, 2 bad configuration or usage.  Each command's module is imported when
the command is used, so that `tng launch` starts fast.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from tng import __version__
from tng.cli.commands import COMMANDS
from tng.cli.conflict import refuse_conflict
from tng.errors import ConfigError, TngError
from tng.observe.logs import configure_logging
from tng.observe.options import LogFlags, log_options

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_EXIT_STATUS: Final = (
    "exit status: 0 clean, 1 failed, 2 wrong configuration or usage, 130 interrupted"
)

_EPILOG: Final = f"""\
`tng COMMAND --help` describes each command; log options stand before the command.

environment:
  TNG_LOG, RUST_LOG     which log lines: a level, or levels by name, e.g. info,tng.tunnel=debug
  TNG_LOG_FORMAT, TNG_LOG_ERROR_FILE, TNG_LOG_ROLLING, TNG_LOG_MAX_SIZE, TNG_LOG_MAX_BACKUPS
                        override the option of that name

{_EXIT_STATUS}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    options = make_parser(words).parse_args(words)
    _silence_grpc(options.command)
    # The library's remark on an odd name in a certificate: a peer wrote that name, and a peer
    # shall not write to our standard error.
    warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)
    try:
        refuse_conflict()
        # Only a gateway's output is its log; other commands print results, and log to stderr.
        stream = None if options.command == "launch" else sys.stderr.fileno()
        logging_ = configure_logging(log_options(_log_flags(options), os.environ), stream=stream)
    except TngError as error:
        return report(error)
    try:
        status: int = options.run(options)
    except TngError as error:
        status = report(error)
    except KeyboardInterrupt:
        status = 130
    finally:
        logging_.close()
    return status


def report(error: TngError) -> int:
    """Print `error` the way every command does; its exit status."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            print(f"tng: error: {problem}", file=sys.stderr)
    else:
        print(f"tng: error: {error} [{error.code}]", file=sys.stderr)
    return error.exit_status


def make_parser(words: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        words: what it is to parse.  A command that is none of these words cannot be the one that
            is called, so that its name and its line of help will do; by default all are complete.
    """
    parser = argparse.ArgumentParser(
        prog="tng",
        description="Trusted Network Gateway: attested tunnels to services in a TEE.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tng {__version__} (tng-gateway)")
    logs = parser.add_argument_group("log options")
    logs.add_argument(
        "--log-file",
        metavar="FILE",
        help="append log lines here (default: stdout for `launch`, else stderr)",
    )
    logs.add_argument("--log-format", metavar="FORMAT", help="text (default) or json")
    logs.add_argument("--log-error-file", metavar="FILE", help="also write ERROR lines here")
    logs.add_argument("--log-rolling", action="store_true", help="roll log files by size")
    logs.add_argument("--log-max-size", metavar="SIZE", help="size of a log file (default 64MB)")
    logs.add_argument("--log-max-backups", metavar="N", help="rolled files kept (default 5)")
    logs.add_argument(
        "--tokio-console", action="store_true", help="accepted for compatibility, does nothing"
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for name, line in COMMANDS.items():
        if name in words:
            _load(name).add_parser(commands)
        else:
            commands.add_parser(name, help=line)
    for below in commands.choices.values():
        _add_exit_status(below)
    return parser


class _Command(Protocol):
    """The module of a command."""

    def add_parser(self, commands: Subparsers) -> None:
        """Add the command to the command line."""
        ...


def _load(name: str) -> _Command:
    module: _Command = importlib.import_module(f"tng.cli.{name}")
    return module


def _add_exit_status(parser: argparse.ArgumentParser) -> None:
    """Have the help of a command, and of all below it, end with what its exit status means."""
    told = f"{parser.description or ''} {parser.epilog or ''}".lower()
    if "exit status" not in told:
        parser.epilog = f"{parser.epilog}\n{_EXIT_STATUS}" if parser.epilog else _EXIT_STATUS
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to its subparsers
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                _add_exit_status(below)


def _silence_grpc(command: str) -> None:
    """Keep grpcio's native lines out of our output, unless the operator has set their level.

    The library reads the variable when it is loaded, and offers no other way.  A program under
    `tng exec` inherits our environment, which is not ours to change.
    """
    if command != "exec":
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _log_flags(options: argparse.Namespace) -> LogFlags:
    return LogFlags(
        file=options.log_file,
        format=options.log_format,
        error_file=options.log_error_file,
        rolling=options.log_rolling,
        max_size=options.log_max_size,
        max_backups=options.log_max_backups,
    )


if __name__ == "__main__":
    sys.exit(main())
