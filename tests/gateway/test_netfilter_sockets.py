"""Commands as processes, and the socket options of netfilter modes."""

from __future__ import annotations

import os
import socket
import sys

import pytest
import trio

from stage.conversation import Line, calling, service
from tng.errors import StartError
from tng.gateway.netfilter import commands
from tng.gateway.netfilter.commands import find_command, run_command
from tng.gateway.netfilter.sockets import MarkedSockets, original_destination

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="SO_MARK needs CAP_NET_ADMIN")


async def test_a_command_gets_its_input_and_says_what_it_has_to() -> None:
    script = "import sys; print(sys.stdin.read()); print('no', file=sys.stderr); sys.exit(3)"
    done = await run_command([sys.executable, "-I", "-S", "-c", script], "in")
    assert (done.status, done.output, done.complaint) == (3, "in\n", "no\n")


async def test_a_command_that_is_not_there_is_an_error() -> None:
    with pytest.raises(StartError, match="cannot run /nowhere/iptables: No such file"):
        await run_command(["/nowhere/iptables"], "")


async def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "COMMAND_TIMEOUT_S", 0.05)
    sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
    with pytest.raises(StartError, match="did not end within"):
        await run_command(sleep, "")


def test_commands_are_found_where_services_would_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_command("sh") in {"/usr/bin/sh", "/bin/sh"}
    assert find_command("no-such-command") is None


@needs_root
async def test_sockets_of_our_questions_are_marked() -> None:
    trio.socket.set_custom_socket_factory(MarkedSockets(77))

    async def silent(line: Line) -> None:
        await line.rest()

    async with service(silent) as peer, calling(peer.port) as client:
        assert client.stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 77
    with trio.socket.socket(trio.socket.AF_UNIX) as unix:
        assert unix.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0


def test_a_mark_that_is_not_allowed_is_an_error_and_leaves_no_socket() -> None:
    with pytest.raises((OSError, OverflowError, TypeError)):
        MarkedSockets(1 << 40).socket()


def test_a_connection_that_was_not_redirected_has_no_original_destination() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        accepted, _ = listener.accept()
        with accepted:
            assert original_destination(accepted) is None
        assert original_destination(accepted) is None, "it has gone"
