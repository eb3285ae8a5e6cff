"""What is dangerous by the operator's wish: a sentence each, to be logged at start and shown.

In: a valid configuration.  Out: `path: sentence` lines.  Nothing here is an error.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterator
from typing import Final

from tng.config.attest import Attest
from tng.config.entry import DirectForward
from tng.config.model import TngConfig
from tng.config.ohttp import EgressOhttp, OhttpKey
from tng.config.problems import dump_path
from tng.config.strict import StrictModel
from tng.config.verify import AttestationPolicy, Verify
from tng.config.walk import Path, walk

_PROBES: Final = ("/", "/v1/completions", "/~none/of.these?")
"""Paths that have nothing in common but the slash: a pattern found in all is found in any."""


def dangers(config: TngConfig) -> list[str]:
    """Dangerous settings of the configuration, one line each."""
    return [
        f"{dump_path((*path, *below))}: {sentence}"
        for path, model in walk(config)
        for below, sentence in _dangers_of(model)
    ]


def _dangers_of(model: StrictModel) -> Iterator[tuple[Path, str]]:
    if getattr(model, "no_ra", False) is True:
        kind = "key exchange with peers" if isinstance(model, OhttpKey) else "tunnel"
        yield (
            ("no_ra",),
            f"this {kind} has no remote attestation and trusts anybody; not for production",
        )
    match model:
        case Verify():
            yield from _verify_dangers(model)
        case Attest(aa_type="simulated"):
            yield ("aa_type",), "evidence comes from a simulated platform; not for production"
        case AttestationPolicy(type="trust_all"):
            yield ("type",), "the policy trust_all accepts any evidence; not for production"
        case DirectForward() if _matches_everything(model.http_path):
            yield ("http_path",), "every plain request is passed on without a tunnel"
        case EgressOhttp():
            for number, pattern in enumerate(model.allow_non_tng_traffic_regexes or ()):
                if _matches_everything(pattern):
                    at = ("allow_non_tng_traffic_regexes", number)
                    yield at, "every plain request is passed on without a tunnel"
        case TngConfig() if model.admin_bind is not None:
            yield ("admin_bind",), "is ignored; use control_interface"


def _verify_dangers(verify: Verify) -> Iterator[tuple[Path, str]]:
    if verify.skip_as_token_cert_verify:
        yield (
            ("skip_as_token_cert_verify",),
            "a token is accepted whoever signed it; not for production",
        )
    if verify.allow_simulated:
        yield (
            ("allow_simulated",),
            "evidence of a simulated platform is accepted; not for production",
        )
    url = verify.as_addr
    if url is not None and not verify.trusted_certs_paths and _is_plain_remote(url):
        yield (
            ("as_addr",),
            "the certificate that tokens are checked against comes over plain http, where "
            "anybody on the way can replace it; use https, or name it in trusted_certs_paths",
        )


def _is_plain_remote(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    try:
        local = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = parts.hostname == "localhost"
    return parts.scheme == "http" and not local


def _matches_everything(pattern: str) -> bool:
    import re2  # here, because only patterns need it and it is slow to load

    compiled = re2.compile(pattern)
    return all(compiled.search(path) is not None for path in _PROBES)
