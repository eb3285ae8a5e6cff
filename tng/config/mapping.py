"""Fixed ports: the modes `mapping` and `mapping_udp`.

In: `{"in": ..., "out": ...}` or `{"rules": [...]}`.  Out: rules, each a range of listening ports
and a range of target ports of the same size.
Source: TNG 2.12, mapping; here a listener may also be IPv6, and a target may be a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tng.config.strict import Fault, StrictModel
from tng.config.values import BindHost, Host, Port, Whole, expected
from tng.endpoint import Endpoint

MAX_PORTS: Final = 4096
"""Listening ports of one configuration: each is a socket, and file descriptors are few."""


class PortRange(StrictModel):
    """Where a mapping listens: one port, or `port` to `port_end`."""

    host: BindHost = Field(default="0.0.0.0", description="Address to listen on.")  # noqa: S104 - as TNG
    port: Port = Field(description="Port, or the first port of the range.")
    port_end: Port | None = Field(default=None, description="Last port of the range, inclusive.")

    @property
    def size(self) -> int:
        """Number of ports."""
        return (self.port_end or self.port) - self.port + 1

    def faults(self) -> Iterator[Fault]:
        """The range goes upwards."""
        yield from _upwards(self)


class TargetRange(StrictModel):
    """Where a mapping leads: one port, or `port` to `port_end`."""

    host: Host | None = Field(
        default=None, description="Host to connect to: an address or a name.  Required."
    )
    port: Port = Field(description="Port, or the first port of the range.")
    port_end: Port | None = Field(default=None, description="Last port of the range, inclusive.")

    @property
    def size(self) -> int:
        """Number of ports."""
        return (self.port_end or self.port) - self.port + 1

    def faults(self) -> Iterator[Fault]:
        """The range goes upwards, and leads somewhere."""
        yield from _upwards(self)
        if self.host is None:
            yield Fault(("host",), "out.host is required: the host to connect to")


def _upwards(ports: PortRange | TargetRange) -> Iterator[Fault]:
    if ports.port_end is not None and ports.port_end < ports.port:
        yield Fault(("port_end",), f"port_end ({ports.port_end}) must be >= port ({ports.port})")


class MappingRule(StrictModel):
    """One range of listening ports and the targets they lead to, port by port."""

    listen: PortRange = Field(alias="in", description="Where to listen.")
    target: TargetRange = Field(alias="out", description="Where to connect.")

    def faults(self) -> Iterator[Fault]:
        """Both ranges have the same size."""
        if self.listen.size != self.target.size:
            yield Fault(
                ("in", "port_end"),
                f"in port range size ({self.listen.size}) != "
                f"out port range size ({self.target.size}); give both a port_end",
            )

    def pairs(self) -> list[tuple[Endpoint, Endpoint]]:
        """(listen, target) of every port of the range, in order."""
        host = self.target.host or ""
        return [
            (
                Endpoint(self.listen.host, self.listen.port + step),
                Endpoint(host, self.target.port + step),
            )
            for step in range(self.listen.size)
        ]


class Mapping(StrictModel):
    """Mode `mapping`: TCP ports that lead to fixed targets."""

    rules: Annotated[list[MappingRule], Field(min_length=1, max_length=MAX_PORTS)] = Field(
        description="The rules; one alone may be written as `in` and `out` without `rules`."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_single_rule(cls, data: object) -> object:
        if not isinstance(data, dict) or not data.keys() & {"in", "out"}:
            return data
        if "rules" in data:
            raise expected("either `rules`, or `in` and `out`", "both are there")
        rule = {key: value for key, value in data.items() if key in {"in", "out"}}
        return {key: value for key, value in data.items() if key not in rule} | {"rules": [rule]}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """JSON Schema: with `rules`, or one rule by itself."""
        many = handler(schema)
        resolved = handler.resolve_ref_schema(many)
        rule = resolved["properties"]["rules"]["items"]
        written = {key: value for key, value in resolved.items() if key != "description"}
        description = resolved.get("description", "")
        resolved.clear()
        resolved.update({"description": description, "anyOf": [written, rule]})
        return many


class MappingUdp(StrictModel):
    """Mode `mapping_udp`: one UDP port that leads to a fixed target over QUIC."""

    listen: PortRange = Field(alias="in", description="Where to listen.")
    target: TargetRange = Field(alias="out", description="Where to send.")
    idle_timeout_secs: Annotated[int, Whole(1, 86_400, "seconds")] = Field(
        default=30, description="A session without datagrams for so long is closed."
    )

    def faults(self) -> Iterator[Fault]:
        """Ranges are for TCP."""
        for name, ports in (("in", self.listen), ("out", self.target)):
            if ports.port_end is not None:
                yield Fault((name, "port_end"), "mapping_udp takes one port, not a range")
