"""The choice between a gateway that sends its numbers away, and one that does not.

The configuration's `metric` in, a `Reporter` out, nothing connected yet; None where it names no
exporter, so that HTTP and gRPC clients are loaded where there is something to send.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tng import __version__
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.clock import Clock
    from tng.config.control import MetricExporter
    from tng.config.model import TngConfig
    from tng.gateway.exporters.base import Exporter
    from tng.gateway.exporters.reporter import Reporter
    from tng.gateway.watched import Watched

USER_AGENT: Final = f"tng/{__version__}"
"""What servers see of us."""

FALCON_ATTEMPTS: Final = 5
"""How often Open-Falcon is asked to take one report, as TNG 2.12 does."""

_JSON: Final = "application/json"
_WHERE: Final = "metric.exporters[0]"


def make_reporter(config: TngConfig, watched: Watched, clock: Clock) -> Reporter | None:
    """What reports the numbers of `watched`.

    Args:
        config: names the exporter.
        watched: whose entries have the numbers.
        clock: the time of day.

    Raises:
        ConfigError: what the exporter needs is not installed, or a header has no place in gRPC.
    """
    if config.metric is None or not config.metric.exporters:
        return None
    from tng.gateway.exporters.reporter import Reporter

    (section,) = config.metric.exporters
    return Reporter(watched, make_exporter(section), section.step, clock)


def make_exporter(section: MetricExporter) -> Exporter:
    """The exporter that a section describes.

    Raises:
        ConfigError: see `make_reporter`.
    """
    match section.type, section.protocol:
        case "stdout", _:
            from tng.gateway.exporters.log_lines import LogExporter

            return LogExporter()
        case "falcon", _:
            return _falcon(section)
        case _, "grpc":
            return _over_grpc(section)
        case _:
            return _over_http(section)


def _falcon(section: MetricExporter) -> Exporter:
    from tng.gateway.exporters.over_http import Destination, HttpExporter
    from tng.observe import falcon

    dump = functools.partial(
        falcon.dump_push,
        endpoint=section.endpoint or "",
        tags=section.tags,
        step=section.step,
    )
    url = f"{section.server_url or ''}".rstrip("/") + falcon.PATH
    return HttpExporter(Destination(url, _JSON, dump, FALCON_ATTEMPTS), user_agent=USER_AGENT)


def _over_http(section: MetricExporter) -> Exporter:
    from tng.gateway.exporters.over_http import Destination, HttpExporter
    from tng.observe import otlp

    url = section.endpoint or ""
    if urlsplit(url).path in {"", "/"} and "?" not in url:
        url = url.rstrip("/") + otlp.PATH
    headers = {name.lower(): value.reveal() for name, value in section.headers.items()}
    kind, dump = _JSON, otlp.dump_json
    if section.protocol == "http/protobuf":
        kind, dump = "application/x-protobuf", otlp.dump_protobuf
    return HttpExporter(Destination(url, kind, dump, headers=headers), user_agent=USER_AGENT)


def _over_grpc(section: MetricExporter) -> Exporter:
    if importlib.util.find_spec("grpc") is None:
        raise ConfigError(
            [f"{_WHERE}.protocol: grpc needs the extra: pip install 'tng-gateway[grpc]'"]
        )
    from tng.attest.appraiser.trustee_grpc import parse_metadata
    from tng.gateway.exporters.over_grpc import GrpcExporter

    headers = {name: value.reveal() for name, value in section.headers.items()}
    metadata = parse_metadata(headers, f"{_WHERE}.headers")
    return GrpcExporter(section.endpoint or "", metadata, user_agent=USER_AGENT)
