"""From the netfilter entries of a configuration to traffic that arrives, and back to none.

In: a configuration; the listeners that captured traffic is led to.  Out: rules and routes, there
from `apply` to `remove`.

Rules are there exactly as long as somebody stands behind them.  They come when the listeners
listen, and go when the last captured connection has ended: a packet of an established connection
that met no rule would leave the machine in plain.  When a process is killed its rules stay, and new
connections to what they capture fail, until the next start puts its own in their place.

Invariant: rules are touched by the holder of their slot alone (`netfilter.slot`).
"""

from __future__ import annotations

import ipaddress
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import trio

from tng.errors import ConfigError, StartError
from tng.gateway.netfilter.commands import Backend, Commands
from tng.gateway.netfilter.routing import add_route, remove_route, slots_routed
from tng.gateway.netfilter.rules import (
    CAPTURES,
    Capture,
    Captured,
    Side,
    is_capture_mark,
    ruleset,
    slots_in,
)
from tng.gateway.netfilter.slot import Slot, take_free_slot, take_slot
from tng.gateway.netfilter.sockets import CanBeTransparent, make_transparent

if TYPE_CHECKING:
    from tng.config.model import Egress, Ingress, TngConfig

log = logging.getLogger(__name__)

_REMOVE_TIMEOUT_S: Final = 20.0
"""Seconds for removing rules at the end; who stops us waits no longer than that."""

_ATTEMPTS: Final = 3
"""Times that rules are read and removed: somebody else may change them in between."""

_NET_ADMIN: Final = 12  # linux/capability.h
_STATUS: Final = pathlib.Path("/proc/self/status")
_IPV6_ADDRESSES: Final = pathlib.Path("/proc/net/if_inet6")
_GLOBAL_SCOPE: Final = "00"


def captures_of(config: TngConfig) -> list[Capture]:
    """What a configuration captures, in its order."""
    entries: list[tuple[Side, int, Ingress | Egress]] = [
        *(("ingress", number, entry) for number, entry in enumerate(config.add_ingress)),
        *(("egress", number, entry) for number, entry in enumerate(config.add_egress)),
    ]
    captures = []
    for side, number, entry in entries:
        if entry.netfilter is not None:
            captures.append(Capture(side, number, "tcp", entry.netfilter))
        if entry.netfilter_udp is not None:
            captures.append(Capture(side, number, "udp", entry.netfilter_udp))
    return captures


class Listening(CanBeTransparent, Protocol):
    """What captured traffic is led to: a socket, bound."""

    def getsockname(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """Where it is bound."""
        ...


class Captures:
    """Everything that one process captures.

    Args:
        captures: from `captures_of`; may be empty, and then nothing here does anything.
        commands: the system's.
        status: what the kernel tells of this process.

    Raises:
        ConfigError: something in them cannot be captured.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        commands: Commands | None = None,
        status: pathlib.Path = _STATUS,
    ) -> None:
        if problems := list(_problems(captures)):
            raise ConfigError(problems)
        self._captures = {capture.path: capture for capture in captures}
        self._commands = Commands() if commands is None else commands
        self._status = status
        self._ports: dict[str, int] = {}
        self._backends: list[Backend] = []
        self._slot: Slot | None = None

    @property
    def own_mark(self) -> int | None:
        """The mark of connections that belong to no entry; None when nothing is captured."""
        return next((each.options.so_mark for each in self._captures.values()), None)

    def check(self) -> None:
        """Find out whether capturing is allowed at all.

        Raises:
            StartError: the process lacks CAP_NET_ADMIN.
        """
        if self._captures and not has_net_admin(self._status.read_text(encoding="ascii")):
            raise StartError(
                f"{', '.join(self._captures)}: this process lacks the capability CAP_NET_ADMIN, "
                "which netfilter modes need: run it as root, or grant the capability "
                "(docker run --cap-add NET_ADMIN; systemd AmbientCapabilities=CAP_NET_ADMIN), or "
                "use a way in that needs none: mapping, http_proxy, socks5, or `tng exec`"
            )

    def led_to(self, path: str, listener: Listening) -> None:
        """Note, and prepare, the listener for one capture; others are left as they are.

        Args:
            path: e.g. "add_ingress[0].netfilter".
            listener: bound; stays the caller's.

        Raises:
            StartError: it cannot take captured connections.
        """
        capture = self._captures.get(path)
        if capture is None:
            return
        if capture.keeps_destination:
            try:
                make_transparent(listener)
            except OSError as exc:
                raise StartError(
                    f"{path}: the listener cannot be made transparent: {exc.strerror}; "
                    "this needs the capability CAP_NET_ADMIN"
                ) from exc
        self._ports[path] = listener.getsockname()[1]

    async def apply(self) -> None:
        """Capture from now on; remove what processes that were killed have left.

        Raises:
            StartError: the rules were refused, or a command is missing; no rule of ours is left.
        """
        if not self._captures:
            return
        self._backends = await self._commands.backends()
        self._slot = take_free_slot()
        try:
            await self._install(self._slot.number)
            await self._clear_leftovers(self._slot.number)
        except BaseException:
            await self.remove()
            raise
        for path, port in self._ports.items():
            log.info("capturing %s port=%d slot=%d", path, port, self._slot.number)
        if _has_global_ipv6():
            log.warning("IPv6 connections are not captured, only IPv4; the machine has both")

    async def remove(self) -> None:
        """Capture no more, even when cancelled.  Idempotent."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        try:
            with trio.CancelScope(shield=True), trio.fail_after(_REMOVE_TIMEOUT_S):
                for backend in self._backends:
                    await self._clear(backend, slot.number)
                await self._clear_route(slot.number)
        except (StartError, trio.TooSlowError) as exc:
            log.error(  # noqa: TRY400 - the command's words are enough
                "rules of slot %d are left, and what they capture stays cut off until the next "
                "start removes them: %s",
                slot.number,
                str(exc) or "out of time",
            )
        finally:
            slot.release()

    # -- steps ---------------------------------------------------------------------------

    @property
    def _needs_route(self) -> bool:
        return any(capture.keeps_destination for capture in self._captures.values())

    async def _install(self, slot: int) -> None:
        """Put our rules in the place of what the slot has, in the first back end that works."""
        captured = [Captured(self._captures[path], port) for path, port in self._ports.items()]
        if self._needs_route:
            await add_route(self._commands, slot)
        complaints = []
        for backend in self._backends:
            saved = await self._commands.saved(backend)
            try:
                await self._commands.restore(backend, ruleset(slot, saved, captured))
            except StartError as error:
                complaints.append(f"{error} ({backend.kind})")
                await self._clear(backend, slot)  # one table may have been changed already
                continue
            for other in self._backends:
                if other is not backend:
                    await self._clear(other, slot)
            return
        raise StartError("; ".join([*complaints, *self._hints()]))

    def _hints(self) -> Iterator[str]:
        options = [capture.options for capture in self._captures.values()]
        groups = {g for each in options for g in (*each.capture_cgroup, *each.nocapture_cgroup)}
        sets = {to.ipset for each in options for to in each.capture_dst if to.ipset is not None}
        if groups:
            yield f"do these control groups (cgroup v2) exist: {', '.join(sorted(groups))}"
        if sets:
            yield f"do these ipsets exist: {', '.join(sorted(sets))}"

    async def _clear_leftovers(self, own: int) -> None:
        seen: set[int] = set()
        for backend in self._backends:
            seen |= slots_in(await self._commands.saved(backend))
        if self._commands.has_ip:
            seen |= await slots_routed(self._commands)
        if not self._needs_route:
            await self._clear_route(own)
        for number in sorted(seen - {own}):
            dead = take_slot(number)
            if dead is None:
                continue  # another gateway's, and alive
            try:
                for backend in self._backends:
                    await self._clear(backend, number)
                await self._clear_route(number)
            finally:
                dead.release()
            log.warning("removed the rules of a gateway that was killed slot=%d", number)

    async def _clear(self, backend: Backend, slot: int) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                saved = await self._commands.saved(backend)
                await self._commands.restore(backend, ruleset(slot, saved))
            except StartError:
                if attempt == _ATTEMPTS:
                    raise
            else:
                return

    async def _clear_route(self, slot: int) -> None:
        if self._commands.has_ip:
            await remove_route(self._commands, slot)


def has_net_admin(status: str) -> bool:
    """Whether a process has CAP_NET_ADMIN, from its /proc/PID/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _NET_ADMIN & 1)
    return False


def _has_global_ipv6() -> bool:
    try:
        lines = _IPV6_ADDRESSES.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any(line.split()[3:4] == [_GLOBAL_SCOPE] for line in lines)


def _problems(captures: Sequence[Capture]) -> Iterator[str]:
    if len(captures) > CAPTURES:
        yield f"expected at most {CAPTURES} netfilter entries, got {len(captures)}"
    for capture in captures:
        mark = capture.options.so_mark
        if mark == 0 or is_capture_mark(mark):
            yield (
                f"{capture.path}.so_mark: expected a mark other than 0 and 0x540000-0x543fff in "
                f"its lower 24 bits, got {mark}"
            )
        for number, target in enumerate(capture.options.capture_dst):
            if target.host is not None and ipaddress.ip_network(target.host).version != 4:
                yield (
                    f"{capture.path}.capture_dst[{number}].host: expected an IPv4 address or "
                    f"range, got {target.host!r}: IPv6 is not captured"
                )
