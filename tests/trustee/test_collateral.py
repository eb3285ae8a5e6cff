from __future__ import annotations

import asyncio
import dataclasses
import json

import httpx
import pytest

from tng.attest.tdx.quote import parse_quote
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode
from tng.trustee.collateral import (
    MAX_AGE_S,
    MAX_PLATFORMS,
    CachedCollateral,
    next_update,
    pccs_fetcher,
)

NOW = 1_795_000_000


class Fetch:
    def __init__(self, collateral):
        self.collateral = collateral
        self.calls = 0

    async def __call__(self, quote):
        self.calls += 1
        await asyncio.sleep(0)
        if self.collateral is None:
            raise AppraiserError("no PCCS", code=ErrorCode.COLLATERAL_UNAVAILABLE)
        return self.collateral


@pytest.fixture
def quote(platform):
    return parse_quote(platform.quote(b"\0" * 64))


@pytest.fixture
def collateral(platform):
    return platform.collateral(NOW)


def test_concurrent_requests_share_one_fetch(quote, collateral):
    fetch = Fetch(collateral)
    cache = CachedCollateral(fetch, FixedClock(NOW))

    async def main():
        return await asyncio.gather(*(cache.collateral_for(quote) for _ in range(10)))

    assert set(map(id, asyncio.run(main()))) == {id(collateral)}
    assert fetch.calls == 1
    assert cache.last_error == ""


def test_an_answer_is_kept_for_a_day_at_most(quote, collateral):
    fetch, clock = Fetch(collateral), FixedClock(NOW)
    cache = CachedCollateral(fetch, clock)
    for at, calls in [(NOW, 1), (NOW + MAX_AGE_S - 1, 1), (NOW + MAX_AGE_S, 2)]:
        clock.at = at
        asyncio.run(cache.collateral_for(quote))
        assert fetch.calls == calls


def test_an_answer_is_not_kept_past_its_next_update(quote, collateral):
    end = next_update(collateral)
    assert end > NOW
    fetch, clock = Fetch(collateral), FixedClock(end - 10)
    cache = CachedCollateral(fetch, clock)
    asyncio.run(cache.collateral_for(quote))
    clock.at = end
    asyncio.run(cache.collateral_for(quote))
    assert fetch.calls == 2


def test_a_failed_fetch_is_reported_and_tried_again(quote, collateral):
    fetch = Fetch(None)
    cache = CachedCollateral(fetch, FixedClock(NOW))
    assert cache.last_error is None
    for _ in range(2):
        with pytest.raises(AppraiserError):
            asyncio.run(cache.collateral_for(quote))
    assert (fetch.calls, cache.last_error) == (2, "no PCCS")
    fetch.collateral = collateral
    asyncio.run(cache.collateral_for(quote))
    assert cache.last_error == ""


def test_the_number_of_platforms_is_bounded(collateral):
    cache = CachedCollateral(Fetch(collateral), FixedClock(NOW))
    for number in range(MAX_PLATFORMS + 5):
        cache._entry((number.to_bytes(6, "big"), "platform"))
    assert len(cache._entries) == MAX_PLATFORMS


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nextUpdate":1}', '{"nextUpdate":"soon"}'])
def test_collateral_with_an_unreadable_date_is_not_kept(collateral, text):
    assert next_update(dataclasses.replace(collateral, tcb_info=text)) == 0
    assert next_update(dataclasses.replace(collateral, pck_crl=b"x")) == 0


def test_the_earliest_date_counts(collateral):
    info = json.loads(collateral.qe_identity)
    info["nextUpdate"] = "2026-12-01T00:00:00Z"
    changed = dataclasses.replace(collateral, qe_identity=json.dumps(info))
    assert next_update(changed) == 1_796_083_200 or next_update(changed) < next_update(collateral)


def test_a_pccs_that_fails_is_unavailable(quote):
    def handler(request):
        return httpx.Response(503)

    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            await pccs_fetcher(client, "http://pccs.example")(quote)

    with pytest.raises(AppraiserError) as caught:
        asyncio.run(main())
    assert caught.value.code is ErrorCode.COLLATERAL_UNAVAILABLE


def test_a_pccs_that_hangs_is_given_up(quote):
    async def handler(request):
        await asyncio.Event().wait()

    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
            await pccs_fetcher(client, "http://pccs.example", timeout_s=0.01)(quote)

    with pytest.raises(AppraiserError, match="did not come"):
        asyncio.run(main())
