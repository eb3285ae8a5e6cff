"""The choice between a gateway that captures traffic, and one that does not.

A configuration in, its `Captures` out; for one without a netfilter mode `NoCaptures`, so that
the modules which make rules are loaded where there are rules to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tng.config.model import Egress, Ingress, TngConfig
    from tng.gateway.netfilter.capturing import Captures, Listening


class NoCaptures:
    """Captures nothing: the methods of `Captures`, without anything to do."""

    own_mark: None = None
    """Connections of ours need no mark: nobody captures them."""

    def check(self) -> None:
        """See `Captures.check`: nothing has to be allowed."""

    def led_to(self, path: str, listener: Listening) -> None:
        """See `Captures.led_to`: no listener is prepared."""

    async def apply(self) -> None:
        """See `Captures.apply`."""
        await trio.lowlevel.checkpoint()

    async def remove(self) -> None:
        """See `Captures.remove`: there is nothing to wait for, not even when cancelled."""


def make_captures(config: TngConfig) -> Captures | NoCaptures:
    """What a gateway of this configuration captures.

    Raises:
        ConfigError: something in it cannot be captured.
    """
    entries: list[Ingress | Egress] = [*config.add_ingress, *config.add_egress]
    if all(entry.netfilter is None and entry.netfilter_udp is None for entry in entries):
        return NoCaptures()
    from tng.gateway.netfilter.capturing import Captures, captures_of

    return Captures(captures_of(config))
