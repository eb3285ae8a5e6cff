"""What the manual of OHTTP says is what the program says."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
import trio

from stage.conversation import Line, calling
from stage.encapsulation import ScriptedEgress, Taken, hear, response
from stage.gateways import ohttp_egress, ohttp_ingress
from tng.dataplane.http_server import IDLE_TIMEOUT_S
from tng.gateway.egress import ohttp as egress
from tng.tunnel.ohttp import client, recipients, replay, server
from tng.tunnel.ohttp.problems import Problem
from tng.wire.ohttp_metadata import MAX_METADATA

TEXT = (pathlib.Path(__file__).resolve().parents[2] / "docs/OHTTP.md").read_text(encoding="utf-8")


def examples(mark: str) -> dict[str, object]:
    """The JSON of the document that holds `mark`."""
    blocks = re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (found,) = [json.loads(block) for block in blocks if f'"{mark}"' in block]
    return found


def test_the_table_of_errors_names_every_problem_with_its_status() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\w+) \|", TEXT, re.MULTILINE)
    told = {(title, int(status)) for title, status, _ in rows}
    assert told == {(problem.title, problem.status) for problem in Problem}


def test_the_numbers_are_those_of_the_program() -> None:
    assert f"{MAX_METADATA // 1024} KiB" in TEXT
    assert client.MAX_REPLAY == 1 << 20
    assert f"at most {recipients.MAX_RECIPIENTS} of them" in TEXT
    assert f"took more than {server.ARRIVAL_TIMEOUT_S:g} s" in TEXT
    assert f"closed after {egress.FIRST_REQUEST_S:g} seconds" in TEXT
    assert f"requests after {egress.IDLE_S:g}" in TEXT
    assert replay.MAX_PER_KEY == 1 << 20
    assert egress.IDLE_S > IDLE_TIMEOUT_S


async def test_the_status_of_an_egress_looks_as_shown() -> None:
    shown = examples("local_keys")
    async with ohttp_egress(1) as (gateway, _):
        told = gateway.entries[0].keys_status()  # type: ignore[misc]
    assert told.keys() == shown.keys()
    key, example = told["local_keys"][0], shown["local_keys"][0]  # type: ignore[index]
    assert list(key) == list(example)
    for name in ("actived_at", "stale_at", "expire_at"):
        assert len(key[name]) == len(example[name])


async def test_the_status_of_an_ingress_looks_as_shown() -> None:
    async def ok(taken: Taken, line: Line) -> None:
        await line.say(response(taken.answer()))

    shown = examples("servers")
    async with (
        ScriptedEgress(ok).serving() as web,
        ohttp_ingress(web.port) as (gateway, port),
        calling(port) as line,
    ):
        await line.say(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        await hear(line)
        await trio.lowlevel.checkpoint()
        told = gateway.entries[0].keys_status()  # type: ignore[misc]
    assert told["servers"][0].keys() == shown["servers"][0].keys()  # type: ignore[index]


@pytest.mark.parametrize("field", ["x-tng-ohttp-api", "content-type", "user-agent", "host"])
def test_what_an_intermediary_sees_is_listed(field: str) -> None:
    section = TEXT.split("## What an intermediary sees")[1].split("##")[0]
    assert f"`{field}`" in section
