"""How the metrics name an entry: where it listens, and where it leads."""

from __future__ import annotations

from tng.config.model import Egress, Ingress
from tng.endpoint import Endpoint
from tng.gateway.entries import captured_at
from tng.observe.metrics import Side, entry_labels


def labels_of(side: Side, number: int, entry: Ingress | Egress) -> dict[str, str]:
    """Labels of the metrics of an entry."""
    listen = target = None
    proxy = (entry.http_proxy or entry.socks5) if isinstance(entry, Ingress) else None
    if proxy is not None:
        listen = Endpoint(proxy.proxy_listen.host, proxy.proxy_listen.port)
    elif isinstance(entry, Ingress) and entry.hook is not None:
        from tng.gateway.ingress.hook import proxy_endpoint  # starting costs what is used

        listen = proxy_endpoint(entry.hook)
    elif isinstance(entry, Egress) and entry.hook is not None and entry.hook.capture_listen:
        from tng.gateway.egress.hook import moved_port  # starting costs what is used

        _, listen, target = moved_port(entry.hook.capture_listen[0])
    elif entry.mapping is not None:
        listen, target = entry.mapping.rules[0].pairs()[0]
    elif entry.netfilter is not None and entry.netfilter.listen_port is not None:
        listen = captured_at(entry.netfilter)
    elif entry.netfilter_udp is not None and entry.netfilter_udp.listen_port is not None:
        listen = captured_at(entry.netfilter_udp)
    elif entry.mapping_udp is not None:
        udp = entry.mapping_udp
        listen = Endpoint(udp.listen.host, udp.listen.port)
        target = Endpoint(udp.target.host or "", udp.target.port)
    return entry_labels(side, entry.mode, number, listen=listen, target=target)
