"""A folder of collateral."""

from __future__ import annotations

import json
import os

import pytest

from tng.attest.tdx.collateral_cache import MAX_FILES, CollateralFolder, Kept


@pytest.fixture
def kept(workshop):
    return Kept(workshop.collateral, 1000.0)


def test_what_is_saved_is_loaded(tmp_path, kept):
    folder = CollateralFolder(tmp_path / "a" / "b")
    assert folder.load("p") is None
    folder.save("p", kept)
    assert folder.load("p") == kept
    assert folder.load("q") is None
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["p.json"]


def test_the_oldest_makes_room(tmp_path, kept):
    folder = CollateralFolder(tmp_path)
    for number in range(MAX_FILES):
        file = tmp_path / f"{number}.json"
        file.write_text("{}")
        os.utime(file, (number, number))
    folder.save("new", kept)
    assert len(list(tmp_path.iterdir())) == MAX_FILES
    assert not (tmp_path / "0.json").exists()
    assert folder.load("new") == kept


@pytest.mark.parametrize(
    "change",
    [
        {"format": "tng-collateral-2"},
        {"fetched_at": True},
        {"fetched_at": "1"},
        {"sha256": "00"},
        {"sha256": "\u00e9"},
        {"collateral": None},
        {"collateral": "\ud800"},
    ],
)
def test_a_file_that_is_not_ours_is_as_good_as_none(tmp_path, kept, change):
    folder = CollateralFolder(tmp_path)
    folder.save("p", kept)
    members = json.loads(folder.file_of("p").read_bytes())
    folder.file_of("p").write_text(json.dumps({**members, **change}))
    assert folder.load("p") is None


def test_a_name_that_is_taken_by_a_folder_is_only_logged(tmp_path, kept, caplog):
    folder = CollateralFolder(tmp_path)
    folder.file_of("p").mkdir()
    folder.save("p", kept)
    assert folder.load("p") is None
    assert "collateral is not kept" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]
