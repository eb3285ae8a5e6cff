"""`--help` of every command: there, complete, and fit for a terminal."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from tng.cli.main import main, make_parser


def parsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command, by the words that call it."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, (*words, name))


ALL = dict(parsers(make_parser()))
by_words = pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words) or "tng")


def test_every_command_is_looked_at() -> None:
    assert {("launch",), ("demo",), ("trustee",), ("verify",), ("config", "check")} <= set(ALL)


@by_words
def test_help_is_printed(
    words: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    said = capfd.readouterr().out
    assert said.startswith(f"usage: {' '.join(('tng', *words))} ")
    assert all(len(line) <= 100 for line in said.splitlines())
    assert "worker-link" not in said
    assert said.lower().count("exit status") >= 1


@by_words
def test_a_command_and_each_of_its_arguments_are_described(words: tuple[str, ...]) -> None:
    parser = ALL[words]
    assert parser.description
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest for choice in action._choices_actions if choice.help}
            assert told == set(action.choices)
        else:
            assert action.help, f"{words}: {action.option_strings or action.dest}"
