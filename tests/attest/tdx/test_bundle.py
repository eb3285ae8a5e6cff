"""Collateral from files: the right one, the newest one, or a clear error."""

from __future__ import annotations

import json

import pytest

from tng.attest.tdx.bundle import MAX_FILES, collateral_from_files
from tng.attest.tdx.collateral_cache import CollateralFolder, Kept
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.collateral import make_collateral
from tng.errors import AppraiserError, ErrorCode

DAY_S = 86_400


@pytest.fixture(scope="module")
def quote(workshop):
    return parse_quote(workshop.quote())


def refused(path, quote, match) -> None:
    with pytest.raises(AppraiserError, match=match) as caught:
        collateral_from_files(path, quote)
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE


def test_one_file_is_taken_as_it_is(workshop, quote, tmp_path):
    path = tmp_path / "collateral.json"
    path.write_text(workshop.collateral.to_json())
    assert collateral_from_files(path, quote) == workshop.collateral


def test_in_a_folder_the_newest_for_the_platform_is_found(workshop, quote, tmp_path):
    newer = make_collateral(workshop.authority, workshop.now + DAY_S)
    (tmp_path / "a.json").write_text(newer.to_json())
    (tmp_path / "b.json").write_text(workshop.collateral.to_json())
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "d.txt").write_text("text")
    assert collateral_from_files(tmp_path, quote) == newer


def test_a_folder_may_be_one_that_a_client_has_filled(workshop, quote, tmp_path):
    kept = Kept(workshop.collateral, workshop.now)
    CollateralFolder(tmp_path).save("50806f000000-platform", kept)
    assert collateral_from_files(tmp_path, quote) == workshop.collateral


def test_a_broken_part_makes_collateral_that_is_for_no_platform(workshop, quote, tmp_path):
    broken = workshop.with_members(pck_crl=b"?")
    (tmp_path / "a.json").write_text(broken.to_json())
    refused(tmp_path, quote, "no collateral for FMSPC")


def test_collateral_of_another_platform_is_left_alone(workshop, quote, tmp_path):
    statement = json.loads(workshop.collateral.tcb_info) | {"fmspc": "000000000000"}
    (tmp_path / "a.json").write_text(workshop.signed_tcb_info(statement).to_json())
    refused(tmp_path, quote, "no collateral for FMSPC 50806f000000 .* among 1 JSON files")


def test_what_is_not_there_is_said(quote, tmp_path):
    refused(tmp_path / "none", quote, "among 0 JSON files")
    (tmp_path / "file.json").write_text("[")
    refused(tmp_path / "file.json", quote, "is not JSON")


def test_a_file_that_cannot_be_read_is_said(workshop, quote, tmp_path):
    (tmp_path / "folder.json").mkdir()
    refused(tmp_path, quote, "among 1 JSON files")


def test_a_folder_has_a_greatest_number_of_files(quote, tmp_path):
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.json").touch()
    refused(tmp_path, quote, "more than 256 files")
