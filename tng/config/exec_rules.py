"""What `tng exec` asks of a configuration beyond the grammar.

In: a valid configuration.  Out: lines for the operator.  Source: TNG 2.12 (words of the first and
the last rule).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tng.config.entry import Egress, Ingress
from tng.config.mapping import MAX_PORTS
from tng.config.model import TngConfig

REACHED_AS_LOOPBACK: Final = frozenset({"127.0.0.1", "0.0.0.0"})  # noqa: S104 - compared, not bound
"""Where the private proxy may listen: the program is told a port alone, and uses 127.0.0.1."""


def exec_problems(config: TngConfig) -> list[str]:
    """Why the configuration cannot be run beside one program."""
    entries: list[Ingress | Egress] = [*config.add_ingress, *config.add_egress]
    if any(entry.hook is None for entry in entries):
        return [
            *_other_modes("ingress", config.add_ingress),
            *_other_modes("egress", config.add_egress),
        ]
    ports = list(claimed_ports(config))
    if len(ports) > MAX_PORTS:
        return [f"configuration: expected at most {MAX_PORTS} ports, got {len(ports)}"]
    return [*_proxies(config), *_conflicts(ports)]


def claimed_ports(config: TngConfig) -> Iterator[tuple[str, int]]:
    """Every port that is written down, and where."""
    if config.control_interface is not None and config.control_interface.restful is not None:
        yield "control_interface.restful", config.control_interface.restful.port
    for number, ingress in enumerate(config.add_ingress):
        if ingress.hook is not None and ingress.hook.proxy_port is not None:
            yield f"add_ingress[{number}].hook.proxy_port", ingress.hook.proxy_port
    for number, egress in enumerate(config.add_egress):
        for index, rule in enumerate(egress.hook.capture_listen if egress.hook else ()):
            at = f"add_egress[{number}].hook.capture_listen[{index}]"
            first = rule.port or 0
            for offset in range((rule.port_end or first) - first + 1):
                yield f"{at}.port", first + offset
                if rule.redirect_to_port is not None:
                    yield f"{at}.redirect_to_port", rule.redirect_to_port + offset


def _other_modes(side: str, entries: Sequence[Ingress | Egress]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        if entry.hook is None:
            yield (
                f"add_{side}[{number}].{entry.mode}: tng exec only supports 'hook' mode {side}, "
                f"but {side} entry {number} uses a '{entry.mode}' mode. "
                "Use `tng launch` for non-hook modes."
            )


def _proxies(config: TngConfig) -> Iterator[str]:
    for number, entry in enumerate(config.add_ingress):
        listen = entry.hook.proxy_listen if entry.hook else None
        if listen is not None and listen not in REACHED_AS_LOOPBACK:
            yield (
                f"add_ingress[{number}].hook.proxy_listen: expected 127.0.0.1 (or 0.0.0.0), where "
                f"the program looks for its proxy, got {listen}"
            )


def _conflicts(ports: list[tuple[str, int]]) -> Iterator[str]:
    taken: set[int] = set()
    for path, port in ports:
        if port in taken:
            yield f"{path}: Conflict: port {port} is already claimed by another entry"
        taken.add(port)
