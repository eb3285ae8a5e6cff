"""What an egress shows with its key."""

from __future__ import annotations

import pytest
import trio

from stage.identities import Vouching
from tng.attest.evidence import CocoToken
from tng.attest.user_data import ServerUserData
from tng.clock import FixedClock
from tng.errors import EvidenceError
from tng.tunnel.ohttp.control_messages import Wanted
from tng.tunnel.ohttp.problems import OhttpError, Problem
from tng.tunnel.ohttp.statements import LIFE_LEFT_S, KeyStatements
from tng.wire.dice import CocoEvidence

KEY = ServerUserData("AAAA", 1000)
OTHER = ServerUserData("BBBB", 1000)
PASSPORT = Wanted("passport")
EVIDENCE = Wanted("background_check", "nonce")


async def test_nothing_is_shown_where_nothing_is_asked_or_configured() -> None:
    nothing = KeyStatements(None, 0.0, FixedClock(0.0))
    assert not nothing.attests
    assert await nothing.make(KEY, PASSPORT) is None
    await nothing.aclose()
    source = Vouching()
    something = KeyStatements(source, 0.0, FixedClock(0.0))
    assert something.attests
    assert await something.make(KEY, Wanted(None)) is None
    await something.aclose()
    assert source.is_closed


async def test_evidence_answers_each_challenge_anew() -> None:
    source = Vouching()
    statements = KeyStatements(source, 600.0, FixedClock(0.0))
    for nonce in ("a", "b"):
        shown = await statements.make(KEY, Wanted("background_check", nonce))
        assert isinstance(shown, CocoEvidence)
        assert source.about[-1].challenge_token == nonce
    assert source.made == 2


@pytest.mark.parametrize(
    ("model", "wanted"), [("passport", EVIDENCE), ("background_check", PASSPORT)]
)
async def test_another_model_than_ours_is_refused(model: str, wanted: Wanted) -> None:
    statements = KeyStatements(Vouching(model), 0.0, FixedClock(0.0))
    with pytest.raises(OhttpError) as error:
        await statements.make(KEY, wanted)
    assert error.value.problem is Problem.KEY_CONFIG_RESPONSE_FAILED
    assert error.value.http_status == 500


async def test_a_token_is_kept_for_its_key_and_its_time() -> None:
    clock, source = FixedClock(0.0), Vouching("passport", 700.0)
    statements = KeyStatements(source, 600.0, clock)

    async def shown(key: ServerUserData) -> str:
        token = await statements.make(key, PASSPORT)
        assert isinstance(token, CocoToken)
        return token.text

    first = await shown(KEY)
    clock.at = 599.0
    assert await shown(KEY) == first
    assert await shown(OTHER) != first
    assert source.made == 2
    clock.at = 600.0
    await shown(OTHER)
    clock.at = 700.0 - LIFE_LEFT_S
    made = source.made
    await shown(OTHER)
    assert source.made == made + 1, "a token about to end is not shown"
    clock.at = 0.0
    await shown(OTHER)
    assert source.made == made + 2, "nor one from the future"


async def test_without_an_interval_each_token_is_a_new_one() -> None:
    source = Vouching("passport")
    statements = KeyStatements(source, 0.0, FixedClock(0.0))
    for _ in range(2):
        await statements.make(KEY, PASSPORT)
    assert source.made == 2


async def test_whoever_asks_at_once_gets_the_token_that_is_being_made() -> None:
    class Slow(Vouching):
        async def passport(self, user_data):
            await trio.sleep(0.01)
            return await super().passport(user_data)

    source = Slow("passport")
    statements = KeyStatements(source, 600.0, FixedClock(0.0))
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(statements.make, KEY, PASSPORT)
    assert source.made == 1


async def test_a_tee_that_says_nothing_is_the_error_of_the_table() -> None:
    class Silent(Vouching):
        async def evidence(self, user_data):
            raise EvidenceError("no agent")

    with pytest.raises(OhttpError, match="no agent") as error:
        await KeyStatements(Silent(), 0.0, FixedClock(0.0)).make(KEY, EVIDENCE)
    assert error.value.code == "evidence_unavailable"
