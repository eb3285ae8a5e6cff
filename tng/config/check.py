"""Rules across the whole configuration: something to do, ports taken twice, files that are missing.

In: a `TngConfig`, whose objects obey their own rules already.  Out: lines for the operator.
Sockets of agents are not looked for: an agent may come later.
"""

from __future__ import annotations

import ipaddress
import pathlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tng.config.capture import EgressNetfilter, EgressNetfilterUdp, Netfilter, NetfilterUdp
from tng.config.control import Restful
from tng.config.mapping import MAX_PORTS, MappingRule, MappingUdp
from tng.config.model import TngConfig
from tng.config.ohttp import IngressOhttp, OhttpKey
from tng.config.problems import dump_path, quote
from tng.config.proxy import HttpProxy, Socks5
from tng.config.strict import StrictModel
from tng.config.unmarked import captured_services
from tng.config.verify import AttestationPolicy, ReferencePayload, ReferenceValues, Verify
from tng.config.walk import Path, walk

_ANY: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True, slots=True)
class Listener:
    """Ports that the configuration takes.

    Attributes:
        path: of the object that asks for them.
        protocol: "tcp" or "udp".
        host: an IP address, without brackets.
        port: the first port.
        size: number of ports.
    """

    path: Path
    protocol: str
    host: str
    port: int
    size: int = 1


def check_config(config: TngConfig) -> list[str]:
    """Problems between the objects of a configuration."""
    if not config.add_ingress and not config.add_egress:
        return ["add_ingress: nothing to do: give an entry in add_ingress or in add_egress"]
    listeners = [one for path, model in walk(config) for one in _listeners_of(path, model)]
    ports = sum(listener.size for listener in listeners)
    if ports > MAX_PORTS:
        return [f"configuration: expected at most {MAX_PORTS} listening ports, got {ports}"]
    return [*_conflicts(listeners), *captured_services(config)]


def check_files(config: TngConfig) -> list[str]:
    """Files that the configuration names, and that are not there."""
    return [
        f"{dump_path(at)}: {what} does not exist: {quote(file)} (No such file)"
        for path, model in walk(config)
        for at, what, file in _files_of(path, model)
        if not _is_file(file)
    ]


def _is_file(name: str) -> bool:
    try:
        return pathlib.Path(name).is_file()
    except (OSError, ValueError):
        return False


def _listeners_of(path: Path, model: StrictModel) -> Iterator[Listener]:
    match model:
        case Restful():
            yield Listener(path, "tcp", model.host, model.port)
        case HttpProxy() | Socks5():
            listen = model.proxy_listen
            yield Listener((*path, "proxy_listen"), "tcp", listen.host, listen.port)
        case MappingRule():
            ports = model.listen
            yield Listener((*path, "in"), "tcp", ports.host, ports.port, ports.size)
        case MappingUdp():
            yield Listener((*path, "in"), "udp", model.listen.host, model.listen.port)
        case Netfilter(listen_port=int(port)):
            yield Listener((*path, "listen_port"), "tcp", "127.0.0.1", port)
        case EgressNetfilter(listen_port=int(port)):
            yield Listener((*path, "listen_port"), "tcp", _ANY[0], port)
        case EgressNetfilterUdp(listen_port=int(port)):
            yield Listener((*path, "listen_port"), "udp", _ANY[0], port)
        case NetfilterUdp(listen_port=int(port)):
            yield Listener((*path, "listen_port"), "udp", "127.0.0.1", port)
        case OhttpKey(source="peer_shared"):
            yield Listener(path, "tcp", model.host, model.port)


def _conflicts(listeners: list[Listener]) -> Iterator[str]:
    """A wildcard address takes the port of every address of its family."""
    taken: dict[tuple[str, int], list[Listener]] = defaultdict(list)
    for listener in listeners:
        for port in range(listener.port, listener.port + listener.size):
            others = taken[listener.protocol, port]
            clash = next((o for o in others if _overlap(o.host, listener.host)), None)
            others.append(listener)
            if clash is not None:
                yield (
                    f"{dump_path(listener.path)}: {listener.host} port {port} ({listener.protocol})"
                    f" is already taken by {dump_path(clash.path)}"
                )
                break


def _overlap(one: str, other: str) -> bool:
    first, second = ipaddress.ip_address(one), ipaddress.ip_address(other)
    if first.version != second.version:
        return False
    return first == second or first.is_unspecified or second.is_unspecified


def _files_of(path: Path, model: StrictModel) -> Iterator[tuple[Path, str, str]]:
    match model:
        case Verify():
            for number, file in enumerate(model.trusted_certs_paths):
                what = "attestation service trusted certificate path"
                yield (*path, "trusted_certs_paths", number), what, file
        case IngressOhttp():
            for number, file in enumerate(model.tls_ca_certs):
                yield (*path, "tls_ca_certs", number), "certificate file", file
        case OhttpKey(source="file", path=str(file)):
            yield (*path, "path"), "key file", file
        case ReferenceValues():
            for number, file in enumerate(model.trusted_keys_paths):
                yield (*path, "trusted_keys_paths", number), "public key file", file
        case AttestationPolicy(path=str(file)):
            yield (*path, "path"), "policy file path", file
        case ReferencePayload(path=str(file)):
            yield (*path, "path"), "reference value file", file
