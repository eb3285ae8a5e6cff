"""Every parser of what peers send, under many spoiled messages.

In: how many messages, and from which seed.  Out: a line for each parser, and exit status 1 if one
of them raised what is no `TngError`, took too long, read a message differently in pieces, or
believed what nobody signed; the smallest such message is kept in a file.  Messages of third
parties are taken from a folder `shared` beside the checkout if there is one.

    python tools/fuzz.py --examples 20000 --seed 1 --only token

Invariant: the same seed makes the same edits, though to messages with fresh keys; no network is
used.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/lib"))

from fuzzing import trust, wire
from fuzzing.mutation import messages
from fuzzing.target import Finding, Target, attempt

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclass(slots=True)
class Tally:
    """What became of the messages for one parser.

    Attributes:
        read: how many were read.
        refused: how many were refused.
        slowest_s: the most seconds of processor time that one of them took.
        last: the message that was tried last; after a finding, the smallest that shows it.
    """

    read: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    last: bytes = field(default=b"", repr=False)


def fuzz(target: Target, examples: int, seed: int) -> Tally:
    """Try one parser.

    Args:
        target: the parser.
        examples: how many messages.
        seed: where they come from.

    Raises:
        Finding: a message that it did not deal with as it must; `last` is not known then.
    """
    tally = Tally()

    def one(message: bytes) -> None:
        tally.last = message
        outcome = attempt(target, message)
        tally.refused += outcome.is_refused
        tally.read += not outcome.is_refused
        tally.slowest_s = max(tally.slowest_s, outcome.cpu_s)

    run = settings(
        max_examples=examples,
        database=None,
        report_multiple_bugs=False,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )(hypothesis.seed(seed)(given(messages(target.good))(one)))
    for message in target.good:
        attempt(target, message)
    try:
        run()
    except Finding as exc:
        raise Finding(f"{exc}\n  message in {_keep(tally.last)}") from exc
    return tally


def _keep(message: bytes) -> str:
    """The file that holds the message now."""
    descriptor, path = tempfile.mkstemp(prefix="fuzz-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(message)
    return path


def main(arguments: list[str]) -> int:
    """Try all parsers; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=20_000, help="messages for each parser")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="parsers whose name fits this expression")
    options = parser.parse_args(arguments)
    shared = ROOT.parent / "shared"
    chosen = [
        target
        for target in trust.targets(shared if shared.is_dir() else None) + wire.targets()
        if re.search(options.only, target.name)
    ]
    # A certificate with an odd serial number makes the library warn, thousands of times here.
    warnings.simplefilter("ignore")
    findings = 0
    began = time.monotonic()
    for target in chosen:
        start = time.monotonic()
        try:
            tally = fuzz(target, options.examples, options.seed)
        except Finding as exc:
            findings += 1
            _say(f"{target.name:34} FINDING {exc}")
            continue
        _say(
            f"{target.name:34} read {tally.read:6} refused {tally.refused:6} "
            f"slowest {tally.slowest_s * 1000:6.1f} ms  in {time.monotonic() - start:5.0f} s"
        )
    _say(
        f"seed {options.seed}, {options.examples} messages for each of {len(chosen)} parsers, "
        f"{time.monotonic() - began:.0f} s, {findings} findings"
    )
    return 1 if findings else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
