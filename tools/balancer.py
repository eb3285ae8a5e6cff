"""Many requests through nginx and two egresses that share keys, and what must hold afterwards.

In: how many requests, and how often an egress is killed.  Out: figures for each source of keys, and
exit status 1 unless no request was lost but those under way at a kill, none that may not be
repeated was, and no octet of a request or an answer could be read on the way.

    python tools/balancer.py --requests 10000 --kills 4

Invariant: it uses loopback only, and stops what it has started.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
from typing import Final

import trio

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/lib"))

from stage.balanced_pair import Report, run_balanced
from stage.balancer import nginx
from stage.capture import may_capture

MAX_TOLD: Final = 10
"""Faults that are told; they are counted all the same."""


def main() -> int:
    """Run both, print, and say whether all held."""
    parser = argparse.ArgumentParser(prog="tools/balancer", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, help="of each run (default 10000)")
    parser.add_argument("--kills", type=int, default=4, help="of each run (default 4)")
    arguments = parser.parse_args()
    if nginx() is None or not may_capture():
        sys.stderr.write("expected nginx and the right to open packet sockets (CAP_NET_RAW)\n")
        return 2
    held = True
    for source in ("file", "peer_shared"):
        # nginx's workers run as another user, who has to reach the files.
        with tempfile.TemporaryDirectory(prefix="tng-balancer-") as folder:
            report = trio.run(_run, pathlib.Path(folder), source, arguments)
        sys.stdout.write(f"keys from {source}\n{report.describe()}\n")
        held = _tell_faults(report) and held
    return 0 if held else 1


async def _run(folder: pathlib.Path, source: str, arguments: argparse.Namespace) -> Report:
    return await run_balanced(
        folder,
        is_shared=source == "peer_shared",
        requests=arguments.requests,
        kills=arguments.kills,
    )


def _tell_faults(report: Report) -> bool:
    """Whether all held; says what did not."""
    faults = [f"lost: {words}" for words in report.lost()]
    faults += [f"served more than once: request {number}" for number in report.repeated()]
    faults += report.plaintext()
    if report.capture.dropped:
        faults.append(f"the search missed {report.capture.dropped} packets")
    sys.stdout.write("".join(f"  {fault}\n" for fault in faults[:MAX_TOLD]))
    return not faults


if __name__ == "__main__":
    sys.exit(main())
