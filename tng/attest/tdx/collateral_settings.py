"""Where collateral of real platforms comes from, as the operator's surroundings say it.

Environment variables and the text of `/etc/sgx_default_qcnl.conf` in, `CollateralSettings` out.
The caller reads both: only the command line looks at the environment.  Source: the order is the
reference's, `PCCS_URLS`, `PCCS_URL`, then `pccs_url` of that file; without any of them Intel's own
service is asked.  Of our own: `TNG_COLLATERAL_CACHE` and `TNG_COLLATERAL_BUNDLE`, two folders.

Invariant: every URL is one of http or https; an unusable setting is an error, never left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tng.attest.tdx.collateral import INTEL_PCS_URL
from tng.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_URLS: Final = 8
"""Services that are asked in turn; each may take seconds of one judgement."""

_QCNL_URL: Final = re.compile(
    r'(?:^|[{,])\s*"?pccs_url"?\s*[:=]\s*"?([^"\s,]+)', re.IGNORECASE | re.MULTILINE
)
"""The one setting that counts, in both forms of the file: JSON with comments, and KEY=VALUE."""


@dataclass(frozen=True, slots=True)
class CollateralSettings:
    """Where collateral comes from.

    Attributes:
        urls: base addresses of services, in the order in which they are asked.
        cache: folder in which fetched collateral is kept; None to keep it in memory alone.
        bundle: folder that takes the place of all services; None to ask them.
    """

    urls: tuple[str, ...] = (INTEL_PCS_URL,)
    cache: Path | None = None
    bundle: Path | None = None


def collateral_settings(environment: Mapping[str, str], qcnl: str = "") -> CollateralSettings:
    """The settings that hold here.

    Args:
        environment: variables by name.
        qcnl: text of `/etc/sgx_default_qcnl.conf`; empty without one.

    Raises:
        ConfigError: a URL of another scheme, too many of them, or a bundle that is no folder.
    """
    urls = _urls(environment, qcnl)
    cache, bundle = (
        Path(value) if (value := environment.get(name)) else None
        for name in ("TNG_COLLATERAL_CACHE", "TNG_COLLATERAL_BUNDLE")
    )
    if bundle is not None and not bundle.is_dir():
        raise ConfigError([f"TNG_COLLATERAL_BUNDLE: expected a folder, got {str(bundle)!r}"])
    return CollateralSettings(urls, cache, bundle)


def shown(url: str) -> str:
    """A URL for messages: without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _urls(environment: Mapping[str, str], qcnl: str) -> tuple[str, ...]:
    for name in ("PCCS_URLS", "PCCS_URL"):
        if environment.get(name):
            return _checked(re.split(r"[\s,;]+", environment[name].strip()), name)
    found = _QCNL_URL.search(qcnl)
    return _checked([found[1]], "pccs_url") if found else (INTEL_PCS_URL,)


def _checked(urls: list[str], where: str) -> tuple[str, ...]:
    problems = [
        f"{where}: expected http or https URLs, got {u!r:.200}" for u in urls if not _is_url(u)
    ]
    if len(urls) > MAX_URLS:
        problems.append(f"{where}: expected at most {MAX_URLS} URLs, got {len(urls)}")
    if problems:
        raise ConfigError(problems)
    return tuple(urls)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
