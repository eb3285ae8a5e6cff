"""The benchmarks run; and a table says "met" only where that is so."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

needs_linux_and_compiler = pytest.mark.skipif(
    not pathlib.Path("/proc/self/stat").exists() or shutil.which("cc") is None,
    reason="needs Linux's /proc and a C compiler",
)


@pytest.fixture(autouse=True)
def _bench_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def bench(*words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)


def make_line(ours, reference, *, target, aim=None, more=False, is_absolute=False, failed=""):
    from bench.session import Measured
    from bench.systems import System
    from bench.table import make_lines
    from bench.workloads import Kind, Quantity, Row, Workload

    row = Row(
        Quantity("key", "label", 1, more), System.OURS, System.REFERENCE, target, aim, is_absolute
    )
    workload = Workload("name", "title", Kind.CHURN, 1, (row,))
    measured = {System.OURS: Measured([{"key": value} for value in ours])}
    if reference is not None:
        failures = [failed] if failed else []
        measured[System.REFERENCE] = Measured([{"key": value} for value in reference], failures)
    (line,) = make_lines([workload], {"name": measured})
    return line


@pytest.mark.slow
@needs_linux_and_compiler
def test_a_short_run_measures_every_transport(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "samples.json"
    words = ("--workload", "down1,churn16,ohttp1", "--seconds", "0.2")
    ended = bench("--without-reference", "--repeat", "1", *words, "--json", str(path))
    assert ended.returncode == 0, ended.stderr
    assert "new connections, 16 clients" in ended.stdout
    assert "% of processor time" in ended.stdout
    measured = json.loads(path.read_text())["samples"]["churn16"]
    assert set(measured) == {"ours", "ours raw"}
    for system in measured.values():
        assert system["failures"] == []
        assert system["samples"][0]["per_s"] > 0
        assert system["samples"][0]["cpu_us"] > 0
    (ohttp,) = json.loads(path.read_text())["samples"]["ohttp1"]["ours OHTTP"]["samples"]
    assert ohttp["per_s"] > 0
    assert ohttp["cpu_us"] == pytest.approx(ohttp["ingress_cpu_us"] + ohttp["egress_cpu_us"])


@pytest.mark.slow
@needs_linux_and_compiler
def test_an_attested_run_is_judged_and_measured() -> None:
    words = ("--workload", "attested16", "--seconds", "0.2", "--markdown")
    ended = bench("--without-reference", "--repeat", "1", *words)
    assert ended.returncode == 0, ended.stderr
    assert "| new connections, attested, 16 clients | requests/s |" in ended.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workload", "churn2"), "churn2"),
        (("--seconds", "0"), "0 to 600"),
        (("--repeat", "0"), "1 to 100"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(words, said) -> None:
    ended = bench("--without-reference", *words)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_a_missing_reference_is_told_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench.__main__ as command

    monkeypatch.setattr(command, "REFERENCE", ROOT / "nowhere/tng")
    assert command.main(["--quick"]) == 2
    said = capsys.readouterr().err
    assert "tools/reference" in said
    assert "--without-reference" in said


def test_the_median_decides() -> None:
    line = make_line([1, 9, 2], [4, 1, 100], target=0.5, aim=0.4)
    assert (line.ours, line.reference, line.ratio) == (2, 4, 0.5)
    assert line.result == "met"


@pytest.mark.parametrize(
    ("ours", "more", "result"),
    [
        *((39, False, "aim met"), (49, False, "met"), (51, False, "MISSED")),
        *((39, True, "MISSED"), (49, True, "met"), (91, True, "aim met")),
    ],
)
def test_a_ratio_on_the_wrong_side_of_the_target_misses_it(ours, more, result) -> None:
    target, aim = (0.4, 0.9) if more else (0.5, 0.4)
    line = make_line([ours], [100], target=target, aim=aim, more=more)
    assert line.result == result


def test_an_absolute_target_needs_no_reference() -> None:
    assert make_line([0.5], None, target=0.6, is_absolute=True).result == "met"
    assert make_line([0.7], None, target=0.6, is_absolute=True).result == "MISSED"


def test_without_a_reference_a_ratio_is_neither_met_nor_missed() -> None:
    line = make_line([1], None, target=2.0)
    assert (line.ratio, line.result) == (None, "")


def test_a_failed_run_meets_nothing() -> None:
    line = make_line([1], [2], target=2.0, failed="stalled: 200 of 500\nmore")
    assert (line.reference, line.ratio) == (None, None)
    assert line.result == "reference failed: stalled: 200 of 500"


def test_work_of_ended_children_is_our_own_not_a_neighbour_s() -> None:
    from bench.neighbours import _own_time

    before = _own_time()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert _own_time() - before > 0.02


def test_every_row_compares_ours_with_the_reference() -> None:
    from bench.workloads import WORKLOADS

    for name, workload in WORKLOADS.items():
        assert name == workload.name
        for row in workload.rows:
            assert not row.ours.is_reference
            assert row.reference.is_reference
            if row.target is not None and row.aim is not None:
                assert (row.aim >= row.target) == row.quantity.more_is_better


def test_the_document_explains_every_workload_and_quantity() -> None:
    from bench.workloads import WORKLOADS

    text = (ROOT / "docs/BENCHMARKS.md").read_text(encoding="utf-8")
    for workload in WORKLOADS.values():
        assert f"`{workload.name}`" in text
        for row in workload.rows:
            assert f"| {row.quantity.label} |" in text


def test_the_command_can_be_run_and_stops_at_the_first_error() -> None:
    tool = ROOT / "tools/bench"
    assert os.access(tool, os.X_OK)
    assert "set -euo pipefail" in tool.read_text(encoding="utf-8")
