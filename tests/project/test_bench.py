"""The benchmarks run; and a table says "met" only where that is so."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bench.systems import Pair

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


@contextlib.contextmanager
def bare_forwarder(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, Pair]]:
    """The load generator, and a forwarder in front of its backends."""
    from bench.load import build
    from bench.processes import Stage
    from bench.systems import System, start_backends, start_pair

    with Stage(folder) as stage:
        yield build(), start_pair(stage, System.FORWARDER, start_backends(stage), None)


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
    assert set(measured) == {"ours", "ours raw", "bare forwarder"}
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


@needs_linux_and_compiler
@pytest.mark.parametrize(
    ("backend", "words"),
    [
        *(("http", ["churn", "-n", "4"]), ("http", ["keepalive", "-n", "4"])),
        *(("bulk", ["bulk", "-n", "2"]), ("bulk", ["bulk", "-n", "2", "-u"])),
    ],
)
def test_a_bare_forwarder_forwards_both_ways(tmp_path: pathlib.Path, backend, words) -> None:
    from bench.load import run

    with bare_forwarder(tmp_path) as (binary, pair):
        words = [*words, *pair.words(backend)]
        counts = run(binary, words, 0.1)
        assert counts["errors"] == 0
        assert counts.get("count", counts.get("octets")) > 0
        pair.stop()
        assert run(binary, words, 0.1)["errors"] > 0


@needs_linux_and_compiler
def test_a_bare_forwarder_fails_a_connection_to_a_port_on_which_nobody_listens(
    tmp_path: pathlib.Path,
) -> None:
    from bench.load import run
    from bench.processes import choose_ports

    (closed,) = choose_ports(1)
    with bare_forwarder(tmp_path) as (binary, pair):
        counts = run(binary, ["churn", "-p", str(closed), "-x", str(pair.proxy)], 0.1)
        assert counts["errors"] > 0
        assert counts["count"] == 0
        again = run(binary, ["churn", *pair.words("http")], 0.1)
        assert (again["errors"], again["count"] > 0) == (0, True)


@needs_linux_and_compiler
@pytest.mark.parametrize(
    "request_line",
    [
        *("CONNECT 127.0.0.2:{port} HTTP/1.1", "CONNECT localhost:{port} HTTP/1.1"),
        *("CONNECT 127.0.0.1:{port}0000 HTTP/1.1", "CONNECT 127.0.0.1:0 HTTP/1.1"),
        *("CONNECT 127.0.0.1:{port}", "GET http://127.0.0.1:{port}/ HTTP/1.1"),
        "CONNECT 127.0.0.1:{port} HTTP/1.1" + "\r\nX: " + "x" * 256,
    ],
)
def test_a_bare_forwarder_answers_nothing_but_a_short_connect_to_loopback(
    tmp_path: pathlib.Path, request_line
) -> None:
    def answer(line: str) -> bytes:
        with socket.create_connection(("127.0.0.1", pair.proxy), timeout=5) as client:
            client.sendall((line.format(port=pair.ports["http"]) + "\r\n\r\n").encode())
            try:
                return client.recv(17)
            except ConnectionResetError:
                return b""

    with bare_forwarder(tmp_path) as (_, pair):
        assert answer(request_line) == b""
        assert answer("CONNECT 127.0.0.1:{port} HTTP/1.1") == b"HTTP/1.1 200 OK\r\n"


@needs_linux_and_compiler
def test_a_bare_forwarder_forwards_what_came_with_the_request(tmp_path: pathlib.Path) -> None:
    with bare_forwarder(tmp_path) as (_, pair):
        request = f"CONNECT 127.0.0.1:{pair.ports['http']} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        with socket.create_connection(("127.0.0.1", pair.proxy), timeout=5) as client:
            client.sendall(request.encode())
            answer = b""
            while not answer.endswith(b"x" * 128):
                answer += client.recv(4096)
        assert answer.count(b"HTTP/1.1 200 OK") == 2


class Growing:
    """Stands for a process that takes 4 MB for its first connections, then 4 KB for each."""

    def __init__(self, runs: pathlib.Path) -> None:
        self._runs = runs

    def memory(self) -> int:
        return (10_000_000, 14_000_000, 18_000_000)[len(self._runs.read_text().splitlines())]

    def cpu_s(self) -> float:
        return 0.0

    def stop(self) -> None:
        pass


def test_memory_of_idle_connections_is_what_is_added_when_others_have_come_and_gone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import measure
    from bench.systems import Pair, System
    from bench.workloads import Kind, Workload

    monkeypatch.setattr(measure, "_SETTLE_S", 0)
    monkeypatch.setattr(measure, "_IDLE_S", 0)
    runs = tmp_path / "runs"
    runs.touch()
    load = tmp_path / "load"
    load.write_text(
        f"#!/bin/sh\necho \"$@\" >> '{runs}'\necho ready\nread end\n"
        """echo '{"established": 1, "errors": 0}'\n"""
    )
    load.chmod(0o700)
    pair = Pair(System.DIRECT, 0, {"http": 80}, (Growing(runs),), (), 10_000_000)
    workload = Workload("name", "title", Kind.IDLE, 1000, ())
    sample = measure.measure(load, workload, 1, lambda: pair)
    assert (sample["kb_per_tunnel"], sample["memory_mb"]) == (4, 18)
    warm, measured = runs.read_text().splitlines()
    assert warm.startswith("idle -p 80 -x 0 -n 32 ")
    assert measured.startswith("idle -p 80 -x 0 -n 1000 ")


@needs_linux_and_compiler
def test_idle_connections_through_a_bare_forwarder_cost_little(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import measure
    from bench.workloads import Kind, Workload

    monkeypatch.setattr(measure, "_SETTLE_S", 0.1)
    monkeypatch.setattr(measure, "_IDLE_S", 0.1)
    workload = Workload("name", "title", Kind.IDLE, 500, ())
    with bare_forwarder(tmp_path) as (binary, pair):
        sample = measure.measure(binary, workload, 1, lambda: pair)
    assert sample["kb_per_tunnel"] < 2


@needs_linux_and_compiler
def test_a_process_started_again_is_not_taken_for_the_one_before(tmp_path: pathlib.Path) -> None:
    from bench.processes import Stage

    with Stage(tmp_path) as stage:
        said = [stage.start("name", ["echo", word]).await_line("") for word in ("one", "two")]
    assert said == ["one", "two"]


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


def test_a_row_of_the_bare_forwarder_says_so() -> None:
    from bench.session import Measured
    from bench.systems import System
    from bench.table import make_lines
    from bench.workloads import RATE, Kind, Row, Workload

    rows = tuple(
        Row(RATE, System.FORWARDER, reference)
        for reference in (System.REFERENCE, System.REFERENCE_MULTIPLEXED)
    )
    rates = {System.FORWARDER: 10, System.REFERENCE: 2, System.REFERENCE_MULTIPLEXED: 4}
    measured = {system: Measured([{"per_s": rate}]) for system, rate in rates.items()}
    lines = make_lines([Workload("name", "title", Kind.CHURN, 1, rows)], {"name": measured})
    assert [(line.quantity, line.ratio, line.result) for line in lines] == [
        ("requests/s (bare forwarder)", 5, ""),
        ("requests/s (bare forwarder, reference multiplexed)", 2.5, ""),
    ]


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
    from bench.systems import System
    from bench.workloads import WORKLOADS

    for name, workload in WORKLOADS.items():
        assert name == workload.name
        for row in workload.rows:
            assert not row.ours.is_reference
            assert row.reference.is_reference
            assert row.target is None or row.ours is not System.FORWARDER
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
