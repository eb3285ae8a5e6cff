"""Whatever the documents show works, and whatever they point at is there."""

from __future__ import annotations

import pathlib
import re

import pytest

from tng.cli.main import main
from tng.config.loader import prepare_config
from tng.errors import HTTP_STATUS, RETRYABLE, ConfigError, ErrorCode, StartError

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HAND_WRITTEN = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            *("ARCHITECTURE", "AUDIT", "ENVIRONMENT", "ERRORS", "METRICS", "OHTTP"),
            *("THREATS", "TOOLS", "TRUSTEE", "UDP", "WAYS"),
        )
    ),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]

RUN_BY = {
    "tools/demo": "tests/project/test_tools.py",
    "tools/test": "tests/project/test_tools.py",
    "tools/demo --tamper debug": "tests/project/test_demo.py",
    "tools/demo --backend http://127.0.0.1:8000": "tests/project/test_demo.py",
    "tools/demo --stay": "tests/project/test_demo.py",
    "tng config check --config-file config.json": "tests/project/test_documents.py",
    "env all_proxy='http://127.0.0.1:41000/' curl http://TEE-HOST:8443/v1/completions"
    " -H 'Content-Type: application/json'"
    ' -d \'{"model": "/tmp/model", "prompt": "Do you know the book Traction by Gino Wickman",'
    ' "max_tokens": 132}\'': "tests/project/test_demo.py",
}
"""Every command that a document shows, and the test that runs it."""


def blocks(path: pathlib.Path, language: str) -> list[str]:
    fence = rf"^```{language}\n(.*?)^```$"
    return re.findall(fence, path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def gateway_configs() -> list[pytest.param]:
    return [
        pytest.param(text, id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, text in enumerate(blocks(path, "json"))
        if "add_ingress" in text or "add_egress" in text
    ]


def commands(path: pathlib.Path) -> list[str]:
    found = []
    for text in blocks(path, "sh") + blocks(path, "console"):
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            command = re.sub(r"\s+# .*", "", line).strip()
            if command and not command.startswith("#"):
                found.append(command)
    return found


@pytest.mark.parametrize("text", gateway_configs())
def test_a_configuration_in_a_document_is_a_good_one(text: str) -> None:
    prepare_config(text)


def test_the_readme_shows_a_configuration_for_each_side() -> None:
    shown = "".join(blocks(ROOT / "README.md", "json"))
    assert "add_ingress" in shown
    assert "add_egress" in shown


@pytest.mark.parametrize("number", [0, 1])
def test_the_check_command_of_the_readme_is_content_with_its_configurations(
    number: int, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.json"
    path.write_text(blocks(ROOT / "README.md", "json")[number])
    assert main(["config", "check", "--config-file", str(path)]) == 0
    assert "configuration OK" in capfd.readouterr().out


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.name)
def test_every_command_in_a_document_is_run_by_a_test(path: pathlib.Path) -> None:
    for command in commands(path):
        assert command in RUN_BY, f"{path.name} shows {command!r}, which no test runs"
        assert (ROOT / RUN_BY[command]).is_file()


def test_the_quickstart_is_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Quickstart\n")[1]
    first = re.search(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert first is not None
    assert first[1].split() == ["tools/demo", "tools/test"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(path: pathlib.Path) -> None:
    named = re.findall(
        r"`((?:tng|tests|tools|configs|docs|deploy)/[\w./-]*)`", path.read_text(encoding="utf-8")
    )
    for name in named:
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_the_map_shows_every_room_and_no_other() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `tng/(\w+)` \|", text, re.MULTILINE))
    rooms = {path.parent.name for path in (ROOT / "tng").glob("*/__init__.py")}
    assert shown == rooms


def test_every_guarantee_is_numbered_and_names_tests_that_are_there() -> None:
    text = (ROOT / "docs/THREATS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| G(\d+) \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    for number, held_by in rows:
        tests = re.findall(r"`(tests/[\w/.]+)`", held_by)
        assert tests, f"G{number} names no test"
        for name in tests:
            place = ROOT / name
            found = [place] if place.is_file() else list(place.rglob("test_*.py"))
            assert found, f"G{number} names {name}, which holds no test"


def error_table() -> list[list[str]]:
    """Cells of each row of the table of error codes."""
    text = (ROOT / "docs/ERRORS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `.*\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_table_of_errors_names_every_code_and_no_other() -> None:
    assert [row[0].strip("`") for row in error_table()] == [str(code) for code in ErrorCode]


@pytest.mark.parametrize("row", error_table(), ids=lambda row: row[0].strip("`"))
def test_a_row_of_the_table_of_errors_says_what_the_code_does(row: list[str]) -> None:
    word, status, retry, meaning, remedy = row
    code = ErrorCode(word.strip("`"))
    ends = {kind.code: f"exit {kind.exit_status}" for kind in (ConfigError, StartError)}
    assert status == ends.get(code, str(HTTP_STATUS.get(code, 502)))
    assert retry == ("yes" if code in RETRYABLE else "no")
    assert meaning.endswith(".")
    assert remedy.endswith(".")
