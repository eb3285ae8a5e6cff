"""Collateral from several services in order, a folder, and an offline bundle."""

from __future__ import annotations

import dataclasses
import json

import httpx
import pytest
import trio

from stage.pccs import Network
from tng.attest.tdx.collateral import Collateral
from tng.attest.tdx.collateral_cache import CollateralFolder, Kept
from tng.attest.tdx.collateral_settings import CollateralSettings
from tng.attest.tdx.pccs import (
    FAILURE_MEMORY_S,
    HARD_S,
    MAX_PLATFORMS,
    REFRESH_S,
    RETRY_S,
    TOTAL_S,
    URL_S,
    PccsCollateral,
)
from tng.attest.tdx.quote import parse_quote
from tng.attest.tdx.simulator.collateral import make_collateral
from tng.clock import FixedClock
from tng.errors import AppraiserError, ErrorCode

DAY_S = 86_400
DOWN = httpx.ConnectError("refused")


class MovingClock:
    """A time of day that a test moves."""

    def __init__(self, now: float) -> None:
        self.seconds = now

    def now(self) -> float:
        return self.seconds


@pytest.fixture
def clock(workshop):
    return MovingClock(workshop.now)


@pytest.fixture
def quote(workshop):
    return parse_quote(workshop.quote())


@pytest.fixture
def make(workshop, clock):
    def make(network: Network | None = None, *hosts: str, **settings: object) -> PccsCollateral:
        urls = tuple(f"https://{host}.example" for host in hosts or ("one", "two"))
        return PccsCollateral(
            CollateralSettings(urls, **settings),
            clock,
            root_ca_der=workshop.authority.root_der,
            client=network.client() if network else None,
        )

    return make


def lying(workshop) -> Collateral:
    """Collateral whose TCB info was changed after it was signed."""
    text = workshop.collateral.tcb_info
    changed = text.replace('"tcbStatus":"OutOfDate"', '"tcbStatus":"UpToDate"')
    if changed == text:
        changed = text.replace('"version":3', '"version":3 ')
    assert changed != text
    return dataclasses.replace(workshop.collateral, tcb_info=changed)


async def refused(source, quote) -> AppraiserError:
    with pytest.raises(AppraiserError) as caught:
        await source.collateral_for(quote)
    return caught.value


async def test_the_first_service_is_enough_and_asked_once(make, workshop, quote):
    network = Network(one=workshop.collateral, two=DOWN)
    source = make(network)
    for _ in range(3):
        assert await source.collateral_for(quote) == workshop.collateral
    assert network.fetches == ["one"]
    await source.aclose()
    await source.aclose()


async def test_who_asks_at_once_shares_one_fetch(make, workshop, quote):
    network = Network(one=workshop.collateral)
    source = make(network, "one")
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(source.collateral_for, quote)
    assert network.fetches == ["one"]


@pytest.mark.parametrize("first", ["down", "lying", "of another root", "expired", "silent"])
async def test_a_service_that_is_of_no_use_is_passed_over(
    make, workshop, quote, autojump_clock, first
):
    other = type(workshop.authority).create(workshop.now)
    bad = {
        "down": DOWN,
        "lying": lying(workshop),
        "of another root": make_collateral(other, workshop.now),
        "expired": make_collateral(workshop.authority, workshop.now - 365 * DAY_S),
        "silent": None,
    }[first]
    network = Network(one=bad, two=workshop.collateral)
    started = trio.current_time()
    assert await make(network).collateral_for(quote) == workshop.collateral
    assert network.fetches[:1] == ["one"]
    assert network.fetches[-1] == "two"
    assert trio.current_time() - started <= URL_S + 0.1


@pytest.mark.parametrize(
    ("kind", "words", "code"),
    [
        ("down", "could not be fetched", ErrorCode.COLLATERAL_UNAVAILABLE),
        ("lying", "signature", ErrorCode.COLLATERAL_UNAVAILABLE),
        ("silent", "not complete within 6 s", ErrorCode.COLLATERAL_UNAVAILABLE),
        ("expired", "expired", ErrorCode.COLLATERAL_EXPIRED),
    ],
)
async def test_without_any_use_the_error_names_every_service(
    make, workshop, quote, autojump_clock, kind, words, code
):
    bad = {
        "down": DOWN,
        "lying": lying(workshop),
        "silent": None,
        "expired": make_collateral(workshop.authority, workshop.now - 365 * DAY_S),
    }[kind]
    started = trio.current_time()
    error = await refused(make(Network(one=bad, two=bad)), quote)
    assert error.code is code
    assert str(error).count(words) >= 2
    assert "https://one.example" in str(error)
    assert "https://two.example" in str(error)
    assert trio.current_time() - started <= 2 * URL_S + 0.1


async def test_nobody_waits_longer_than_the_total(make, quote, autojump_clock):
    hosts = ("one", "two", "three", "four")
    network = Network(**dict.fromkeys(hosts))
    started = trio.current_time()
    error = await refused(make(network, *hosts), quote)
    assert trio.current_time() - started == pytest.approx(TOTAL_S)
    assert error.code is ErrorCode.COLLATERAL_UNAVAILABLE
    assert "15 s" in str(error)


async def test_a_failure_answers_for_a_moment_and_is_then_tried_again(
    make, workshop, quote, autojump_clock
):
    network = Network(one=DOWN)
    source = make(network, "one")
    first, second = await refused(source, quote), await refused(source, quote)
    assert str(first) == str(second)
    assert network.fetches == ["one"]
    network.hosts["one"] = workshop.collateral
    await trio.sleep(FAILURE_MEMORY_S)
    assert await source.collateral_for(quote) == workshop.collateral


async def test_after_a_day_it_is_fetched_again(make, workshop, quote, clock):
    network = Network(one=workshop.collateral)
    source = make(network, "one")
    await source.collateral_for(quote)
    clock.seconds += REFRESH_S - 1
    await source.collateral_for(quote)
    assert network.fetches == ["one"]
    clock.seconds += 1
    await source.collateral_for(quote)
    assert network.fetches == ["one", "one"]


async def test_older_collateral_serves_while_no_service_answers_but_not_for_ever(
    make, workshop, quote, clock, autojump_clock
):
    network = Network(one=workshop.collateral)
    source = make(network, "one")
    await source.collateral_for(quote)
    network.hosts["one"] = DOWN
    clock.seconds += REFRESH_S
    for _ in range(3):
        assert await source.collateral_for(quote) == workshop.collateral
    assert len(network.fetches) == 2
    await trio.sleep(RETRY_S)
    assert await source.collateral_for(quote) == workshop.collateral
    assert len(network.fetches) == 3
    clock.seconds += HARD_S
    await trio.sleep(RETRY_S)
    await refused(source, quote)


async def test_collateral_that_ended_serves_no_more(make, workshop, quote, clock, autojump_clock):
    network = Network(one=workshop.collateral)
    source = make(network, "one")
    await source.collateral_for(quote)
    network.hosts["one"] = DOWN
    clock.seconds += 365 * DAY_S
    await refused(source, quote)


async def test_a_clock_that_was_set_back_has_it_fetched_again(make, workshop, quote, clock):
    network = Network(one=workshop.collateral)
    source = make(network, "one")
    clock.seconds += 100
    await source.collateral_for(quote)
    clock.seconds -= 100
    await source.collateral_for(quote)
    assert len(network.fetches) == 2


async def test_a_restart_finds_the_folder(make, workshop, quote, tmp_path):
    folder = tmp_path / "cache"
    network = Network(one=workshop.collateral)
    await make(network, "one", cache=folder).collateral_for(quote)
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.name.endswith(".json")
    nobody = Network(one=DOWN)
    assert await make(nobody, "one", cache=folder).collateral_for(quote) == workshop.collateral
    assert nobody.asked == []


@pytest.mark.parametrize("change", ["cut", "altered", "forged", "empty", "array", "deep", "huge"])
async def test_a_folder_that_was_spoiled_is_filled_again(make, workshop, quote, tmp_path, change):
    network = Network(one=workshop.collateral)
    await make(network, "one", cache=tmp_path).collateral_for(quote)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    forged = Kept(lying(workshop), workshop.now)
    match change:
        case "cut":
            file.write_bytes(data[: len(data) // 2])
        case "altered":
            file.write_bytes(data.replace(b"UpToDate", b"UpToDatf"))
        case "forged":  # whoever can write there can make the digest right, and no signature
            CollateralFolder(tmp_path).save(file.stem, forged)
        case "empty":
            file.write_bytes(b"")
        case "array":
            file.write_bytes(b"[]")
        case "deep":
            file.write_bytes(b"[" * 100_000)
        case "huge":
            file.write_bytes(b" " * 9_000_000)
    assert await make(network, "one", cache=tmp_path).collateral_for(quote) == workshop.collateral
    assert network.fetches == ["one", "one"]
    assert json.loads(file.read_bytes())["collateral"] == workshop.collateral.to_json()


async def test_a_folder_that_cannot_be_written_is_done_without(make, workshop, quote, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("x")
    network = Network(one=workshop.collateral)
    source = make(network, "one", cache=in_the_way)
    assert await source.collateral_for(quote) == workshop.collateral


async def test_a_bundle_takes_the_place_of_all_services(make, workshop, quote, tmp_path):
    source = make(Network(one=workshop.collateral), "one", bundle=tmp_path)
    error = await refused(source, quote)
    assert "offline bundle" in str(error)
    assert str(tmp_path) in str(error)
    await make(Network(one=workshop.collateral), "one", cache=tmp_path).collateral_for(quote)
    nobody = Network(one=DOWN)
    source = make(nobody, "one", bundle=tmp_path)
    assert await source.collateral_for(quote) == workshop.collateral
    assert nobody.asked == []


async def test_a_bundle_is_believed_no_more_than_a_service(make, workshop, quote, tmp_path, clock):
    await make(Network(one=workshop.collateral), "one", cache=tmp_path).collateral_for(quote)
    (file,) = tmp_path.iterdir()
    source = make(None, bundle=tmp_path)
    clock.seconds += 365 * DAY_S
    assert (await refused(source, quote)).code is ErrorCode.COLLATERAL_EXPIRED
    clock.seconds = workshop.now
    CollateralFolder(tmp_path).save(file.stem, Kept(lying(workshop), workshop.now))
    assert "signature" in str(await refused(source, quote))
    await source.aclose()


async def test_only_so_many_platforms_are_remembered(make, workshop, clock):
    network = Network(one=DOWN)
    source = make(network, "one")
    for number in range(MAX_PLATFORMS + 1):
        source._entry(f"{number:012x}-platform")
    assert len(source._entries) == MAX_PLATFORMS


async def test_without_a_client_one_is_made_and_closed(workshop, quote):
    settings = CollateralSettings(("http://127.0.0.1:1",))
    source = PccsCollateral(settings, FixedClock(workshop.now))
    assert "127.0.0.1:1" in str(await refused(source, quote))
    await source.aclose()
