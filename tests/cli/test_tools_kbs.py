"""`tng tools kbs`, from an administrator's key to the secret on standard output."""

from __future__ import annotations

import asyncio
import json
import stat
import threading

import pytest

from stage.evidence_server import evidence_server
from tng.attest.tdx.simulator.platform import SimulatedPlatform
from tng.cli.main import main
from tng.clock import SystemClock
from tng.endpoint import Endpoint
from tng.trustee.server import TrusteeSettings, serve

KEY = "kbs:///default/aliyun/model-decryption-key"


def kbs(*words: str) -> int:
    return main(["tools", "kbs", *words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kbs")


@pytest.fixture(scope="module")
def url(folder):
    """A key broker whose administrator's key is in `folder`/admin."""
    assert kbs("admin-key", str(folder / "admin")) == 0
    settings = TrusteeSettings(
        Endpoint("127.0.0.1", 0),
        folder / "state",
        simulated=folder / "platform",
        admin_key=folder / "admin" / "admin-public.pem",
        release_to_simulated=True,
    )
    up, found = threading.Event(), []

    async def run():
        stop = asyncio.Event()
        found.extend((asyncio.get_running_loop(), stop))
        await serve(
            settings, SystemClock(), ready=lambda url: (found.append(url), up.set()), stop=stop
        )

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert up.wait(20)
    yield found[2]
    found[0].call_soon_threadsafe(found[1].set)
    thread.join(20)


@pytest.fixture
def words(folder, url, monkeypatch):
    monkeypatch.setenv("TRUSTEE_URL", url + "/")
    return {
        "admin": ("--admin-key", str(folder / "admin" / "admin.pem")),
        "simulated": ("--simulated", str(folder / "platform")),
    }


@pytest.fixture
def stored(words, folder):
    (folder / "key").write_bytes(b"alibaba@1688\n")
    assert kbs("set-resource", KEY, "--from", str(folder / "key"), *words["admin"]) == 0


def test_the_model_key_of_the_deployment_article_comes_out(stored, words, capfdbinary):
    assert kbs("get-resource", KEY, *words["simulated"]) == 0
    assert capfdbinary.readouterr().out == b"alibaba@1688\n"
    assert kbs("get-resource", KEY, *words["simulated"], "--key-text") == 0
    assert capfdbinary.readouterr().out == b"alibaba@1688"


@pytest.mark.parametrize("version", ["0.1.0", "0.3.0"])
def test_an_older_protocol_can_be_asked_for(stored, words, capfdbinary, version):
    assert kbs("get-resource", KEY, *words["simulated"], "--protocol-version", version) == 0
    assert capfdbinary.readouterr().out == b"alibaba@1688\n"


def test_a_key_is_stored_without_the_newline_that_a_shell_added(words, folder, capfdbinary):
    (folder / "key").write_bytes(b"k\n\n")
    from_ = ("--from", str(folder / "key"), "--key-text")
    assert kbs("set-resource", KEY, *from_, *words["admin"]) == 0
    capfdbinary.readouterr()
    assert kbs("get-resource", KEY, *words["simulated"]) == 0
    assert capfdbinary.readouterr().out == b"k\n"


def test_a_file_of_a_secret_is_for_its_user_alone(stored, words, tmp_path, capfdbinary):
    output = tmp_path / "out"
    output.write_bytes(b"something longer that was there before")
    output.chmod(0o644)
    assert kbs("get-resource", KEY, *words["simulated"], "--output", str(output)) == 0
    assert output.read_bytes() == b"alibaba@1688\n"
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert capfdbinary.readouterr().out == b""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    link = ("--output", str(tmp_path / "link"))
    assert kbs("get-resource", KEY, *words["simulated"], *link) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_evidence_may_come_from_an_api_server_or_a_whole_section(
    stored, words, folder, capfdbinary
):
    with evidence_server(SimulatedPlatform.load(folder / "platform")) as server:
        assert kbs("get-resource", KEY, "--asr-addr", server) == 0
    section = {"aa_type": "simulated", "simulated_platform": str(folder / "platform")}
    assert kbs("get-resource", KEY, "--attest", json.dumps(section)) == 0
    assert capfdbinary.readouterr().out == b"alibaba@1688\n" * 2


def test_a_stranger_gets_nothing_and_is_told_why(stored, tmp_path, capfd):
    assert kbs("get-resource", KEY, "--simulated", str(tmp_path / "stranger")) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert "AttestationError" in said.err
    assert "[as_rejected]" in said.err


def test_what_is_not_there_is_said(words, capfd):
    assert kbs("get-resource", "kbs:///a/b/c", *words["simulated"]) == 1
    assert "there is no such resource" in capfd.readouterr().err


def test_secrets_are_listed_and_deleted(stored, words, capfd):
    assert kbs("list-resources", *words["admin"]) == 0
    assert capfd.readouterr().out == KEY + "\n"
    assert kbs("delete-resource", KEY, *words["admin"]) == 0
    assert kbs("delete-resource", KEY, *words["admin"]) == 1
    assert kbs("list-resources", *words["admin"]) == 0
    assert capfd.readouterr().out == ""


def test_another_administrator_is_none(words, tmp_path, folder, capfd):
    assert kbs("admin-key", str(tmp_path)) == 0
    assert kbs("list-resources", "--admin-key", str(tmp_path / "admin.pem")) == 1
    assert "AdminAuth" in capfd.readouterr().err


def test_a_key_pair_is_private_and_is_never_written_over(tmp_path, capfd):
    assert kbs("admin-key", str(tmp_path / "new")) == 0
    key = tmp_path / "new" / "admin.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert kbs("admin-key", str(tmp_path / "new")) == 1
    assert key.read_bytes() == before
    assert kbs("admin-key", str(key)) == 1
    assert "File exists" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("get-resource", "a/b/c", "--simulated", "x"), "RESOURCE: expected kbs:///"),
        (("get-resource", KEY, "--simulated", "x", "--url", "ftp://x"), "--url"),
        (("get-resource", KEY, "--attest", "{"), "--attest: not JSON"),
        (("get-resource", KEY, "--attest", '{"aa_type":"odd"}'), "aa_type"),
        (("get-resource", KEY, "--aa-addr", "http://x"), "aa_addr"),
        (
            ("get-resource", KEY, "--simulated", "x", "--protocol-version", "9"),
            "--protocol-version",
        ),
        (("set-resource", KEY, "--from", "/nothing", "--admin-key", "x"), "--from"),
        (("set-resource", KEY, "--from", "/dev/null", "--admin-key", "x"), "1 to 524288"),
        (("list-resources", "--admin-key", "/nothing"), "--admin-key"),
    ],
)
def test_wrong_words_end_with_2_and_name_the_option(changed, said, capfd):
    assert kbs(*changed) == 2
    assert said in capfd.readouterr().err


def test_one_source_of_evidence_is_needed(capfd):
    for sources in ((), ("--tsm", "--simulated", "x")):
        with pytest.raises(SystemExit) as caught:
            kbs("get-resource", KEY, *sources)
        assert caught.value.code == 2


def test_without_the_kernels_interface_there_is_no_evidence(words, capfd):
    assert kbs("get-resource", KEY, "--tsm") == 1
    assert "[evidence_unavailable]" in capfd.readouterr().err


def test_a_broker_that_is_not_there_is_unreachable(monkeypatch, words, capfd):
    monkeypatch.delenv("TRUSTEE_URL")
    assert kbs("get-resource", KEY, *words["simulated"], "--url", "http://127.0.0.1:1") == 1
    assert "[as_unreachable]" in capfd.readouterr().err
