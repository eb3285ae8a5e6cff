"""The processes of the demonstration: who is started, with which configuration, and when it is up.

In: ports, a folder for state, the kind of spoiling.  Out: running processes, each ready.
Invariant: leaving the context ends every process that it started, whatever happened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import httpx

from tng.endpoint import Endpoint
from tng.errors import StartError

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

PROXY_PORT: Final = 41000
"""Where the ingress listens when that port is free, as in every example."""

HOST: Final = "127.0.0.1"

_READY_TIMEOUT: Final = 20.0
"""Seconds for a process to become ready; a cold start on a busy machine takes two or three."""

_STOP_TIMEOUT: Final = 5.0
"""Seconds between asking a process to end and ending it."""

_POLL_PAUSE: Final = 0.05

_LOG_TAIL: Final = 12
"""Lines of its log that are shown of a process that did not become ready."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """Ports on loopback.

    Attributes:
        proxy: the ingress's HTTP proxy.
        egress: the egress's listener.
        trustee: the attestation service.
        ingress_control: control interface of the ingress.
        egress_control: control interface of the egress.
        backend: the stand-in.
    """

    proxy: int
    egress: int
    trustee: int
    ingress_control: int
    egress_control: int
    backend: int


def choose_ports(preferred_proxy: int = PROXY_PORT) -> Ports:
    """Free ports; `preferred_proxy` for the proxy unless it is taken."""
    with contextlib.ExitStack() as held:
        first = _hold(held, preferred_proxy)
        return Ports(first, *(_hold(held, 0) for _ in range(5)))


def _hold(held: contextlib.ExitStack, port: int) -> int:
    """Reserve a port until `held` closes, so that no two of them are the same."""
    sock = held.enter_context(socket.socket())
    # Without this a port whose last connections linger would count as taken.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
    except OSError:
        sock.bind((HOST, 0))
    address: tuple[str, int] = sock.getsockname()
    return address[1]


def egress_config(ports: Ports, service: Endpoint, platform: pathlib.Path) -> dict[str, object]:
    """The egress: a mapping in front of `service`, with simulated evidence."""
    return {
        "add_egress": [
            {
                "mapping": {
                    "in": {"host": HOST, "port": ports.egress},
                    "out": {"host": service.host, "port": service.port},
                },
                "attest": {"aa_type": "simulated", "simulated_platform": str(platform)},
            }
        ],
        "control_interface": {"restful": {"host": HOST, "port": ports.egress_control}},
    }


def ingress_config(ports: Ports) -> dict[str, object]:
    """The ingress: an HTTP proxy that has every peer judged."""
    return {
        "add_ingress": [
            {
                "http_proxy": {"proxy_listen": {"host": HOST, "port": ports.proxy}},
                "verify": {
                    "as_addr": f"http://{HOST}:{ports.trustee}/as/",
                    "policy_ids": ["default"],
                    "allow_simulated": True,
                },
            }
        ],
        "control_interface": {"restful": {"host": HOST, "port": ports.ingress_control}},
    }


class Stage:
    """Processes that end with the context.

    Args:
        folder: for their logs; there for as long as the stage is.
        environment: variables for the processes; those that name proxies are left out, because
            a gateway that asked its attestation service through itself would wait for itself.
    """

    def __init__(self, folder: pathlib.Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        given = os.environ if environment is None else environment
        self._environment = {
            name: value for name, value in given.items() if not name.lower().endswith("_proxy")
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._client = httpx.Client(timeout=2.0, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()
        for process in reversed(self._processes):
            _end(process)

    def start(self, name: str, words: Sequence[str], ready: str) -> None:
        """Start `python -m WORDS` and wait until it is ready.

        Args:
            name: what to call it; also the name of its log.
            words: module and arguments.
            ready: URL that answers 200 once it is up.

        Raises:
            StartError: it ended, or was not ready in time; with the end of its log.
        """
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own words
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        self._processes.append(process)
        deadline = time.monotonic() + _READY_TIMEOUT
        while not self._is_ready(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                state = "did not become ready" if process.poll() is None else "ended at once"
                raise StartError(f"{name} {state}; the end of its log: {_tail(log)}")
            time.sleep(_POLL_PAUSE)

    def launch(self, name: str, config: dict[str, object], control_port: int) -> None:
        """Start a gateway with `config` and wait for its `/readyz`.

        Raises:
            StartError: see `start`.
        """
        words = ["tng", "launch", "--config-content", json.dumps(config)]
        self.start(name, words, f"http://{HOST}:{control_port}/readyz")

    def _is_ready(self, url: str) -> bool:
        try:
            return self._client.get(url).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: pathlib.Path) -> str:
    lines: Iterator[str] = iter(log.read_text(encoding="utf-8", errors="replace").splitlines())
    return " | ".join(list(lines)[-_LOG_TAIL:]) or "(empty)"
