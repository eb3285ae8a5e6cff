"""What this side shows of itself: the object `attest`.

Source: TNG 2.12.  The tags `model`, `aa_provider` and `aa_type` decide which other keys go with
them; absent tags have the reference's defaults.  Extensions: `aa_type` "tsm" (the kernel's own
interface, no agent) and "simulated" (a TDX platform in software, for development).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import Field

from tng.config.secret import Secret
from tng.config.strict import Fault, Keys, StrictModel, variant_faults, written_keys
from tng.config.string_maps import Headers
from tng.config.values import Name, Path, UnixAddress, Url, Whole

_MAX_POLICIES: Final = 64  # policies that one token names
_YEAR: Final = 31_536_000  # seconds; evidence older than that is none
_PASSPORT_KEYS: Final = (
    "as_provider",
    "as_type",
    "as_addr",
    "as_headers",
    "policy_ids",
    "api_key",
)
_ATTESTER_KEYS: Final = ("aa_type", "aa_addr", "asr_addr", "simulated_platform")
_TYPE_KEYS: Final = {
    "uds": Keys(required=("aa_addr",)),
    "builtin": Keys(),
    "tsm": Keys(),
    "simulated": Keys(required=("simulated_platform",)),
}

PolicyIds = Annotated[list[Name], Field(max_length=_MAX_POLICIES)]
"""Names of policies at the attestation service."""


class Attest(StrictModel):
    """Where own evidence comes from, and in the passport model who turns it into a token."""

    model: Literal["background_check", "passport"] = Field(
        default="background_check",
        description="`background_check`: the peer has the evidence judged; "
        "`passport`: this side has it judged and shows the token.",
    )
    aa_provider: Literal["coco", "coco_asr", "ita", "ita_asr"] = Field(
        default="coco",
        description="Who gives the evidence: an Attestation Agent (`coco`), an API server "
        "(`coco_asr`), or the same for Intel Trust Authority (`ita`, `ita_asr`).",
    )
    aa_type: Literal["uds", "builtin", "tsm", "simulated"] = Field(
        default="uds",
        description="How the agent is reached: `uds` a Unix socket, `builtin`; extensions: `tsm` "
        "the kernel's configfs, `simulated` a platform in software, not for production.",
    )
    aa_addr: UnixAddress | None = Field(
        default=None,
        description="Socket of the Attestation Agent, `unix:///...`; it may appear later.",
    )
    asr_addr: Url | None = Field(default=None, description="URL of the API server (`*_asr`).")
    simulated_platform: Path | None = Field(
        default=None,
        description="Directory of the simulated platform.",
        json_schema_extra={"x-tng-extension": True},
    )
    refresh_interval: Annotated[int, Whole(0, _YEAR, "seconds")] = Field(
        default=600, description="How often the evidence is renewed; 0: for every connection."
    )
    as_provider: Literal["coco", "ita"] = Field(
        default="coco", description="Passport: Trustee (`coco`) or Intel Trust Authority (`ita`)."
    )
    as_type: Literal["restful", "grpc", "builtin"] = Field(
        default="restful", description="Passport: how the attestation service is reached."
    )
    as_addr: Url | None = Field(
        default=None,
        description="Passport: URL of the attestation service; required with `coco`.",
    )
    as_headers: Headers = Field(
        default_factory=dict, description="Passport: headers of each request to the service."
    )
    policy_ids: PolicyIds = Field(
        default_factory=list, description="Passport: policies the service evaluates."
    )
    api_key: Secret | None = Field(
        default=None,
        description="Passport with `ita`: API key; `ITA_API_KEY` of the environment if absent.",
    )

    @property
    def aa_socket(self) -> str:
        """Path of the agent's socket; "" where no agent is asked."""
        return (self.aa_addr or "").removeprefix("unix://")

    @property
    def provider(self) -> str:
        """Whose service judges the evidence: "coco" or "ita"."""
        return self.aa_provider.removesuffix("_asr")

    def faults(self) -> Iterator[Fault]:
        """Only keys that go with the tags, and none of those missing."""
        yield from self._attester_faults()
        if self.model == "passport":
            yield from self._passport_faults()
        else:
            for name in _PASSPORT_KEYS:
                if name in written_keys(self):
                    yield Fault((name,), 'goes with "model": "passport" only')

    def _attester_faults(self) -> Iterator[Fault]:
        written = written_keys(self)
        over_http = self.aa_provider.endswith("_asr")
        if not over_http:
            others = (*(set(type(self).model_fields) - set(_ATTESTER_KEYS)), "asr_addr")
            yield from variant_faults(self, "aa_type", _TYPE_KEYS, common=others)
            if "asr_addr" in written:
                yield Fault(("asr_addr",), 'goes with "aa_provider": "coco_asr" or "ita_asr" only')
            if self.aa_provider == "ita" and self.aa_type in {"tsm", "simulated"}:
                yield Fault(("aa_type",), f'"{self.aa_type}" goes with "aa_provider": "coco" only')
            return
        if "asr_addr" not in written:
            yield Fault(("asr_addr",), f'required key is missing with "{self.aa_provider}"')
        for name in ("aa_addr", "simulated_platform"):
            if name in written:
                yield Fault((name,), f'does not go with "aa_provider": "{self.aa_provider}"')
        if self.aa_type != "uds":
            yield Fault(("aa_type",), f'does not go with "aa_provider": "{self.aa_provider}"')

    def _passport_faults(self) -> Iterator[Fault]:
        # Intel Trust Authority has one address that everybody uses.
        if self.as_addr is None and self.as_type != "builtin" and self.as_provider != "ita":
            yield Fault(("as_addr",), 'required key is missing with "model": "passport"')
        if self.as_provider == "ita" and self.as_type != "restful":
            yield Fault(("as_type",), 'does not go with "as_provider": "ita"')
        if self.as_provider == "ita" and "as_headers" in written_keys(self):
            yield Fault(("as_headers",), 'goes with "as_provider": "coco" only')
        if self.as_provider == "coco" and self.api_key is not None:
            yield Fault(("api_key",), 'goes with "as_provider": "ita" only')
        if self.as_headers and self.as_addr is None:
            yield Fault(("as_headers",), "'as_headers' cannot be set without 'as_addr'")
