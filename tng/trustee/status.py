"""`GET /status`: what the service depends on, and how that stands.

Form: the Trustee attestation service 1.9, `{"service", "status", "dependencies"}`; the member
`dangers` (one sentence for each switch that weakens the service) is our extension.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EXPIRES_SOON_S: Final = 30 * 86_400
"""Seconds before the signer's end from which the service calls itself degraded."""


class Health(enum.StrEnum):
    """How something stands, best first."""

    OK = "ok"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


_ORDER: Final = tuple(Health)


@dataclass(frozen=True, slots=True)
class Dependency:
    """One thing that the service needs.

    Attributes:
        kind: "signer", "collateral", "platform".
        name: which one.
        status: how it stands.
        message: one sentence.
    """

    kind: str
    name: str
    status: Health
    message: str

    def as_json(self) -> dict[str, object]:
        """As the list of dependencies carries it."""
        return {
            "kind": self.kind,
            "name": self.name,
            "status": self.status.value,
            "message": self.message,
            "details": None,
        }


def signer_dependency(not_after: float, now: float) -> Dependency:
    """The token signer, by the time its certificate has left.

    Args:
        not_after: Unix time of its end, seconds.
        now: Unix time, seconds.
    """
    if now >= not_after:
        return Dependency("signer", "es256", Health.UNHEALTHY, "certificate expired: restart")
    if now >= not_after - EXPIRES_SOON_S:
        return Dependency("signer", "es256", Health.DEGRADED, "certificate expires soon: restart")
    return Dependency("signer", "es256", Health.OK, "certificate valid")


def collateral_dependency(url: str, last_error: str | None) -> Dependency:
    """The PCCS, by what came of the last fetch.

    Args:
        url: its address.
        last_error: see `CachedCollateral.last_error`.
    """
    if last_error:
        return Dependency("collateral", url, Health.DEGRADED, last_error[:500])
    message = "not asked yet" if last_error is None else "answered"
    return Dependency("collateral", url, Health.OK, message)


def status_body(dependencies: Sequence[Dependency], dangers: Sequence[str]) -> dict[str, object]:
    """Body of the answer.

    Args:
        dependencies: at least one.
        dangers: switches that weaken the service, one sentence each.
    """
    worst = max((item.status for item in dependencies), key=_ORDER.index)
    return {
        "service": "attestation-service",
        "status": worst.value,
        "dependencies": [item.as_json() for item in dependencies],
        "dangers": list(dangers),
    }
