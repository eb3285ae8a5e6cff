"""What holds for every file: its size, and what it does not speak of."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_LINES = 500
MAX_FUNCTION_LINES = 60

FOLDERS = ("bench", "configs", "deploy", "docs", "tests", "tng", "tools")
KINDS = {"", ".c", ".example", ".json", ".md", ".py", ".toml", ".yaml"}
Function = ast.FunctionDef | ast.AsyncFunctionDef

ELSEWHERE = re.compile(r"/(?:home|root|work)/|\bTO" r"DO\b|\bFIX" r"ME\b|\bX" r"XX\b")
"""Paths of one machine, and work that was put off."""


def texts() -> list[pathlib.Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found += [ROOT / name for name in ("README.md", "Dockerfile", "pyproject.toml", ".ci/run")]
    return [path for path in found if path.is_file() and path.suffix in KINDS]


def too_long(path: pathlib.Path) -> list[str]:
    """What in a Python file is longer than it may be."""
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    found = [f"{path.name} has {lines} lines"] if lines > MAX_LINES else []
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, Function)]
    return found + [
        f"{path.name}: {function.name} has {own_lines(function)} lines"
        for function in functions
        if own_lines(function) > MAX_FUNCTION_LINES
    ]


def own_lines(function: Function) -> int:
    """Lines of a function without the functions that it makes: those are read by themselves."""
    inner = [node for node in function.body if isinstance(node, Function)]
    total = (function.end_lineno or 0) - function.lineno + 1
    return total - sum((node.end_lineno or 0) - node.lineno + 1 for node in inner)


@pytest.mark.parametrize("folder", ["bench", "tng", "tools"])
def test_files_and_functions_can_be_read_at_one_sitting(folder: str) -> None:
    paths = list((ROOT / folder).rglob("*.py"))
    assert paths
    assert [words for path in paths for words in too_long(path)] == []


def test_what_is_too_long_is_found(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    pass\n" * MAX_LINES)
    assert too_long(path) == [
        f"long.py has {MAX_LINES + 1} lines",
        f"long.py: f has {MAX_LINES + 1} lines",
    ]


def test_no_file_speaks_of_one_machine_or_of_work_put_off() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts()
        if path != pathlib.Path(__file__).resolve()
        for match in ELSEWHERE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
