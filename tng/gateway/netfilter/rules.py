"""The rules that lead captured traffic here, as text for `iptables-restore --noflush`.

In: what to capture, and what `iptables-save` shows.  Out: one text that removes the rules which an
instance has and adds the ones that it wants; per table it takes effect at once or not at all.
Source: spec of the RATS-TLS transport, sections 5.4 and 6.2, for what is captured.

Theory of operation.  An instance owns a *slot* (`netfilter.slot`), and every chain of it is called
`TNG_S<slot>_...`: that is how rules of a process that was killed are told from everybody else's.

An ingress marks packets of local programs in mangle OUTPUT; a marked packet is routed to the
loopback interface (`netfilter.routing`), and TPROXY in mangle PREROUTING gives it to our listener
with its destination unchanged.  An egress redirects in nat: PREROUTING for other machines, OUTPUT
for programs of this one.

Invariants: what another TNG instance has marked, and what carries the mark of our own sockets, is
left alone; a text of the operator stands in double quotes with every special character escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tng.config.capture import (
    CaptureDst,
    EgressNetfilter,
    EgressNetfilterUdp,
    Netfilter,
    NetfilterUdp,
)

Options = Netfilter | EgressNetfilter | NetfilterUdp | EgressNetfilterUdp

Side = Literal["ingress", "egress"]

SLOTS: Final = 64
"""Instances in one network namespace."""

CAPTURES: Final = 256
"""Captures of one instance: as many marks are set aside for it."""

# The lower 24 bits of a packet's mark, as the reference (v2.12.0), whose values are others.
_MARK_BASE: Final = 0x540000
_MARK_MASK: Final = 0xFFFFFF
_SLOT_MASK: Final = 0xFFFF00
_ANY_SLOT_MASK: Final = 0xFFC000

_CHAIN: Final = re.compile(r"TNG_S([0-9]{1,2})_[A-Z0-9_]+")
_JUMP: Final = re.compile(r"-A (\S+) (?:.* )?-[jg] (\S+)")


@dataclass(frozen=True, slots=True)
class Capture:
    """Traffic of one entry.

    Attributes:
        side: of the entry.
        number: of the entry, in its list.
        protocol: what is captured.
        options: as configured.
    """

    side: Side
    number: int
    protocol: Literal["tcp", "udp"]
    options: Options

    @property
    def path(self) -> str:
        """The capture in the words of the configuration."""
        mode = "netfilter" if self.protocol == "tcp" else "netfilter_udp"
        return f"add_{self.side}[{self.number}].{mode}"

    @property
    def keeps_destination(self) -> bool:
        """Whether packets reach our socket unchanged (TPROXY), so that it must be transparent."""
        return self.side == "ingress" or self.protocol == "udp"


@dataclass(frozen=True, slots=True)
class Captured:
    """A capture, and where it leads.

    Attributes:
        capture: what is taken.
        port: of our listener.
    """

    capture: Capture
    port: int


@dataclass(frozen=True, slots=True)
class _Chain:
    """A chain of ours; `hook` is the built-in chain that leads into it, None for a sub-chain."""

    table: Literal["mangle", "nat"]
    name: str
    protocol: str
    hook: str | None
    rules: tuple[str, ...]


def slot_mark(slot: int) -> tuple[int, int]:
    """The mark of everything that a slot captures, and the mask to compare it with."""
    return _MARK_BASE | slot << 8, _SLOT_MASK


def is_capture_mark(mark: int) -> bool:
    """Whether some slot may mark what it captures so; connections of our own may not."""
    return mark & _ANY_SLOT_MASK == _MARK_BASE


def slots_in(saved: str) -> set[int]:
    """The slots that have chains in the output of `iptables-save`."""
    return {int(match[1]) for _, name in _chains(saved) if (match := _CHAIN.fullmatch(name))}


def ruleset(slot: int, saved: str, captured: Sequence[Captured] = ()) -> str:
    """The text that replaces the rules of `slot`.

    Args:
        slot: 0 to SLOTS - 1.
        saved: the output of `iptables-save` a moment ago.
        captured: what to capture from now on, CAPTURES at most; nothing to remove the rules.

    Returns:
        Input of `iptables-restore --noflush`; empty when there is nothing to do.
    """
    own_marks = sorted({each.capture.options.so_mark for each in captured})
    wanted = [
        chain
        for index, each in enumerate(captured)
        for chain in _chains_for(slot, index, each, own_marks)
    ]
    lines: list[str] = []
    for table in ("mangle", "nat"):
        body = _table(table, slot, saved, [chain for chain in wanted if chain.table == table])
        if body:
            lines += [f"*{table}", *body, "COMMIT"]
    return "".join(line + "\n" for line in lines)


def _table(table: str, slot: int, saved: str, wanted: Sequence[_Chain]) -> list[str]:
    ours = re.compile(rf"TNG_S{slot}_[A-Z0-9_]+")
    present = [name for where, name in _chains(saved) if where == table and ours.fullmatch(name)]
    names = [chain.name for chain in wanted]
    # Declaring a chain makes it, or empties it.
    lines = [f":{name} - [0:0]" for name in dict.fromkeys([*names, *present])]
    lines += [f"-D {jump}" for jump in _jumps(saved, table, ours)]
    lines += [f"-X {name}" for name in present if name not in names]
    lines += [f"-A {chain.name} {rule}" for chain in wanted for rule in chain.rules]
    # Each goes to the top, the first entry last: it decides before the others do.
    lines += [
        f"-I {chain.hook} 1 -p {chain.protocol} -j {chain.name}"
        for chain in reversed(wanted)
        if chain.hook is not None
    ]
    return lines


def _chains(saved: str) -> Iterator[tuple[str, str]]:
    """Table and name of every chain."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            yield table, line[1:].split(" ", 1)[0]


def _jumps(saved: str, table: str, ours: re.Pattern[str]) -> Iterator[str]:
    """Rules of other chains that lead into ours, as they are deleted."""
    where = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            where = line[1:].strip()
        elif where == table and (match := _JUMP.fullmatch(line.strip())):
            source, target = match[1], match[2]
            if ours.fullmatch(target) and not ours.fullmatch(source):
                yield line.strip().removeprefix("-A ")


def _chains_for(
    slot: int, index: int, captured: Captured, own_marks: Sequence[int]
) -> Iterator[_Chain]:
    capture = captured.capture
    name = f"TNG_S{slot}_{'I' if capture.side == 'ingress' else 'E'}{capture.number}"
    mark = f"{_MARK_BASE | slot << 8 | index:#x}/{_MARK_MASK:#x}"
    if capture.side == "ingress":
        yield from _ingress(name, mark, captured, own_marks)
    elif capture.protocol == "tcp":
        yield from _egress(name, captured, own_marks)
    else:
        yield _egress_udp(name, mark, captured, own_marks)


def _ingress(
    name: str, mark: str, captured: Captured, own_marks: Sequence[int]
) -> Iterator[_Chain]:
    options, protocol = captured.capture.options, captured.capture.protocol
    take = f"-j MARK --set-mark {mark}"
    pick = f"{name}_PICK"
    tproxy = f"-p {protocol} -m mark --mark {mark} {_tproxy(captured.port, mark, '127.0.0.1')}"
    yield _Chain("mangle", pick, protocol, None, tuple(_targets(options, protocol, take)))
    yield _Chain("mangle", f"{name}_PRE", protocol, "PREROUTING", (tproxy,))
    output = (
        f"-m mark --mark {_MARK_BASE:#x}/{_ANY_SLOT_MASK:#x} -j RETURN",
        *_own(own_marks),
        "-m addrtype --dst-type LOCAL -j RETURN",
        "-m addrtype ! --dst-type UNICAST -j RETURN",
        "-m addrtype ! --src-type LOCAL -j RETURN",
        # The answers of a server on this machine go to addresses that may be captured as well.
        "-m conntrack --ctdir REPLY -j RETURN",
        *_senders(options, pick),
    )
    yield _Chain("mangle", f"{name}_OUT", protocol, "OUTPUT", output)


def _egress(name: str, captured: Captured, own_marks: Sequence[int]) -> Iterator[_Chain]:
    options, protocol = captured.capture.options, captured.capture.protocol
    take = f"-j REDIRECT --to-ports {captured.port}"
    foreign = "-m addrtype ! --dst-type LOCAL -j RETURN"
    # A control group is known of senders on this machine alone: those elsewhere are captured by
    # what they connect to.
    if options.capture_dst:
        yield _Chain(
            "nat",
            f"{name}_PRE",
            protocol,
            "PREROUTING",
            (foreign, *_targets(options, protocol, take)),
        )
    if options.capture_cgroup or _takes_local(options):
        pick = f"{name}_PICK"
        yield _Chain("nat", pick, protocol, None, tuple(_targets(options, protocol, take)))
        senders = (*_own(own_marks), foreign, *_senders(options, pick))
        yield _Chain("nat", f"{name}_OUT", protocol, "OUTPUT", senders)


def _egress_udp(name: str, mark: str, captured: Captured, own_marks: Sequence[int]) -> _Chain:
    options, protocol = captured.capture.options, captured.capture.protocol
    rules = ["-m addrtype ! --dst-type LOCAL -j RETURN"]
    if _takes_local(options):
        # What we send ourselves, and what a service on this machine answers us.
        rules += [
            *_own(own_marks),
            "-m addrtype --src-type LOCAL -m conntrack --ctdir REPLY -j RETURN",
        ]
    else:
        rules.append("-m addrtype --src-type LOCAL -j RETURN")
    take = _tproxy(captured.port, mark, "0.0.0.0")  # noqa: S104 - matched, not bound
    rules += _targets(options, protocol, take)
    return _Chain("mangle", f"{name}_PRE", protocol, "PREROUTING", tuple(rules))


def _takes_local(options: Options) -> bool:
    return (
        isinstance(options, EgressNetfilter | EgressNetfilterUdp) and options.capture_local_traffic
    )


def _tproxy(port: int, mark: str, address: str) -> str:
    return f"-j TPROXY --on-ip {address} --on-port {port} --tproxy-mark {mark}"


def _own(marks: Sequence[int]) -> Iterator[str]:
    """Our own connections are never captured."""
    return (f"-m mark --mark {mark:#x} -j RETURN" for mark in marks)


def _senders(options: Options, pick: str) -> Iterator[str]:
    """Whose packets go on to `pick`."""
    for group in options.nocapture_cgroup:
        yield f"-m cgroup --path {_quoted(group)} -j RETURN"
    for group in options.capture_cgroup:
        yield f"-m cgroup --path {_quoted(group)} -j {pick}"
    if not options.capture_cgroup:
        yield f"-j {pick}"


def _targets(options: Options, protocol: str, take: str) -> Iterator[str]:
    """Which destinations are taken: those listed, or all."""
    for target in options.capture_dst:
        yield f"{_destination(target, protocol)}{take}"
    if not options.capture_dst:
        yield f"-p {protocol} {take}"


def _destination(target: CaptureDst, protocol: str) -> str:
    words = f"-p {protocol} "
    if target.host is not None:
        words += f"-d {target.host} "
    if target.ipset is not None:
        words += f"-m set --match-set {_quoted(target.ipset)} dst "
    if target.port is not None:
        last = target.port if target.port_end is None else target.port_end
        words += f"--dport {target.port}:{last} "
    return words


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
