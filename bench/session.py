"""A whole run: every workload, its systems interleaved, as often as asked.

In: workloads and settings.  Out: samples per workload and system, or why there are none.  The
order of the systems is turned round each time, so that what drifts on the machine hits both.
Invariant: each sample is of a pair that nothing else uses at that moment.
"""

from __future__ import annotations

import compileall
import pathlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load import LoadError, build
from bench.measure import Sample, measure
from bench.processes import Stage, StartFailed
from bench.systems import ROOT, Judges, Pair, System, start_backends, start_judges, start_pair
from bench.workloads import Kind, Workload

_FRESH: Final = frozenset({Kind.IDLE, Kind.START})
"""Kinds that need a pair that has served nobody yet."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run.

    Attributes:
        seconds: of one measurement.
        repeat: measurements of each system.
        with_reference: whether the reference takes part.
    """

    seconds: float
    repeat: int
    with_reference: bool


@dataclass(slots=True)
class Measured:
    """What one system gave in one workload.

    Attributes:
        samples: one per run that went well.
        failures: why others did not.
    """

    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def median(self, key: str) -> float | None:
        """Median over the samples; None where nothing was measured or some run failed."""
        values = [sample[key] for sample in self.samples if key in sample]
        return statistics.median(values) if values and not self.failures else None


Results = dict[str, dict[System, Measured]]
"""Workload's name, then system, to what was measured."""


class Session:
    """Starts what is needed, once, and measures.

    Args:
        stage: owns the processes.
        settings: how to run.
        report: is told what is being done, a line each.
    """

    def __init__(self, stage: Stage, settings: Settings, report: Callable[[str], None]) -> None:
        self._stage = stage
        self._settings = settings
        self._report = report
        self._binary: pathlib.Path = build()
        compileall.compile_dir(ROOT / "tng", quiet=1)  # as an installation is, which users have
        self._backends = start_backends(stage)
        self._judges: Judges | None = None
        self._pairs: dict[System, Pair] = {}

    def run(self, workloads: Sequence[Workload]) -> Results:
        """Measure all workloads, one after the other."""
        return {workload.name: self._run_one(workload) for workload in workloads}

    def _run_one(self, workload: Workload) -> dict[System, Measured]:
        systems = [
            system
            for system in workload.systems()
            if self._settings.with_reference or not system.is_reference
        ]
        measured = {system: Measured() for system in systems}
        for turn in range(self._settings.repeat):
            for system in systems if turn % 2 == 0 else reversed(systems):
                self._measure(workload, system, measured[system], turn)
        return measured

    def _measure(self, workload: Workload, system: System, into: Measured, turn: int) -> None:
        if into.failures:
            return  # what failed once has failed; a stall takes a minute each time
        what = f"{workload.name} {system.value} {turn + 1}/{self._settings.repeat}"
        try:
            sample = measure(
                self._binary,
                workload,
                self._settings.seconds,
                lambda: self._pair(system, fresh=workload.kind in _FRESH),
            )
        except (LoadError, StartFailed) as exc:
            into.failures.append(str(exc))
            self._report(f"{what}: FAILED: {exc}")
            return
        into.samples.append(sample)
        self._report(f"{what}: " + " ".join(f"{key}={sample[key]:.4g}" for key in sample))

    def _pair(self, system: System, *, fresh: bool) -> Pair:
        if system.is_attested and self._judges is None:
            self._judges = start_judges(self._stage)
        if fresh:
            return start_pair(self._stage, system, self._backends, self._judges)
        if system not in self._pairs:
            self._pairs[system] = start_pair(self._stage, system, self._backends, self._judges)
        return self._pairs[system]
