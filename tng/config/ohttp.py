"""Oblivious HTTP as the transport: the object `ohttp` of an ingress and of an egress.

Source: TNG 2.12, `ohttp` (older names: `encap_in_http`, `decap_from_http`), and RFC 9458.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tng.config.attest import Attest
from tng.config.strict import Fault, Keys, StrictModel, variant_faults, variant_schema
from tng.config.trust import trust_faults
from tng.config.values import (
    BindHost,
    Flag,
    HeaderName,
    Name,
    Path,
    Port,
    Regex,
    Template,
    Whole,
    expected,
)
from tng.config.verify import Verify

_MAX_ITEMS: Final = 256  # rewrites, headers, origins, peers: each is tried for every request
_KEY_SETTINGS: Final = (
    "rotation_interval",
    "host",
    "port",
    "peers",
    "peers_file",
    "attest",
    "verify",
    "no_ra",
    "join_timeout",
    "preboot_timeout",
)
_KEY_KEYS: Final = {
    "self_generated": Keys(required=("rotation_interval",)),
    "file": Keys(required=("path",)),
    "directory": Keys(required=("path",)),
    "peer_shared": Keys(required=_KEY_SETTINGS[:1], optional=_KEY_SETTINGS[1:]),
}

_Patterns = Annotated[list[Regex], Field(max_length=_MAX_ITEMS)]
_Names = Annotated[list[Name], Field(max_length=_MAX_ITEMS)]


@dataclass(frozen=True, slots=True)
class _HeaderNames:
    """A list of header names, or the word "all"."""

    what: str = 'a list of header names, or "all"'

    def __get_pydantic_core_schema__(self, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        names = handler(list[HeaderName])

        def read(value: object, inner: core_schema.ValidatorFunctionWrapHandler) -> object:
            if value == "all":
                return value
            if not isinstance(value, list) or len(value) > _MAX_ITEMS:
                raise expected(self.what)
            return inner(value)

        return core_schema.no_info_wrap_validator_function(read, names)

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        names = {"type": "array", "items": {"type": "string"}, "maxItems": _MAX_ITEMS}
        return {"anyOf": [{"const": "all"}, names]}


HeaderNames = Annotated[list[str] | Literal["all"], _HeaderNames()]
"""Names of headers to copy, or all."""


class HeaderPassthrough(StrictModel):
    """Headers copied between the inner message and the outer one, which intermediaries see."""

    request_headers: HeaderNames = Field(
        default_factory=list, description="Headers of the request: a list of names, or `all`."
    )
    response_headers: HeaderNames = Field(
        default_factory=list, description="Headers of the response: a list of names, or `all`."
    )


class PathRewrite(StrictModel):
    """How the outer path follows from the inner one."""

    match_regex: Regex = Field(description="Pattern that must match the whole path.")
    substitution: Template = Field(description="The outer path; `$1` stands for a group.")


class IngressOhttp(StrictModel):
    """OHTTP at the ingress."""

    path_rewrites: Annotated[list[PathRewrite], Field(max_length=_MAX_ITEMS)] = Field(
        default_factory=list, description="Rules for the outer path; the first match counts."
    )
    path_default: Literal["root", "original"] = Field(
        default="root", description="Outer path when no rule matches: `/`, or the inner path."
    )
    header_passthrough: HeaderPassthrough | None = Field(
        default=None, description="Headers to show on the outside; absent: none."
    )
    tls: Flag = Field(default=False, description="Whether the outer connection is HTTPS.")
    tls_ca_certs: Annotated[list[Path], Field(max_length=_MAX_ITEMS)] = Field(
        default_factory=list, description="PEM files of further certificate authorities."
    )


class Cors(StrictModel):
    """Answers to browsers of other origins."""

    allow_origins: _Names = Field(default_factory=list, description="Origins, or `*`.")
    allow_methods: _Names = Field(default_factory=list, description="Methods, or `*`.")
    allow_headers: _Names = Field(default_factory=list, description="Request headers, or `*`.")
    expose_headers: _Names = Field(default_factory=list, description="Response headers, or `*`.")
    allow_credentials: Flag = Field(default=False, description="Whether cookies may be sent.")


class OhttpKey(StrictModel):
    """Where the egress's HPKE key comes from."""

    model_config = ConfigDict(json_schema_extra=variant_schema("source", _KEY_KEYS))

    source: Literal["self_generated", "file", "directory", "peer_shared"] = Field(
        description="Made here, read from a file or from a directory that another process keeps, "
        "or shared with other egresses."
    )
    rotation_interval: Annotated[int, Whole(1, 31_536_000, "seconds")] | None = Field(
        default=None, description="`self_generated`, `peer_shared`: age at which a key is replaced."
    )
    path: Path | None = Field(
        default=None,
        description="`file`: PKCS#8 PEM file with an X25519 key. `directory`: folder with "
        "`current`, `next` and `expired`, as `tng tools key-sync` of TNG 2.12 writes it. "
        "Both are looked at every second.",
    )
    host: BindHost = Field(
        default="0.0.0.0",  # noqa: S104 - as TNG
        description="`peer_shared`: address to listen on for peers.",
    )
    port: Port = Field(default=8301, description="`peer_shared`: port to listen on for peers.")
    peers: _Names = Field(
        default_factory=list, description="`peer_shared`: peers, `host:port` each."
    )
    peers_file: Path | None = Field(
        default=None, description="`peer_shared`: JSON file with a list of peers; it is watched."
    )
    attest: Attest | None = Field(default=None, description="`peer_shared`: what this node shows.")
    verify: Verify | None = Field(default=None, description="`peer_shared`: what peers must show.")
    no_ra: Flag = Field(default=False, description="`peer_shared`: no remote attestation of peers.")
    join_timeout: Annotated[int, Whole(1, 86_400, "seconds")] = Field(
        default=300, description="`peer_shared`: how long joining may take."
    )
    preboot_timeout: Annotated[int, Whole(1, 86_400, "seconds")] | None = Field(
        default=None, description="`peer_shared`: how long to wait for existing keys."
    )

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the source; peers are attested, or it is said that not."""
        yield from variant_faults(self, "source", _KEY_KEYS)
        if self.source == "peer_shared":
            yield from trust_faults(
                no_ra=self.no_ra,
                attest=self.attest is not None,
                verify=self.verify is not None,
                where="key",
            )
            yield from self._one_sided()

    def _one_sided(self) -> Iterator[Fault]:
        """Private keys go both ways: nobody unjudged may get ours, or give us theirs."""
        for name, other in (("attest", "verify"), ("verify", "attest")):
            if getattr(self, name) is None and getattr(self, other) is not None:
                yield Fault(
                    (name,),
                    f"required beside `{other}`: peers exchange private keys, so each shows what "
                    "it is and judges the others",
                )


class EgressOhttp(StrictModel):
    """OHTTP at the egress."""

    allow_non_tng_traffic_regexes: _Patterns | None = Field(
        default=None, description="Deprecated; see `direct_forward`."
    )
    cors: Cors | None = Field(default=None, description="Answers to browsers of other origins.")
    key: OhttpKey | None = Field(
        default=None, description="Where the key comes from; absent: made here, for 300 seconds."
    )
    header_passthrough: HeaderPassthrough | None = Field(
        default=None, description="Headers to copy between outside and inside; absent: none."
    )
    forward_client_ip: Flag = Field(
        default=True, description="Whether the service is told the client's address (`x-real-ip`)."
    )
