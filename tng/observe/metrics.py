"""Counters of every ingress and egress, and their Prometheus text form.

In: plain additions to an `EntryMeter`, from the thread that serves connections.  Out: text in
the Prometheus exposition format 0.0.4.  Source: names and labels of TNG 2.12, with the prefix
`tng_`.  Invariant: labels come from the configuration alone, so the number of series is fixed
when the process starts.

    meter = EntryMeter(entry_labels("ingress", "http_proxy", 0, listen=listen))
    meter.cx_total += 1
    print(render_prometheus([meter]))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tng import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tng.endpoint import Endpoint

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of the text that `render_prometheus` makes."""

Side = Literal["ingress", "egress"]

_PROXIES: Final = frozenset({"http_proxy", "socks5", "hook"})
_MAPPINGS: Final = frozenset({"mapping", "mapping_udp"})

SERIES: Final = (
    ("cx_total", "cx_total", "counter", "Connections accepted."),
    ("cx_active", "cx_active", "gauge", "Connections open now."),
    ("cx_failed", "cx_failed", "counter", "Connections that did not reach their destination."),
    ("tx_bytes_total", "octets_to_client", "counter", "Octets sent to the client's side."),
    ("rx_bytes_total", "octets_from_client", "counter", "Octets received from the client's side."),
)
"""Name, attribute of an `EntryMeter`, Prometheus type and meaning of each series.

Names are said towards the client, as in TNG 2.12.
"""


@dataclass(slots=True, eq=False)
class EntryMeter:
    """Counts of one entry of `add_ingress` or `add_egress`.

    One thread writes; any thread may read, and sees each number whole.

    Attributes:
        labels: label names and values, as `entry_labels` makes them.
        cx_total: connections accepted.
        cx_active: connections open now.
        cx_failed: connections that did not reach their destination.
        octets_from_client: what came from the client's side.
        octets_to_client: what was sent to the client's side.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    cx_total: int = 0
    cx_active: int = 0
    cx_failed: int = 0
    octets_from_client: int = 0
    octets_to_client: int = 0


def entry_labels(
    side: Side,
    mode: str,
    entry_id: int,
    *,
    listen: Endpoint | None = None,
    target: Endpoint | None = None,
) -> dict[str, str]:
    """Labels of one entry, as TNG 2.12 names them.

    Args:
        side: "ingress" or "egress".
        mode: the entry's mode, e.g. "mapping".
        entry_id: position in the configuration's list, from 0.
        listen: where the entry listens; for a mapping its `in`.
        target: a mapping's `out`.
    """
    labels = {f"{side}_type": mode, f"{side}_id": str(entry_id)}
    if mode in _MAPPINGS or (side == "egress" and mode == "hook"):
        if listen is not None:
            labels[f"{side}_in"] = str(listen)
        if target is not None:
            labels[f"{side}_out"] = str(target)
    elif listen is not None and mode in _PROXIES:
        labels[f"{side}_proxy_listen"] = str(listen)
    elif listen is not None:
        labels[f"{side}_listen_port"] = str(listen.port)
    return labels


def render_prometheus(meters: Iterable[EntryMeter]) -> str:
    """The exposition text of `meters`, with `tng_live` and `tng_build_info` in front."""
    known = list(meters)
    lines = [
        "# HELP tng_live The process runs.",
        "# TYPE tng_live gauge",
        "tng_live 1",
        "# HELP tng_build_info Version of this gateway.",
        "# TYPE tng_build_info gauge",
        f"tng_build_info{_label_text({'version': __version__})} 1",
    ]
    for name, attribute, kind, meaning in SERIES:
        lines += [f"# HELP tng_{name} {meaning}", f"# TYPE tng_{name} {kind}"]
        lines += [
            f"tng_{name}{_label_text(meter.labels)} {getattr(meter, attribute)}" for meter in known
        ]
    return "\n".join(lines) + "\n"


def _label_text(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
