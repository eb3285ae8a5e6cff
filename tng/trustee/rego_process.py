"""A process beside the service in which Rego is evaluated, within a time.

A `RegoEngine` whose every question is answered by another process: the engine keeps the
interpreter to itself while it evaluates, so that in this process one slow policy would hold up
every client.  The process starts with the first question, is killed when one takes longer than
`LIMIT_S`, and starts again with the next.

Invariants: a question has one answer or a `RegoError`, within twice its time, waiting for others
included; nothing of one question is left for the next, because every evaluation has an engine of
its own; one question at a time.

    with RegoProcess() as process:
        policy = make_policy("mine", text, process.engine)
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

from tng.attest.policy.rego import RegoEngine, RegoError, load_engine
from tng.attest.strict_json import Json, parse_object

if TYPE_CHECKING:
    from typing import IO

LIMIT_S: Final = 5.0
"""Seconds for one question, the start of the process included (a tenth of one): shipped policies
take milliseconds, and a request has thirty seconds for everything."""

_MAX_ANSWER: Final = 1024 * 1024  # octets; a vector has eight numbers
_CODE: Final = """\
import sys
sys.path[:] = sys.argv[1:]
from tng.trustee.rego_worker import main
main()
"""


class RegoProcess:
    """Evaluates Rego elsewhere.  Calls block, and may come from any thread.

    Close it with `close()`, or leave its `with` block.

    Args:
        limit_s: seconds for one question.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def engine(self) -> RegoEngine:
        """This object, once it is known that there is an engine to start.

        Raises:
            ConfigError: there is none.
        """
        load_engine()
        return self

    def parse(self, text: str) -> None:
        """See `RegoEngine`."""
        self._ask({"text": text})

    def query(
        self,
        text: str,
        rules: Sequence[str],
        claims: Mapping[str, object],
        data: Mapping[str, object],
    ) -> dict[str, Json]:
        """See `RegoEngine`."""
        answer = self._ask({"text": text, "rules": list(rules), "claims": claims, "data": data})
        answers = answer.get("answers")
        assert isinstance(answers, dict)  # our own other half wrote it
        return answers

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, question: dict[str, object]) -> dict[str, Json]:
        line = json.dumps(question).encode() + b"\n"
        if not self._lock.acquire(timeout=self._limit_s):
            raise RegoError(f"not begun within {self._limit_s:g} s: other policies take too long")
        try:
            answer = self._exchange(line)
        except BaseException:
            # What it would still say belongs to no later question.
            self._end()
            raise
        finally:
            self._lock.release()
        if "error" in answer:
            raise RegoError(str(answer["error"]))
        return answer

    def _exchange(self, line: bytes) -> dict[str, Json]:
        process = self._running()
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._limit_s, give_up)
        timer.start()
        try:
            answer = _read_answer(process, line)
        except (OSError, ValueError) as exc:
            if not late.is_set():
                raise RegoError("the engine ended without an answer: memory is limited") from exc
            raise RegoError(f"not evaluated within {self._limit_s:g} s") from exc
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():  # in the same moment: the process is gone
            raise RegoError(f"not evaluated within {self._limit_s:g} s")
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own words
                [sys.executable, "-P", "-c", _CODE, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the service to handle
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            _close(pipe)


def _read_answer(process: subprocess.Popen[bytes], line: bytes) -> dict[str, Json]:
    """Ask and wait; OSError or ValueError when the process ends, or says too much."""
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    process.stdin.write(line)
    process.stdin.flush()
    return parse_object(process.stdout.readline(_MAX_ANSWER))


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None  # both are pipes
    with contextlib.suppress(OSError):  # of a question that was not taken any more
        pipe.close()
