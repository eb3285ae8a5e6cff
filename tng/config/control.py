"""How the gateway is watched: the objects `control_interface`, `metric` and `trace`.

Source: TNG 2.12 ("oltp" is the reference's spelling, and part of the format).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field

from tng.config.strict import Fault, Keys, StrictModel, variant_faults, variant_schema
from tng.config.string_maps import Headers, Tags
from tng.config.values import BindHost, Name, Path, Port, Url, Whole

_METRIC_KEYS: Final = {
    "stdout": Keys(optional=("step",)),
    "falcon": Keys(required=("server_url", "endpoint"), optional=("tags", "step")),
    "oltp": Keys(required=("protocol", "endpoint", "step"), optional=("headers",)),
}
_TRACE_KEYS: Final = {
    "stdout": Keys(),
    "oltp": Keys(required=("protocol", "endpoint"), optional=("headers",)),
}


def _endpoint_faults(endpoint: str) -> Iterator[Fault]:
    """Whether this is the address of a collector; it is not repeated, for a query may be secret."""
    try:
        parts = urlsplit(endpoint)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    else:
        if "@" in parts.netloc:
            yield Fault(
                ("endpoint",),
                "a URL with a user or a password in it ends in logs; use a header",
            )
    if not is_whole or not endpoint.isascii() or " " in endpoint or "#" in endpoint:
        yield Fault(
            ("endpoint",),
            "expected the URL of the collector: it must start with http:// or https://, and name "
            "a host",
        )


class Restful(StrictModel):
    """The control interface over HTTP: probes and status."""

    host: BindHost = Field(default="127.0.0.1", description="Address to listen on.")
    port: Port = Field(description="Port to listen on.")


class Ttrpc(StrictModel):
    """The control interface over ttrpc; it is read, and refused."""

    path: Path = Field(description="Path of the socket.")


class ControlInterface(StrictModel):
    """Where probes and status are served."""

    restful: Restful | None = Field(default=None, description="Over HTTP.")
    ttrpc: Ttrpc | None = Field(default=None, description="Refused: use `restful`.")

    def faults(self) -> Iterator[Fault]:
        """The one interface there is."""
        if self.ttrpc is not None:
            yield Fault(("ttrpc",), "the ttrpc control interface is not supported: use `restful`")
        elif self.restful is None:
            yield Fault((), "at least one control interface `restful` or `ttrpc` must be specified")


class MetricExporter(StrictModel):
    """Where numbers are sent."""

    model_config = ConfigDict(json_schema_extra=variant_schema("type", _METRIC_KEYS))

    type: Literal["stdout", "falcon", "oltp"] = Field(
        description="The log, Open-Falcon, or OpenTelemetry."
    )
    step: Annotated[int, Whole(1, 86_400, "seconds")] = Field(
        default=60, description="Time between two reports; required with `oltp`."
    )
    server_url: Url | None = Field(default=None, description="`falcon`: URL of the server.")
    endpoint: Name | None = Field(
        default=None,
        description="`falcon`: name of this machine; `oltp`: URL of the collector, "
        "with /v1/metrics added over HTTP where it has no path.",
    )
    tags: Tags = Field(default_factory=dict, description="`falcon`: further labels.")
    protocol: Literal["http/protobuf", "http/json", "grpc"] | None = Field(
        default=None, description="`oltp`: protocol of the collector."
    )
    headers: Headers = Field(default_factory=dict, description="`oltp`: headers of each request.")

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the type."""
        yield from variant_faults(self, "type", _METRIC_KEYS)
        if self.type == "oltp" and self.endpoint is not None:
            yield from _endpoint_faults(self.endpoint)
        for name, value in self.headers.items():
            text = value.reveal()
            if not text.isascii() or text != text.strip():
                yield Fault(
                    ("headers", name),
                    "expected printable ASCII that neither begins nor ends with a space",
                )


class Metric(StrictModel):
    """Numbers about traffic, sent at intervals."""

    exporters: Annotated[list[MetricExporter], Field(max_length=1)] = Field(
        description="At most one exporter."
    )


class TraceExporter(StrictModel):
    """Where traces are sent."""

    model_config = ConfigDict(json_schema_extra=variant_schema("type", _TRACE_KEYS))

    type: Literal["oltp", "stdout"] = Field(description="OpenTelemetry, or the log.")
    protocol: Literal["http/protobuf", "http/json", "grpc"] | None = Field(
        default=None, description="`oltp`: protocol of the collector."
    )
    endpoint: Name | None = Field(default=None, description="`oltp`: URL of the collector.")
    headers: Headers = Field(default_factory=dict, description="`oltp`: headers of each request.")

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the type."""
        yield from variant_faults(self, "type", _TRACE_KEYS)


class Trace(StrictModel):
    """Traces of connections."""

    exporters: Annotated[list[TraceExporter], Field(max_length=16)] = Field(
        description="The exporters."
    )
