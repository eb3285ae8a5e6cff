"""`tng config check` of configurations for `tng exec`."""

from __future__ import annotations

import json
import os

import pytest

from tng.cli.main import main


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RUST_LOG", "TNG_")):
            monkeypatch.delenv(name)


HOOK_IN = {"hook": {"capture_dst": [{"port": 80}]}, "no_ra": True}
HOOK_OUT = {"hook": {"capture_listen": [{"port": 8000}]}, "no_ra": True}
MAPPING = {"mapping": {"in": {"port": 10}, "out": {"host": "h", "port": 11}}, "no_ra": True}


def check(config: dict[str, object]) -> int:
    return main(["config", "check", "--config-content", json.dumps(config)])


@pytest.mark.parametrize(
    "config",
    [
        {"add_ingress": [HOOK_IN]},
        {"add_egress": [HOOK_OUT]},
        {"add_ingress": [HOOK_IN], "add_egress": [HOOK_OUT]},
    ],
)
def test_a_configuration_for_a_program_is_checked_as_such(capfd, config) -> None:
    assert check(config) == 0
    said = capfd.readouterr().out
    assert ".no_ra" in said
    assert said.endswith("configuration OK\n")


def test_the_rules_of_exec_hold_for_it(capfd) -> None:
    twice = {"capture_listen": [{"port": 8000}, {"port": 8000}]}
    assert check({"add_egress": [{**HOOK_OUT, "hook": twice}]}) == 2
    assert "port 8000 is already claimed" in capfd.readouterr().err


@pytest.mark.parametrize("others", [{"add_egress": [MAPPING]}, {"add_ingress": [HOOK_IN, MAPPING]}])
def test_a_mixture_can_be_run_by_neither_command(capfd, others: dict[str, object]) -> None:
    assert check({"add_ingress": [HOOK_IN], **others}) == 2
    assert "only allowed via `tng exec`" in capfd.readouterr().err
