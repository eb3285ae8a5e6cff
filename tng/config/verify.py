"""What this side demands of its peer: the object `verify`.

Source: TNG 2.12.  The tags `model`, `as_provider` and `as_type` decide which other keys go with
them; absent tags have the reference's defaults.  Extensions: `allow_simulated`,
`simulated_platform` and `trusted_keys_paths`.
Invariant: a token is checked against something that the operator named, or a `skip_...` says not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from tng.config.attest import PolicyIds
from tng.config.secret import Secret
from tng.config.strict import Fault, Keys, StrictModel, variant_faults, variant_schema, written_keys
from tng.config.string_maps import Headers
from tng.config.values import Flag, Path, Url

_MAX_FILES: Final = 64  # certificates, or sets of reference values, of one service
_MAX_KEYS: Final = 16  # public keys of one set; each is tried on each signature
_BUILTIN_KEYS: Final = ("attestation_policy", "reference_values", "simulated_platform")
_ITA_KEYS: Final = ("ita_jwks_addr", "api_key")
_COCO_KEYS: Final = (
    "as_headers",
    "trusted_certs_paths",
    "verify_signer_transparency",
    "skip_as_token_cert_verify",
)
_POLICY_KEYS: Final = {
    "default": Keys(),
    "hardware_only": Keys(),
    "hardware_only_strict": Keys(),
    "hardware_with_reference_values": Keys(),
    "hardware_strict_with_reference_values": Keys(),
    "hardware_strict_with_measurements": Keys(),
    "trust_all": Keys(),
    "transparency_log": Keys(required=("services",)),
    "inline": Keys(required=("content",)),
    "path": Keys(required=("path",)),
}
_PAYLOAD_KEYS: Final = {"inline": Keys(required=("content",)), "path": Keys(required=("path",))}


class AttestationPolicy(StrictModel):
    """Policy of the builtin attestation service."""

    model_config = ConfigDict(json_schema_extra=variant_schema("type", _POLICY_KEYS))

    type: Literal[
        "default",
        "hardware_only",
        "hardware_only_strict",
        "hardware_with_reference_values",
        "hardware_strict_with_reference_values",
        "hardware_strict_with_measurements",
        "trust_all",
        "transparency_log",
        "inline",
        "path",
    ] = Field(description="A policy that is built in, or where its text is.")
    content: object | None = Field(
        default=None, description="`inline`: the text of the policy, base64."
    )
    path: Path | None = Field(default=None, description="`path`: file with the text of the policy.")
    services: object | None = Field(
        default=None, description="`transparency_log`: the services to ask."
    )

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the type."""
        yield from variant_faults(self, "type", _POLICY_KEYS)


class ReferencePayload(StrictModel):
    """Reference values, or where they are."""

    model_config = ConfigDict(json_schema_extra=variant_schema("type", _PAYLOAD_KEYS))

    type: Literal["inline", "path"] = Field(description="Where the values are.")
    content: object | None = Field(default=None, description="`inline`: the values.")
    path: Path | None = Field(default=None, description="`path`: file with the values.")

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the type."""
        yield from variant_faults(self, "type", _PAYLOAD_KEYS)


class ReferenceValues(StrictModel):
    """One set of reference values of the builtin attestation service."""

    type: Literal["sample", "slsa", "release_manifest"] = Field(description="Form of the values.")
    payload: ReferencePayload = Field(description="The values.")
    trusted_keys_paths: Annotated[list[Path], Field(max_length=_MAX_KEYS)] = Field(
        default_factory=list,
        description="`slsa`, `release_manifest`: PEM files, a public key each; one of them must "
        "have signed each envelope.",
        json_schema_extra={"x-tng-extension": True},
    )

    def faults(self) -> Iterator[Fault]:
        """Keys only where something is signed."""
        if self.type == "sample" and "trusted_keys_paths" in written_keys(self):
            yield Fault(
                ("trusted_keys_paths",), 'goes with "type": "slsa" or "release_manifest" only'
            )


class Verify(StrictModel):
    """Who judges the peer's evidence, and what its verdict must say."""

    model: Literal["background_check", "passport"] = Field(
        default="background_check",
        description="`background_check`: this side has the peer's evidence judged; "
        "`passport`: the peer shows a token.",
    )
    as_provider: Literal["coco", "ita"] = Field(
        default="coco", description="Trustee (`coco`) or Intel Trust Authority (`ita`)."
    )
    as_type: Literal["restful", "grpc", "builtin"] = Field(
        default="restful", description="How the attestation service is reached."
    )
    as_addr: Url | None = Field(
        default=None, description="URL of the attestation service; paths are appended to it."
    )
    as_headers: Headers = Field(
        default_factory=dict, description="Headers of each request to the attestation service."
    )
    policy_ids: PolicyIds = Field(
        default_factory=list,
        description="Policies that the token must name.  Required with `coco`, unless `builtin`.",
    )
    trusted_certs_paths: Annotated[list[Path], Field(max_length=_MAX_FILES)] = Field(
        default_factory=list,
        description="PEM files; the token's certificate chain must lead to one of them.  "
        "Absent: to the certificates that `as_addr` serves.",
    )
    verify_signer_transparency: Flag = Field(
        default=False, description="Whether the token's signer must be found in a transparency log."
    )
    skip_as_token_cert_verify: Flag = Field(
        default=False,
        description="Whether any signer of the token is accepted.  Not for production.",
    )
    attestation_policy: AttestationPolicy | None = Field(
        default=None, description="`builtin`: the policy; absent: `hardware_only`."
    )
    reference_values: Annotated[list[ReferenceValues], Field(max_length=_MAX_FILES)] | None = Field(
        default=None, description="`builtin`: reference values for the policy."
    )
    simulated_platform: Path | None = Field(
        default=None,
        description="`builtin`: directory of a simulated platform whose evidence is judged under "
        "its own root; accepted with `allow_simulated` only.",
        json_schema_extra={"x-tng-extension": True},
    )
    ita_jwks_addr: Url | None = Field(
        default=None, description="`ita`: URL of the portal with the keys."
    )
    api_key: Secret | None = Field(
        default=None, description="`ita`: API key; `ITA_API_KEY` of the environment if absent."
    )
    allow_simulated: Flag = Field(
        default=False,
        description="Whether evidence of a simulated platform is accepted.  Not for production.",
        json_schema_extra={"x-tng-extension": True},
    )

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the tags, none of those missing, and trust from somewhere."""
        if self.as_headers and self.as_addr is None:
            yield Fault(("as_headers",), "'as_headers' cannot be set without 'as_addr'")
        if self.as_provider == "ita":
            yield from self._only((*_BUILTIN_KEYS, *_COCO_KEYS), '"as_provider": "coco"')
            if self.as_type != "restful":
                yield Fault(("as_type",), 'does not go with "as_provider": "ita"')
        else:
            yield from self._only(_ITA_KEYS, '"as_provider": "ita"')
            if self.as_type == "builtin":
                yield from self._builtin_faults()
            else:
                yield from self._only(_BUILTIN_KEYS, '"as_type": "builtin"')
                yield from self._remote_faults()

    def _only(self, names: tuple[str, ...], partner: str) -> Iterator[Fault]:
        for name in names:
            if name in written_keys(self):
                yield Fault((name,), f"goes with {partner} only")

    def _builtin_faults(self) -> Iterator[Fault]:
        if self.model == "passport":
            yield Fault(("as_type",), "a builtin attestation service cannot verify a passport")
        for name in ("as_addr", *_COCO_KEYS):
            if name in written_keys(self):
                yield Fault((name,), 'does not go with "as_type": "builtin"')

    def _remote_faults(self) -> Iterator[Fault]:
        if not self.policy_ids:
            yield Fault(("policy_ids",), "required key is missing: at least one policy id")
        if self.skip_as_token_cert_verify and self.trusted_certs_paths:
            yield Fault(
                ("trusted_certs_paths",),
                "'trusted_certs_paths' cannot be set when 'skip_as_token_cert_verify' is true",
            )
        if self.model == "background_check":
            if self.as_addr is None:
                yield Fault(("as_addr",), "required key is missing: URL of the attestation service")
        elif self.skip_as_token_cert_verify:
            if self.as_addr is not None:
                yield Fault(
                    ("as_addr",),
                    "'as_addr' cannot be set in Passport mode when "
                    "'skip_as_token_cert_verify' is true",
                )
        elif self.as_addr is None and not self.trusted_certs_paths:
            yield Fault(
                (),
                "at least one of 'as_addr' or 'trusted_certs_paths' must be set "
                "to verify attestation token",
            )
