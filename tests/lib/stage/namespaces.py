"""Two network namespaces with a cable between them, for what changes rules of a machine.

Needs root, `ip` and iptables; nothing here touches the rules of the machine's own namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from stage.processes import START_TIMEOUT_S, Process, running

MISSING = [tool for tool in ("ip", "iptables-save", "setpriv") if shutil.which(tool) is None]

NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
"""Marks of a test file that uses namespaces."""

NEAR, FAR = "10.77.0.1", "10.77.0.2"


class Namespaces:
    """Two namespaces.

    Args:
        folder: for logs.
        near: name of the one whose address is `NEAR`.
        far: name of the one whose address is `FAR`.

    Attributes:
        path: where gateways look for commands.
    """

    def __init__(self, folder: pathlib.Path, near: str, far: str) -> None:
        self.folder = folder
        self.near = near
        self.far = far
        self.path = os.environ["PATH"]

    def run(self, space: str, *command: str) -> str:
        whole = ["ip", "netns", "exec", space, *command]
        done = subprocess.run(whole, capture_output=True, text=True, check=True, timeout=20)
        return done.stdout

    def rules(self, space: str) -> list[str]:
        """Everything that could be left behind; counters and dates are none."""
        found = []
        for command in (
            ["iptables-nft-save"],
            ["iptables-legacy-save"],
            ["ip", "-4", "rule", "show"],
            ["ip", "-4", "route", "show", "table", "all"],
        ):
            if shutil.which(command[0]) is not None:
                text = self.run(space, *command)
                found += [x for x in text.splitlines() if not x.startswith(("#", ":", "*", "COM"))]
                found += [x for x in text.splitlines() if x.startswith(":TNG")]
        return found

    @contextlib.contextmanager
    def launched(
        self,
        space: str,
        name: str,
        config: dict[str, object],
        *more: str,
        before: Sequence[str] = (),
    ) -> Iterator[Process]:
        """A gateway; ready when the block begins."""
        environment = ["env", f"PATH={self.path}"]
        command = [sys.executable, "-m", "tng", "launch", *more]
        content = ["--config-content", json.dumps(config)]
        arguments = ["netns", "exec", space, *before, *environment, *command, *content]
        with running(self.folder, name, *arguments, program="ip") as process:
            end = time.monotonic() + START_TIMEOUT_S
            while "All services are ready" not in process.log and process.popen.poll() is None:
                assert time.monotonic() < end, process.log
                time.sleep(0.02)
            yield process

    def use(self, kind: str) -> None:
        """Let gateways find only one back end of iptables, "nft" or "legacy"."""
        folder = self.folder / kind
        if not folder.exists():
            folder.mkdir()
            for name in ("save", "restore"):
                found = shutil.which(f"iptables-{kind}-{name}")
                if found is None:
                    pytest.skip(f"iptables-{kind}-{name} is not installed")
                (folder / f"iptables-{name}").symlink_to(found)
        self.path = f"{folder}:{os.environ['PATH']}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def cabled(name: str) -> Iterator[tuple[str, str]]:
    """The names of a near and a far namespace, for the block.

    Args:
        name: a few letters, different for each that is made at the same time.
    """
    near, far = (f"tng{os.getpid()}{name}{letter}" for letter in "nf")
    try:
        for space in (near, far):
            _ip("netns", "add", space)
        _ip("link", "add", "eth0", "netns", near, "type", "veth", "peer", "eth0", "netns", far)
        for space, address in ((near, NEAR), (far, FAR)):
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", space, "link", "set", device, "up")
        yield near, far
    finally:
        for space in (near, far):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@contextlib.contextmanager
def served(folder: pathlib.Path, space: str, program: str) -> Iterator[Process]:
    """A Python program in a namespace, which says `listening` when it does."""
    arguments = ["netns", "exec", space, sys.executable, "-I", "-S", "-c", program]
    with running(folder, "server", *arguments, program="ip") as process:
        while "listening" not in process.log:
            assert process.popen.poll() is None, process.log
            time.sleep(0.02)
        yield process
