"""The command behind tools/bench.

In: arguments.  Out: the table on standard output, progress on standard error.  Exit status 0 when
everything of ours was measured, whether or not targets were met; 1 when it could not be; 2 for
wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.backends.openssl.backend import backend

from bench.load import LoadError
from bench.neighbours import Neighbours
from bench.processes import Stage, StartFailed
from bench.session import Results, Session, Settings
from bench.systems import REFERENCE, ROOT
from bench.table import dump_json, dump_markdown, dump_text, make_lines
from bench.workloads import GROUPS, WORKLOADS, Workload
from tng import __version__
from tng.clock import SystemClock

_SECONDS: Final = 3.0
_REPEAT: Final = 3
_QUICK_SECONDS: Final = 1.0
_QUICK_REPEAT: Final = 1


def main(words: Sequence[str]) -> int:
    """Measure and print."""
    arguments = _parser().parse_args(words)
    if not arguments.without_reference and not REFERENCE.exists():
        _tell(
            f"expected the reference at {REFERENCE.relative_to(ROOT)}, found nothing; install it"
            " with tools/reference, or measure ours alone with --without-reference"
        )
        return 2
    workloads = _chosen(arguments)
    settings = Settings(
        arguments.seconds or (_QUICK_SECONDS if arguments.quick else _SECONDS),
        arguments.repeat or (_QUICK_REPEAT if arguments.quick else _REPEAT),
        not arguments.without_reference,
    )
    neighbours = Neighbours()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tng-bench-") as folder,
            Stage(pathlib.Path(folder)) as stage,
        ):
            results = Session(stage, settings, _tell).run(workloads)
    except (LoadError, StartFailed) as exc:
        _tell(str(exc))
        return 1
    facts = {**_facts(settings), "other work on the machine": neighbours.describe()}
    _print(arguments, workloads, facts, results)
    return 1 if _is_ours_broken(results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/bench", description="Measure this gateway and the reference side by side."
    )
    parser.add_argument("group", nargs="?", choices=GROUPS, help="only the workloads of this group")
    parser.add_argument("--quick", action="store_true", help="one second, once, fewer workloads")
    parser.add_argument(
        "--workload",
        metavar="NAME,...",
        type=_names,
        help=f"only these; of {', '.join(WORKLOADS)}",
    )
    parser.add_argument(
        "--seconds", metavar="S", type=_positive, help=f"of each measurement (default {_SECONDS:g})"
    )
    parser.add_argument(
        "--repeat", metavar="N", type=_count, help=f"measurements of each (default {_REPEAT})"
    )
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="also write every sample")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--without-reference", action="store_true", help="measure ours alone")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        known = ", ".join(WORKLOADS)
        raise argparse.ArgumentTypeError(f"no workload {', '.join(unknown)}; there are {known}")
    return names


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError(f"expected 0 to 600 seconds, got {text}")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, got {text}")
    return count


def _chosen(arguments: argparse.Namespace) -> list[Workload]:
    if arguments.workload:
        return [WORKLOADS[name] for name in arguments.workload]
    names = GROUPS[arguments.group] if arguments.group else WORKLOADS
    asked = [WORKLOADS[name] for name in names]
    return [each for each in asked if each.is_quick or not arguments.quick]


def _print(
    arguments: argparse.Namespace,
    workloads: Sequence[Workload],
    facts: dict[str, str],
    results: Results,
) -> None:
    lines = make_lines(workloads, results)
    if arguments.json is not None:
        text = json.dumps(dump_json(lines, facts, results), indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.markdown:
        text = dump_markdown(lines, facts)
    else:
        text = "\n".join(f"{name}: {fact}" for name, fact in facts.items())
        text += "\n\n" + dump_text(lines)
    sys.stdout.write(text + "\n")


def _facts(settings: Settings) -> dict[str, str]:
    """What a reader has to know to judge the numbers."""
    commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    ours = (
        f"tng-gateway {__version__} at {commit}",
        f"Python {platform.python_version()}",
        backend.openssl_version_text(),
    )
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(SystemClock().now())),
        "ours": ", ".join(ours),
    }
    if settings.with_reference:
        facts["reference"] = _output(str(REFERENCE), "--version")
    facts["machine"] = f"{_processor()}, Linux {platform.release()}"
    facts["each value"] = f"median of {settings.repeat}, measured {settings.seconds:g} s"
    return facts


def _output(*command: str) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return "(unknown)"
    return ended.stdout.strip().splitlines()[0] if ended.stdout.strip() else "(unknown)"


def _processor() -> str:
    models = []
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            models.append(value.strip())
    return f"{len(models)} x {models[0]}" if models else platform.machine()


def _is_ours_broken(results: Results) -> bool:
    return any(
        measured.failures
        for systems in results.values()
        for system, measured in systems.items()
        if not system.is_reference
    )


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
