"""`tng audit verify FILE...`: find the first line of an audit log that is not what was written.

Files of one chain, the oldest first, in; a line of result, or a JSON object, out.  Exit status 0
if every line holds, 1 if one does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import TYPE_CHECKING, BinaryIO

from tng.cli.commands import COMMANDS
from tng.errors import ConfigError, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tng.observe.audit_chain import Examined

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

_EPILOG = """\
The chain proves that lines belong together, not who wrote the last one: keep the digest that is
printed somewhere else, and give it to --head the next time.

exit status: 0 every line holds, 1 one does not, 2 wrong usage
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "audit",
        help=COMMANDS["audit"],
        description="Tools for the log that --audit-log writes.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", required=True)
    verify = actions.add_parser(
        "verify",
        help="find the first altered, missing or moved line",
        description="Check that every line is what was written, and follows the one before it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "files", metavar="FILE", nargs="+", help="the log; rotated files first, the oldest of all"
    )
    verify.add_argument(
        "--head", metavar="HEX", help="digest of an earlier run, which a line must have"
    )
    verify.add_argument("--json", action="store_true", help="print a JSON object")
    verify.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check the log; 0 if it holds.

    Raises:
        ConfigError: --head is no digest.
        StartError: a file cannot be read.
    """
    from tng.observe.audit_chain import examine

    head = arguments.head
    if head is not None and (len(head) != 64 or set(head.lower()) - set("0123456789abcdef")):
        raise ConfigError([f"--head: expected 64 hexadecimal digits, got {head!r:.80}"])
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(_open(name)) for name in arguments.files]
        found = examine(
            (_lines(stream) for stream in streams), None if head is None else head.lower()
        )
    if arguments.json:
        print(json.dumps(_as_json(found, arguments.files), indent=2))
    else:
        _print(found, arguments.files)
    return 0 if found.problem is None else 1


def _open(name: str) -> BinaryIO:
    try:
        return open(name, "rb")  # noqa: PTH123 - the caller's stack closes it
    except OSError as exc:
        raise StartError(f"audit log {name!r} cannot be read: {exc.strerror}") from exc


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    from tng.observe.audit_chain import MAX_LINE

    return iter(lambda: stream.readline(MAX_LINE + 1), b"")


def _print(found: Examined, files: list[str]) -> None:
    for remark in found.remarks:
        print(f"NOTE {remark}")
    if found.problem is not None:
        problem = found.problem
        where = f"{files[problem.file]}: line {problem.line}" if problem.line else files[-1]
        print(f"FAIL {where}: {problem.kind}: {problem.detail}")
    kept = f"{found.records} records" + (
        f", {found.first} to {found.last}" if found.records else ""
    )
    print(f"{'PASS' if found.problem is None else 'up to there:'} {kept}, digest {found.head}")


def _as_json(found: Examined, files: list[str]) -> dict[str, object]:
    problem = found.problem
    return {
        "intact": problem is None,
        "records": found.records,
        "first": found.first,
        "last": found.last,
        "head": found.head,
        "remarks": found.remarks,
        "problem": None
        if problem is None
        else {
            "file": files[problem.file],
            "line": problem.line,
            "kind": problem.kind,
            "detail": problem.detail,
        },
    }
