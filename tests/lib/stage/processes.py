"""Gateways, the attestation service and the stand-in backend as processes of their own."""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

START_TIMEOUT_S = 20.0


class Process:
    """One `python -m tng ...`; its output goes to a file.

    Args:
        folder: where the log goes.
        name: of the log file.
        arguments: after the program.
        program: what runs; by default this interpreter.
    """

    def __init__(
        self, folder: pathlib.Path, name: str, *arguments: str, program: str = sys.executable
    ) -> None:
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, seconds: float = 8.0) -> int:
        """SIGTERM, then SIGKILL; the exit status."""
        self.popen.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 8.0) -> int:
        """The exit status; killed when it does not end in time."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def await_http(self, port: int, path: str, status: int = 200) -> None:
        """Wait until `path` on loopback answers with `status`."""
        end = time.monotonic() + START_TIMEOUT_S
        seen: object = "no answer"
        while time.monotonic() < end:
            if self.popen.poll() is not None:
                raise AssertionError(f"ended with {self.popen.returncode}:\n{self.log}")
            seen = get(port, path)
            if seen[0] == status:
                return
            time.sleep(0.02)
        raise AssertionError(f"{path} on {port}: {seen}, expected {status}:\n{self.log}")


def get(port: int, path: str) -> tuple[int | None, bytes]:
    """Status and body; None when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return None, b""
    finally:
        connection.close()


@contextlib.contextmanager
def running(
    folder: pathlib.Path, name: str, *arguments: str, program: str = sys.executable
) -> Iterator[Process]:
    """A process for the block; killed if it does not end by itself."""
    process = Process(folder, name, *arguments, program=program)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.terminate()
            try:
                process.popen.wait(5)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()


@contextlib.contextmanager
def launched(
    folder: pathlib.Path, name: str, config: dict[str, object], control: int, *, ready: bool = True
) -> Iterator[Process]:
    """`tng launch` with a control interface on `control`; ready when the block begins."""
    full = {**config, "control_interface": {"restful": {"host": "127.0.0.1", "port": control}}}
    with running(
        folder, name, "-m", "tng", "launch", "--config-content", json.dumps(full)
    ) as process:
        process.await_http(control, "/readyz" if ready else "/livez")
        yield process
