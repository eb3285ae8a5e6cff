"""nginx as the load balancer of `deploy/nginx.conf`, on loopback, in front of two egresses."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
import time
from collections.abc import Iterator
from typing import Final

from stage.processes import START_TIMEOUT_S, Process, running

EXAMPLE: Final = pathlib.Path(__file__).resolve().parents[3] / "deploy/nginx.conf"

_TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx() -> str | None:
    """Path of the program, None where there is none."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def configuration(folder: pathlib.Path, listen: int, egresses: tuple[int, int]) -> str:
    """The example with these ports instead of its addresses, and all its files in `folder`."""
    text = EXAMPLE.read_text(encoding="utf-8")
    files = "".join(f"    {name}_temp_path {folder}/{name};\n" for name in _TEMPORARY)
    for old, new in (
        ("10.0.0.11:8443", f"127.0.0.1:{egresses[0]}"),
        ("10.0.0.12:8443", f"127.0.0.1:{egresses[1]}"),
        ("listen 8443", f"listen 127.0.0.1:{listen}"),
        ("worker_processes auto", "worker_processes 1"),
        ("\nhttp {\n", f"\nhttp {{\n{files}"),
    ):
        if text.count(old) != 1:
            raise AssertionError(
                f"expected {old!r} once in {EXAMPLE.name}, found {text.count(old)}"
            )
        text = text.replace(old, new)
    return f"pid {folder}/nginx.pid;\ndaemon off;\nerror_log stderr warn;\n{text}"


@contextlib.contextmanager
def balancing(folder: pathlib.Path, listen: int, egresses: tuple[int, int]) -> Iterator[Process]:
    """The balancer, for the block.

    Args:
        folder: for its files; its workers may run as another user.
        listen: its port.
        egresses: those of the two behind it.
    """
    program = nginx()
    if program is None:
        raise AssertionError("expected nginx to be installed, found none")
    path = folder / "nginx.conf"
    path.write_text(configuration(folder, listen, egresses), encoding="utf-8")
    with running(folder, "nginx", "-p", str(folder), "-c", str(path), program=program) as process:
        _await_listener(process, listen)
        yield process


def _await_listener(process: Process, port: int) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.popen.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nginx does not listen:\n{process.log}")
