"""Free ports for what a configuration of `tng exec` leaves open.

In: a configuration whose entries are all of mode `hook`.  Out: the same, with a port for every
private proxy, and one line for every port of the program, which names where it is moved.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Iterable
from typing import Final

from tng.config.capture import EgressHook, HookListen
from tng.config.exec_rules import claimed_ports
from tng.config.model import TngConfig
from tng.errors import StartError

_PORTS: Final = range(10_000, 32_768)
"""Below those that Linux gives to outgoing connections, which would take one before its use."""

_TRIES: Final = 1000
"""A machine on which so many random ports are taken has none to spare."""


def with_ports(config: TngConfig, is_free: Callable[[int], bool] | None = None) -> TngConfig:
    """The configuration with every port named.

    Args:
        config: as checked by `exec_problems`.
        is_free: tells whether nobody has a port of loopback; absent: the system is asked.

    Raises:
        StartError: no port is free.
    """
    give = _Giver((port for _, port in claimed_ports(config)), is_free or is_free_port)
    ingresses = [
        entry.model_copy(update={"hook": entry.hook.model_copy(update={"proxy_port": give.port()})})
        if entry.hook is not None and entry.hook.proxy_port is None
        else entry
        for entry in config.add_ingress
    ]
    egresses = [
        entry.model_copy(update={"hook": _moved(entry.hook, give)}) if entry.hook else entry
        for entry in config.add_egress
    ]
    return config.model_copy(update={"add_ingress": ingresses, "add_egress": egresses})


def is_free_port(port: int) -> bool:
    """Whether a port of loopback is free, for IPv4 and, where there is IPv6, for that."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as sock:
                sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True


class _Giver:
    """Gives ports, each once."""

    def __init__(self, taken: Iterable[int], is_free: Callable[[int], bool]) -> None:
        self._taken = set(taken)
        self._is_free = is_free

    def port(self) -> int:
        for _ in range(_TRIES):
            port = secrets.choice(_PORTS)
            if port not in self._taken and self._is_free(port):
                self._taken.add(port)
                return port
        raise StartError(
            f"no free port found on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop - 1}; "
            "name them: proxy_port, redirect_to_port"
        )


def _moved(hook: EgressHook, give: _Giver) -> EgressHook:
    rules: list[HookListen] = []
    for rule in hook.capture_listen:
        first = rule.port or 0
        for offset in range((rule.port_end or first) - first + 1):
            to = rule.redirect_to_port
            single = {
                "port": first + offset,
                "port_end": None,
                "redirect_to_port": give.port() if to is None else to + offset,
                "redirect_to_port_end": None,
            }
            rules.append(rule.model_copy(update=single))
    return hook.model_copy(update={"capture_listen": rules})
