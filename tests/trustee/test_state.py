from __future__ import annotations

import os
import stat

import pytest

from tng.attest.signer_identity import LIFETIME_S
from tng.errors import StartError
from tng.trustee.state import StateDirectory

NOW = 1_795_000_000.0


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_private_to_the_user(tmp_path):
    path = tmp_path / "a" / "state"
    with StateDirectory.open(path) as state:
        state.identity(NOW)
        state.challenge_key()
        state.write_policy("mine", "text")
    files = [item for item in path.rglob("*") if item.is_file()]
    assert sorted(item.name for item in files) == [
        "ca.pem",
        "challenge-key.pem",
        "lock",
        "mine.rego",
        "signer.pem",
    ]
    assert {_mode(item) for item in files} == {0o600}
    assert {_mode(item) for item in (path, path / "policies")} == {0o700}


def test_a_restart_finds_the_same_keys(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        identity, challenge = state.identity(NOW), state.challenge_key()
    with StateDirectory.open(tmp_path / "s") as state:
        assert state.identity(NOW + 86_400).certificate == identity.certificate
        assert state.challenge_key().private_numbers() == challenge.private_numbers()
        assert (tmp_path / "s" / "ca.pem").read_bytes() == identity.ca_pem


def test_an_identity_near_its_end_is_replaced(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        identity = state.identity(NOW)
        later = NOW + LIFETIME_S - 364 * 86_400
        assert state.identity(later).certificate != identity.certificate


def test_a_second_process_is_told_that_the_directory_is_in_use(tmp_path):
    with StateDirectory.open(tmp_path / "s"), pytest.raises(StartError, match="in use"):
        StateDirectory.open(tmp_path / "s")
    StateDirectory.open(tmp_path / "s").close()


def test_closing_twice_is_harmless(tmp_path):
    state = StateDirectory.open(tmp_path / "s")
    state.close()
    state.close()


@pytest.mark.parametrize("name", ["signer.pem", "challenge-key.pem"])
def test_a_key_that_others_could_read_is_refused(tmp_path, name):
    with StateDirectory.open(tmp_path / "s") as state:
        state.identity(NOW)
        state.challenge_key()
        (tmp_path / "s" / name).chmod(0o640)
        read = state.challenge_key if name == "challenge-key.pem" else lambda: state.identity(NOW)
        with pytest.raises(StartError, match="0640"):
            read()


def test_a_directory_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s").chmod(0o777)
    with pytest.raises(StartError, match="0777"):
        StateDirectory.open(tmp_path / "s")


def test_a_readable_directory_is_closed_to_others(tmp_path):
    (tmp_path / "s").mkdir(mode=0o755)
    StateDirectory.open(tmp_path / "s").close()
    assert _mode(tmp_path / "s") == 0o700


def test_a_link_in_place_of_the_directory_or_a_key_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(StartError, match="expected a directory"):
        StateDirectory.open(tmp_path / "link")
    with StateDirectory.open(tmp_path / "s") as state:
        (tmp_path / "key").write_bytes(b"")
        (tmp_path / "s" / "signer.pem").symlink_to(tmp_path / "key")
        with pytest.raises(StartError):
            state.identity(NOW)


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "s").write_text("")
    with pytest.raises(StartError):
        StateDirectory.open(tmp_path / "s")


def test_a_pipe_in_place_of_a_key_is_refused(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        os.mkfifo(tmp_path / "s" / "signer.pem", 0o600)
        keep = os.open(tmp_path / "s" / "signer.pem", os.O_RDWR)
        try:
            with pytest.raises(StartError, match="regular file"):
                state.identity(NOW)
        finally:
            os.close(keep)


def test_damaged_files_are_start_errors(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        state.write_policy("mine", "text")
        (tmp_path / "s" / "policies" / "mine.rego").write_bytes(b"\xff")
        with pytest.raises(StartError, match="UTF-8"):
            state.policies()
        (tmp_path / "s" / "policies" / "mine.rego").write_bytes(b"x" * 1_100_000)
        with pytest.raises(StartError, match="larger"):
            state.policies()
        state.identity(NOW)
        (tmp_path / "s" / "challenge-key.pem").write_bytes(
            (tmp_path / "s" / "signer.pem").read_bytes()
        )
        (tmp_path / "s" / "challenge-key.pem").chmod(0o600)
        with pytest.raises(StartError, match="one RSA key"):
            state.challenge_key()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        (tmp_path / "s" / "policies" / "mine.rego").mkdir()
        with pytest.raises(StartError, match="cannot be written"):
            state.write_policy("mine", "text")
        assert [item.name for item in (tmp_path / "s" / "policies").iterdir()] == ["mine.rego"]
        with pytest.raises(StartError):
            state.remove_policy("mine")


def test_removing_a_policy_twice_is_harmless(tmp_path):
    with StateDirectory.open(tmp_path / "s") as state:
        state.write_policy("mine", "text")
        state.remove_policy("mine")
        state.remove_policy("mine")
        assert state.policies() == {}


def test_what_a_crash_left_half_written_is_gone_after_the_next_start(tmp_path):
    path = tmp_path / "s"
    StateDirectory.open(path).close()
    drafts = [
        path / ".signer.pem.0123456789abcdef",
        path / "resources" / ".a,b,c.sealed.00112233aabbccdd",
    ]
    kept = path / "resources" / ".other"
    for file in (*drafts, kept):
        file.write_bytes(b"half")
    StateDirectory.open(path).close()
    assert not any(file.exists() for file in drafts)
    assert kept.exists()


def test_a_draft_that_cannot_be_removed_is_a_start_error(tmp_path):
    path = tmp_path / "s"
    StateDirectory.open(path).close()
    (path / ".signer.pem.0123456789abcdef").mkdir()
    with pytest.raises(StartError, match="state directory"):
        StateDirectory.open(path)
    (path / ".signer.pem.0123456789abcdef").rmdir()
    StateDirectory.open(path).close()
