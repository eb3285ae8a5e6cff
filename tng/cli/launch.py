"""`tng launch`: run a gateway until a signal ends it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import pathlib
import sys
from typing import TYPE_CHECKING, Final

from tng.cli.commands import COMMANDS
from tng.cli.openssl_settings import load_openssl
from tng.errors import ConfigError, TngError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001
    Source = argparse._MutuallyExclusiveGroup  # noqa: SLF001


_MAX_WORKERS: Final = 256
"""More than cores of the largest machines; each is a process with its own memory."""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "launch",
        help=COMMANDS["launch"],
        description="Run the ingresses and egresses of one configuration until SIGTERM or SIGINT."
        " The first signal lets open streams finish (drain_timeout_secs), a second one cuts them.",
    )
    source = add_config_arguments(parser)
    # How a supervisor starts its workers; their configuration comes over that descriptor.
    source.add_argument("--worker-link", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--workers",
        metavar="N|auto",
        type=worker_count,
        default=1,
        help="processes that share ports, verdicts, certificates (default 1; auto: one per core)",
    )
    add_audit_argument(parser)
    parser.set_defaults(run=run)


def worker_count(word: str) -> int:
    """The number of workers that `word` asks for.

    Raises:
        argparse.ArgumentTypeError: neither auto nor an integer 1-256.
    """
    if word == "auto":
        return min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
    if not (word.isascii() and word.isdigit() and 1 <= int(word[:4]) <= _MAX_WORKERS):
        raise argparse.ArgumentTypeError(
            f"expected auto or an integer 1-{_MAX_WORKERS}, got {word!r}"
        )
    return int(word)


def add_config_arguments(parser: argparse.ArgumentParser) -> Source:
    """Add the two ways to give a configuration; exactly one is needed."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-c", "--config-file", metavar="FILE", help="configuration file (JSON)")
    source.add_argument("--config-content", metavar="JSON", help="the configuration itself")
    return source


def add_audit_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the audit log."""
    parser.add_argument(
        "--audit-log",
        metavar="FILE",
        type=pathlib.Path,
        help="append a record of every judgement of a peer here; see `tng audit`",
    )


def read_config(arguments: argparse.Namespace) -> str:
    """The text of the configuration, with the API key that the environment may hold.

    Raises:
        ConfigError: the file cannot be read.
    """
    from tng.cli.ita_key import with_ita_key

    content: str | None = arguments.config_content
    if content is None:
        content = read_text(arguments.config_file, "--config-file")
    return with_ita_key(content, os.environ)


def read_text(path: str, what: str) -> str:
    """The text of a file that the operator named as `what`.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise ConfigError([f"{what} {path}: cannot be read: {exc}"]) from exc


def run(arguments: argparse.Namespace) -> int:
    """Run the gateway, or one worker of it; 0 after a signal."""
    try:
        if arguments.worker_link is not None:
            _run_worker(arguments.worker_link)
        elif arguments.workers == 1:
            _run_alone(read_config(arguments), arguments.audit_log)
        else:
            _run_supervisor(arguments)
    except BaseExceptionGroup as group:
        # What ends a gateway is one of our errors; nurseries wrap it, people want to read it.
        known = group.subgroup(TngError)
        if known is None:
            raise
        raise _first(known) from group
    return 0


def worker_command(arguments: argparse.Namespace) -> list[str]:
    """The command line of a worker: logs as we do, and lacks the descriptor of its stream.

    Raises:
        ConfigError: the log rolls over by size, which only one process can do to a file.
    """
    from tng.observe.options import LogFlags, log_options

    flags = LogFlags(
        arguments.log_file,
        arguments.log_format,
        arguments.log_error_file,
        arguments.log_rolling,
        arguments.log_max_size,
        arguments.log_max_backups,
    )
    if log_options(flags, os.environ).rolling:
        raise ConfigError(
            ["--log-rolling: expected --workers 1 beside it: one process rolls a file over"]
        )
    # The folder that we run in is searched for the package only if it was for ours.
    isolation = [] if {"", str(pathlib.Path.cwd())} & set(sys.path) else ["-P"]
    logs = {
        "--log-file": arguments.log_file,
        "--log-format": arguments.log_format,
        "--log-error-file": arguments.log_error_file,
    }
    given = [f"{flag}={value}" for flag, value in logs.items() if value is not None]
    return [sys.executable, *isolation, "-m", "tng", *given, "launch", "--worker-link"]


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Keep the garbage collector from start-up, the block, and have it look rarely afterwards.

    Start-up loads modules, which stay, and leaves hardly any garbage: looking for it took a sixth
    of the time, so nothing that start-up has made is ever looked at.  Connections free themselves
    by reference counts; the collector is for what errors leave behind.  With the interpreter's
    defaults it took a tenth of the time of short connections.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        gc.enable()


def _run_alone(content: str, audit_log: pathlib.Path | None) -> None:
    with contextlib.ExitStack() as stack:
        with _starting():
            load_openssl()
            import trio

            from tng.cli.audit_records import audited
            from tng.clock import SystemClock
            from tng.config.loader import prepare_config
            from tng.gateway.app import Gateway

            config, clock = prepare_config(content), SystemClock()
            trust = stack.enter_context(audited(audit_log, clock, "launch"))
            gateway = Gateway(config, clock, trust)
        trio.run(gateway.run)


def _run_supervisor(arguments: argparse.Namespace) -> None:
    with _starting():
        import trio

        from tng.cli.audit_records import audited
        from tng.clock import SystemClock
        from tng.gateway.workers.process import starter
        from tng.gateway.workers.supervisor import Supervisor

    start = starter(worker_command(arguments))
    content = read_config(arguments)
    clock = SystemClock()
    # The supervisor judges for all workers, so it alone writes.
    with audited(arguments.audit_log, clock, "launch") as trust:
        trio.run(Supervisor(content, arguments.workers, start, clock, trust).run)


def _run_worker(descriptor: int) -> None:
    with _starting():
        load_openssl()
        from tng.clock import SystemClock
        from tng.gateway.workers.worker import run_worker

    run_worker(descriptor, SystemClock())


def _first(group: BaseExceptionGroup[TngError]) -> TngError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
