"""The inside of the process that evaluates Rego: questions on standard input, answers on output.

    {"text": TEXT}                                          ->  {}
    {"text": TEXT, "rules": [...], "claims": {}, "data": {}} ->  {"answers": {RULE: VALUE}}
    what cannot be parsed or evaluated                       ->  {"error": WORDS}

One JSON object per line.  The other side is `rego_process`; there is no other way in.

Invariant: the process never has more than `MAX_MEMORY`, and ends when its input does.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Final

from tng.attest.policy.rego import RegoEngine, RegoError, load_engine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

MAX_MEMORY: Final = 2 * 1024**3
"""Octets of address space: claims of 16 MiB become some hundred of them in the engine."""


def main() -> None:
    """Answer until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    # A dump of this process would hold claims and policies.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer, load_engine())


def serve(questions: Iterable[bytes], answers: BinaryIO, engine: RegoEngine) -> None:
    """Answer each question in its turn.

    Args:
        questions: one JSON object each.
        answers: flushed after each one.
        engine: evaluates.
    """
    for line in questions:
        answers.write(json.dumps(_answer(line, engine)).encode() + b"\n")
        answers.flush()


def _answer(line: bytes, engine: RegoEngine) -> dict[str, object]:
    question = json.loads(line)  # written by our own other half
    try:
        if "rules" not in question:
            engine.parse(question["text"])
            return {}
        found = engine.query(
            question["text"], question["rules"], question["claims"], question["data"]
        )
    except RegoError as exc:
        return {"error": str(exc)}
    return {"answers": found}
