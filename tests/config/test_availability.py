# ruff: noqa: E501 - tables of cases, one case a line
"""What is built later is named, and what is here is not."""

from __future__ import annotations

import json

import pytest

from tng.config.availability import UNAVAILABLE_KEYS, UNAVAILABLE_VALUES, unavailable
from tng.config.loader import parse_config

MAPPING = {"mapping": {"in": {"port": 9}, "out": {"host": "127.0.0.1", "port": 9}}}
AS = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}
AA = {"aa_addr": "unix:///x"}


def lines(config: dict[str, object]) -> list[str]:
    return unavailable(parse_config(json.dumps(config)))


def in_(**keys: object) -> dict[str, object]:
    return {"add_ingress": [keys]}


def out(**keys: object) -> dict[str, object]:
    return {"add_egress": [keys]}


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (out(**MAPPING, attest={"aa_type": "builtin"}), "add_egress[0].attest.aa_type"),
        (out(**MAPPING, attest={**AA, "model": "passport", "as_type": "builtin"}), "add_egress[0].attest.as_type"),
        (in_(**MAPPING, no_ra=True) | {"trace": {"exporters": []}}, "trace"),
    ],
)  # fmt: skip
def test_a_thing_of_a_later_version_is_named(config: dict[str, object], path: str) -> None:
    (line,) = lines(config)
    assert line.startswith(f"{path}: ")
    assert line.endswith("not available in this version")


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            in_(hook={"capture_dst": [{"port": 1}]}, no_ra=True),
            "add_ingress[0].hook: Ingress entry 0 uses 'hook' mode, which is only allowed via "
            "`tng exec`, not `tng launch`",
        ),
        (
            out(hook={}, no_ra=True),
            "add_egress[0].hook: Egress entry 0 uses 'hook' mode, which is only allowed via "
            "`tng exec`, not `tng launch`",
        ),
    ],
)
def test_hook_under_launch_is_refused_in_the_words_of_the_reference(
    config: dict[str, object], line: str
) -> None:
    assert lines(config) == [line]


def test_settings_at_their_defaults_need_nothing_of_a_later_version() -> None:
    verify = {**AS, "verify_signer_transparency": False, "api_key": None}
    config = in_(**MAPPING, verify=[verify], quic=None, rats_tls={"multiplex": True})
    config |= out(
        mapping={"in": {"port": 10}, "out": {"host": "h", "port": 1}},
        attest={**AA, "model": "passport", **AS},
        direct_forward=[],
        ohttp=None,
    )
    config |= {"metric": {"exporters": [{"type": "stdout"}]}}
    assert lines(config) == []


def test_the_table_names_fields_that_exist() -> None:
    for model, name in [*UNAVAILABLE_KEYS, *UNAVAILABLE_VALUES]:
        assert name in model.model_fields
