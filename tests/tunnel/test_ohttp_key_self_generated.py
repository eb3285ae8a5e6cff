"""Keys made here: one is always offered, old ones are served until they expire."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tng.config.ohttp import OhttpKey
from tng.tunnel.ohttp.key_source import DEFAULT_ROTATION_INTERVAL_S, make_key_source
from tng.tunnel.ohttp.keyring import KeyStatus
from tng.tunnel.ohttp.keys_self_generated import SelfGeneratedKeys


class SettableClock:
    """The time of day follows trio's clock, and can be set."""

    def __init__(self) -> None:
        self.ahead = 1_800_000_000.0

    def now(self) -> float:
        return trio.current_time() + self.ahead


@asynccontextmanager
async def running(source: SelfGeneratedKeys) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(source.run)
        yield
        nursery.cancel_scope.cancel()


async def test_the_first_key_is_there_when_the_source_has_started(autojump_clock) -> None:
    clock = SettableClock()
    source = SelfGeneratedKeys(300, clock)
    assert source.keyring.active(clock.now()) is None
    assert source.not_ready == "no OHTTP key is active"
    async with running(source):
        key = source.keyring.active(clock.now())
        assert key is not None
        assert key.key_id == 0
        assert key.stale_at - key.actived_at == key.expire_at - key.stale_at == 300
        assert source.not_ready is None


@pytest.mark.parametrize("interval", [1, 2, 3, 300])
async def test_at_no_moment_is_there_no_key_to_offer(interval: int, autojump_clock) -> None:
    clock = SettableClock()
    source = SelfGeneratedKeys(interval, clock)
    seen: dict[bytes, int] = {}
    async with running(source):
        for _ in range(1000):
            key = source.keyring.active(clock.now())
            assert key is not None
            seen[key.public_key] = key.key_id
            assert len(source.keyring) <= 4
            await trio.sleep(interval / 100)
    assert 10 <= len(seen) <= 17, "about one key per interval"
    assert max(seen.values()) <= 3, "ids are given out again"


async def test_a_replaced_key_serves_until_it_expires_and_not_longer(autojump_clock) -> None:
    clock = SettableClock()
    source = SelfGeneratedKeys(10, clock)
    async with running(source):
        (first,) = source.keyring
        await trio.sleep(9.9)
        assert source.keyring.active(clock.now()) is not first
        assert first.status(clock.now()) is KeyStatus.ACTIVE
        await trio.sleep(10)
        assert source.keyring.find(first.public_key, clock.now()) is first
        await trio.sleep(0.2)
        assert source.keyring.find(first.public_key, clock.now()) is None
        await trio.sleep(1)
        assert first not in set(source.keyring)


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
async def test_a_clock_that_is_set_costs_at_most_a_second(step: float, autojump_clock) -> None:
    clock = SettableClock()
    source = SelfGeneratedKeys(300, clock)
    async with running(source):
        clock.ahead += step
        assert source.not_ready is not None
        await trio.sleep(1.1)
        assert source.not_ready is None


async def test_a_clock_that_is_set_back_forever_fills_no_memory(autojump_clock) -> None:
    clock = SettableClock()
    source = SelfGeneratedKeys(300, clock)
    async with running(source):
        for _ in range(300):
            clock.ahead -= 10
            await trio.sleep(1.1)
            assert source.not_ready is None
        assert len(source.keyring) == 255
        assert len({key.key_id for key in source.keyring}) == 255


async def test_the_status_is_that_of_the_reference(autojump_clock) -> None:
    clock = SettableClock()
    source = SelfGeneratedKeys(10, clock)
    async with running(source):
        await trio.sleep(12)
        status = source.status(clock.now())
    assert list(status) == ["key_manager_type", "local_keys"]
    assert status["key_manager_type"] == "self_generated"
    keys = status["local_keys"]
    assert isinstance(keys, list)
    assert [key["status"] for key in keys] == ["Active", "Stale"]
    assert list(keys[0]) == [
        "key_id",
        "public_key",
        "status",
        "actived_at",
        "stale_at",
        "expire_at",
    ]


async def test_nobody_else_is_asked_for_a_key(autojump_clock) -> None:
    source = SelfGeneratedKeys(10, SettableClock())
    async with running(source):
        assert not await source.find_elsewhere(bytes(32))


async def test_without_settings_keys_are_made_here(autojump_clock) -> None:
    clock = SettableClock()
    source = make_key_source(None, clock, where="add_egress[0].ohttp.key")
    assert isinstance(source, SelfGeneratedKeys)
    async with running(source):
        (key,) = source.keyring
        assert key.stale_at - key.actived_at == DEFAULT_ROTATION_INTERVAL_S


async def test_the_configured_interval_counts(autojump_clock) -> None:
    settings = OhttpKey.model_validate({"source": "self_generated", "rotation_interval": 7})
    source = make_key_source(settings, SettableClock(), where="add_egress[0].ohttp.key")
    assert isinstance(source, SelfGeneratedKeys)
    async with running(source):
        (key,) = source.keyring
        assert key.stale_at - key.actived_at == 7


async def test_no_private_key_is_logged(autojump_clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = SelfGeneratedKeys(10, SettableClock())
    async with running(source):
        (key,) = source.keyring
    assert key.public_key[:8].hex() in caplog.text
    assert key.private.private_bytes_raw().hex() not in caplog.text
