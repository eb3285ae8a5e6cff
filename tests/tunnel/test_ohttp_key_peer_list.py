"""The peers of the configuration and those of a file that is followed."""

from __future__ import annotations

import json
import pathlib

import pytest

from tng.errors import ConfigError
from tng.tunnel.ohttp.peer_list import MAX_PEERS, PeerList

WHERE = "add_egress[0].ohttp.key.peers_file"


def test_without_a_file_the_configured_peers_count_each_once() -> None:
    peers = PeerList(["a:1", "b:1", "a:1"], None, WHERE)
    peers.read_first()
    peers.look()
    assert list(peers.current) == ["a:1", "b:1"]


def test_peers_of_the_file_come_in_addition_and_follow_it(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "peers.json"
    file.write_text('["b:1", "[::1]:8301"]')
    peers = PeerList(["a:1", "b:1"], str(file), WHERE)
    peers.read_first()
    assert list(peers.current) == ["a:1", "b:1", "[::1]:8301"]
    file.write_text('["c:65535"]')
    peers.look()
    assert list(peers.current) == ["a:1", "b:1", "c:65535"]


BAD = [
    ("", "expected a JSON list of peers"),
    ("{}", "at most 256 peers"),
    (json.dumps(["a:1"] * (MAX_PEERS + 1)), "at most 256 peers"),
    ("[1]", "host:port"),
    ('["a"]', "host:port"),
    ('[":1"]', "host:port"),
    ('["a:0"]', "host:port"),
    ('["a:65536"]', "host:port"),
    ('["a:99999999999999999999"]', "host:port"),
    ('["a:\\u0661"]', "host:port"),
    ('["a\\n:1"]', "host:port"),
    (json.dumps(["x" * 300 + ":1"]), "host:port"),
]


@pytest.mark.parametrize(("text", "complaint"), BAD)
def test_what_is_no_list_of_peers_is_refused_at_the_start_and_ignored_later(
    text: str, complaint: str, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "peers.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        PeerList([], str(file), WHERE).read_first()
    assert caught.value.problems[0].startswith(f"{WHERE}: cannot use {str(file)!r}: ")
    file.write_text('["a:1"]')
    peers = PeerList([], str(file), WHERE)
    peers.read_first()
    file.write_text(text)
    for _ in range(3):
        peers.look()
    assert list(peers.current) == ["a:1"]
    assert caplog.text.count("the one before stays") == 1


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        PeerList([], str(tmp_path / "gone"), WHERE).read_first()
