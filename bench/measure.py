"""One run of one workload through one pair.

In: a workload, a running pair (or how to start a fresh one), seconds.  Out: a sample, quantity's
key to number.  CPU time is that of ingress and egress together, taken around the measurement
alone.  Memory of idle connections is what a pair grows by that has served others before.
Invariant: a sample is whole or there is none: a run with an error raises `LoadError`.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Final

from bench.load import Counts, LoadError, run, run_held
from bench.systems import Pair
from bench.workloads import Kind, Workload

Sample = dict[str, float]
"""Quantity's key to number."""

TOKENS_PER_S: Final = 50
"""Tokens that each stream should get; as in `load.c`."""

_IDLE_S: Final = 1.0
"""Seconds over which idle tunnels are watched."""
_WARM: Final = 32
"""Connections that have come and gone when idle ones begin to count: the first few have code
mapped, tunnels made and pools filled, which the thousandth does not do again."""
_SETTLE_S: Final = 1.0
"""Seconds from their end until all of them are gone from both sides."""
_SIDES: Final = ("egress_cpu_us", "ingress_cpu_us")
"""Quantities of one side each, in the order of a pair's processes."""
_MAX_MISSING: Final = 0.5
"""Share of errors among requests from which on a rate means nothing, per cent."""


def measure(
    binary: pathlib.Path, workload: Workload, seconds: float, make_pair: Callable[[], Pair]
) -> Sample:
    """Run `workload` once.

    Args:
        binary: the load generator.
        workload: what to run.
        seconds: how long to measure.
        make_pair: gives the pair; called once.  Kinds that measure memory or starting stop it.

    Raises:
        LoadError: connections failed, or the run as a whole did.
    """
    pair = make_pair()
    match workload.kind:
        case Kind.DOWNLOAD | Kind.UPLOAD:
            return _bulk(binary, workload, seconds, pair)
        case Kind.CHURN | Kind.KEEP_ALIVE | Kind.FIRST:
            return _requests(binary, workload, seconds, pair)
        case Kind.SSE:
            return _sse(binary, workload, seconds, pair)
        case Kind.IDLE:
            return _idle(binary, workload, pair)
        case Kind.START:
            pair.stop()
            return {"start_s": max(pair.start_s)} | {"memory_mb": pair.base_memory / 1e6}


def _bulk(binary: pathlib.Path, workload: Workload, seconds: float, pair: Pair) -> Sample:
    up = ["-u"] if workload.kind is Kind.UPLOAD else []
    words = ["bulk", *pair.words("bulk"), "-n", str(workload.count), *up]
    before = pair.cpu_s()
    counts = _sound(run(binary, words, seconds), 0)
    octets = counts["octets"]
    return {
        "gb_per_s": octets / counts["wall_s"] / 1e9,
        "cpu_s_per_gb": (pair.cpu_s() - before) / octets * 1e9,
        "memory_mb": pair.memory() / 1e6,
    }


def _requests(binary: pathlib.Path, workload: Workload, seconds: float, pair: Pair) -> Sample:
    backend = "sse" if workload.kind is Kind.FIRST else "http"
    words = [workload.kind.value, *pair.words(backend), "-n", str(workload.count)]
    run(binary, words, min(seconds, 0.5))  # first verdicts, tunnels and pages are not the matter
    before = [process.cpu_s() for process in pair.processes]
    counts = run(binary, words, seconds)
    after = [process.cpu_s() for process in pair.processes]
    _sound(counts, counts["count"] * _MAX_MISSING / 100)
    used = [(b - a) / counts["count"] * 1e6 for a, b in zip(before, after, strict=True)]
    is_pair = len(used) == len(_SIDES)  # neither the bare forwarder nor no gateway has sides
    return {
        "per_s": counts["count"] / counts["wall_s"],
        "cpu_us": sum(used),
        **(dict(zip(_SIDES, used, strict=True)) if is_pair else {}),
        "p50_us": counts["p50_us"],
        "p99_us": counts["p99_us"],
        "memory_mb": pair.memory() / 1e6,
    }


def _sse(binary: pathlib.Path, workload: Workload, seconds: float, pair: Pair) -> Sample:
    before: list[float] = []
    words = ["sse", *pair.words("sse"), "-n", str(workload.count)]
    counts = run_held(binary, words, seconds, lambda: before.append(pair.cpu_s()))
    if not before:
        established = f"{counts['established']:.0f} of {workload.count}"
        raise LoadError(f"stalled: {established} streams established, then nothing moved")
    _sound(counts, 0)
    cpu_s, memory = pair.cpu_s() - before[0], pair.memory()
    expected = workload.count * TOKENS_PER_S * seconds
    return {
        "p50_us": counts["p50_us"],
        "p99_us": counts["p99_us"],
        "cpu_ms_per_1000": cpu_s / max(counts["count"], 1) * 1e6,
        "delivered": (counts["count"] - counts["gaps"]) / expected * 100,
        "memory_mb": memory / 1e6,
    }


def _idle(binary: pathlib.Path, workload: Workload, pair: Pair) -> Sample:
    sample: Sample = {}
    words = ["idle", *pair.words("http"), "-n"]

    def watch() -> None:
        memory, before, began = pair.memory(), pair.cpu_s(), time.monotonic()
        time.sleep(_IDLE_S)
        sample["idle_cpu"] = (pair.cpu_s() - before) / (time.monotonic() - began) * 100
        sample["memory_mb"] = memory / 1e6
        sample["kb_per_tunnel"] = (memory - base) / workload.count / 1e3

    try:
        _sound(run(binary, [*words, str(_WARM)], 0), 0)
        time.sleep(_SETTLE_S)
        base = pair.memory()
        counts = run_held(binary, [*words, str(workload.count)], _IDLE_S, watch)
    finally:
        pair.stop()
    if not sample:
        established = f"{counts['established']:.0f} of {workload.count}"
        raise LoadError(f"stalled: {established} tunnels established, then nothing moved")
    _sound(counts, 0)
    return sample


def _sound(counts: Counts, allowed: float) -> Counts:
    """The counts of a run whose connections did not fail.

    Raises:
        LoadError: more than `allowed` did.
    """
    if counts["errors"] > allowed:
        raise LoadError(f"{counts['errors']:.0f} connections failed")
    if not counts.get("count", counts.get("octets", 1)) and "established" not in counts:
        raise LoadError("nothing was moved")
    return counts
