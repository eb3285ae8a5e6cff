"""The commands of the quickstart, and what they stand on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = [
    *(
        f"tools/{name}"
        for name in ("balancer", "bench", "demo", "lock", "reference", "soak", "test")
    ),
    ".ci/run",
]
BASH = shutil.which("bash")

needs_bash = pytest.mark.skipif(BASH is None, reason="needs bash")


def load_check_coverage():
    path = ROOT / "tools/check_coverage.py"
    spec = importlib.util.spec_from_file_location("check_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


@needs_bash
@pytest.mark.parametrize("name", [*SCRIPTS, "tools/environment"])
def test_scripts_are_well_formed(name: str) -> None:
    subprocess.run([BASH, "-n", ROOT / name], check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_can_be_run_and_stop_at_the_first_error(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert "set -euo pipefail" in (ROOT / name).read_text(encoding="utf-8")


def test_ci_calls_the_command_that_developers_call() -> None:
    assert "exec tools/test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@needs_bash
def test_an_unknown_option_is_refused_before_anything_is_installed() -> None:
    ended = subprocess.run([ROOT / "tools/test", "--fast"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "--fast" in ended.stderr


@needs_bash
def test_no_python_is_told_with_what_to_install(tmp_path: pathlib.Path) -> None:
    for tool in ("dirname", "cat"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    script = f'source "{ROOT}/tools/environment"; find_python'
    ended = subprocess.run(
        [BASH, "-c", script], capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    assert ended.returncode == 1
    assert "Python 3.11" in ended.stderr


@needs_bash
def test_an_interpreter_that_is_new_enough_is_found() -> None:
    code = "import sys; print(sys.version_info >= (3, 11))"
    script = f'source "{ROOT}/tools/environment"; "$(find_python)" -c "{code}"'
    ended = subprocess.run([BASH, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "True"


@needs_bash
@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / ".venv/.tng-stamp").exists(), reason="the environment was not made by the tools"
)
def test_the_demo_tool_runs_the_demonstration() -> None:
    ended = subprocess.run([ROOT / "tools/demo"], capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 octets" in ended.stdout


def test_the_lock_holds_everything_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pins = locked()
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[normal(requirement.name)]), requirement


def test_the_lock_holds_what_those_need_in_turn() -> None:
    pins = locked()
    for name in pins:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in needs:
            if ";" not in need:
                assert normal(re.match(r"[\w.-]+", need)[0]) in pins, f"{name} needs {need}"


def test_every_pin_is_exact_and_the_order_is_the_alphabet_s() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+]+", pin) for pin in pins)
    assert pins == sorted(pins, key=str.lower)


def summary(branches: int, covered: int, lines: int, run: int) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "num_branches": branches,
            "covered_branches": covered,
            "num_statements": lines,
            "covered_lines": run,
        }
    }


def coverage_report(tmp_path: pathlib.Path, wire: int) -> str:
    good = summary(100, 100, 10, 10)
    files = {f"tng/{room}/a.py": good for room in ("attest", "config", "gateway")}
    files["tng/wire/a.py"] = summary(100, wire, 10, 10)
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"files": files}))
    return str(path)


@pytest.mark.parametrize(("covered", "status"), [(95, 0), (94, 1)])
def test_a_room_below_its_threshold_fails_the_check(
    covered: int, status: int, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_check_coverage().main([coverage_report(tmp_path, covered)]) == status
    assert ("TOO LOW" in capsys.readouterr().out) == bool(status)


def test_a_room_that_is_not_in_the_report_fails_the_check(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"files": {}}))
    assert load_check_coverage().main([str(path)]) == 1
    assert capsys.readouterr().out.count("TOO LOW") == 4
