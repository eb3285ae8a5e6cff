"""The route that brings marked packets of local programs back to this machine.

In: a slot.  Out: a rule and a routing table for everything that the slot marks, by `ip`.
Table and preference have the same number, which tells ours from everybody else's.

Source: spec of the RATS-TLS transport, section 5.4; the kernel's Documentation/networking/tproxy.
"""

from __future__ import annotations

import re
from typing import Final

from tng.gateway.netfilter.commands import Commands
from tng.gateway.netfilter.rules import SLOTS, slot_mark

_FIRST_TABLE: Final = 5400

_RULE: Final = re.compile(
    r"(?P<preference>\d+):\s+from all fwmark (?P<mark>\S+) lookup (?P<table>\d+)\s*"
)


async def add_route(commands: Commands, slot: int) -> None:
    """Route what `slot` marks to the loopback interface; left-overs of the slot are used again.

    Raises:
        StartError: `ip` is not there, or is not allowed to.
    """
    table = str(_FIRST_TABLE + slot)
    await commands.ip("route", "replace", "local", "default", "dev", "lo", "table", table)
    if slot not in await slots_routed(commands):
        await commands.ip("rule", "add", *_rule(slot))


async def remove_route(commands: Commands, slot: int) -> None:
    """Remove rule and table of `slot`, as far as they are there.

    Raises:
        StartError: `ip` is not there, or is not allowed to.
    """
    if slot in await slots_routed(commands):
        await commands.ip("rule", "del", *_rule(slot))
        await commands.ip("route", "flush", "table", str(_FIRST_TABLE + slot))


async def slots_routed(commands: Commands) -> set[int]:
    """The slots that have a rule.

    Raises:
        StartError: `ip` is not there.
    """
    found = set()
    for line in (await commands.ip("rule", "show")).splitlines():
        match = _RULE.fullmatch(line.strip())
        if match is None or match["preference"] != match["table"]:
            continue
        slot = int(match["table"]) - _FIRST_TABLE
        if 0 <= slot < SLOTS and match["mark"] == _mark(slot):
            found.add(slot)
    return found


def _rule(slot: int) -> tuple[str, ...]:
    table = str(_FIRST_TABLE + slot)
    return ("pref", table, "fwmark", _mark(slot), "table", table)


def _mark(slot: int) -> str:
    mark, mask = slot_mark(slot)
    return f"{mark:#x}/{mask:#x}"
