"""From a section of the configuration to the client of the attestation service that it names.

In: an `attest` or a `verify` section.  Out: an `Appraiser`, nothing connected yet; None where the
section names no service.  The builtin service is not here: it is no client, and
`attest.verifier.factory` makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tng import __version__
from tng.attest.appraiser.ita import DEFAULT_API, ItaAppraiser
from tng.attest.appraiser.trustee_grpc import (
    TrusteeGrpcAppraiser,
    parse_address,
    parse_metadata,
)
from tng.attest.appraiser.trustee_rest import TrusteeRestAppraiser
from tng.errors import ConfigError

if TYPE_CHECKING:
    from tng.attest.appraiser.base import Appraiser
    from tng.config.model import Attest, Verify

USER_AGENT: Final = f"tng-gateway/{__version__}"
"""What attestation services see of us."""

_WANTS_KEY: Final = "trustauthority.intel.com"  # Intel's own service, in each of its regions


def make_appraiser(section: Attest | Verify, where: str) -> Appraiser | None:
    """The client for the service at `as_addr`; None without such an address.

    Args:
        section: what names the service.
        where: what people call the section: "attest" or "verify".

    Raises:
        ConfigError: this version does not know that kind of service, or the address does not fit
            the kind.
    """
    if section.as_addr is None:
        return None
    headers = {name: value.reveal() for name, value in section.as_headers.items()}
    match section.as_provider, section.as_type:
        case "coco", "restful":
            return TrusteeRestAppraiser(section.as_addr, headers, user_agent=USER_AGENT)
        case "coco", "grpc":
            address = parse_address(section.as_addr, f"{where}.as_addr")
            metadata = parse_metadata(headers, f"{where}.as_headers")
            return TrusteeGrpcAppraiser(address, metadata, user_agent=USER_AGENT)
        case provider, kind:
            raise ConfigError(
                [
                    f"{where}: expected as_provider coco with as_type restful or grpc, "
                    f"got {provider} with {kind}"
                ]
            )


def make_ita_appraiser(section: Attest | Verify, where: str) -> ItaAppraiser:
    """The client of Intel Trust Authority, at `as_addr` or at Intel's own address.

    Args:
        section: what names the service and the key.
        where: what people call the section: "attest" or "verify".

    Raises:
        ConfigError: there is no key for a service that is known to want one.
    """
    url = section.as_addr or DEFAULT_API
    host = (urlsplit(url).hostname or "").rstrip(".")
    # Whether a service at another address wants a key is for that service to say.
    if section.api_key is None and f".{host}".endswith(f".{_WANTS_KEY}"):
        raise ConfigError(
            [
                f"{where}.api_key: required key is missing: {host} answers nobody without one; "
                "set it here, or in ITA_API_KEY of the environment"
            ]
        )
    return ItaAppraiser(url, section.api_key, user_agent=USER_AGENT)
