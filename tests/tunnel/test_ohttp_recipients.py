"""Keys of egresses: asked for once, renewed in time, never used beyond their verdict."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from stage.judges import verdict
from tng.clock import FixedClock
from tng.dataplane.task import Wait
from tng.endpoint import Endpoint
from tng.errors import NetError, TngError
from tng.tunnel.ohttp import recipients as recipients_module
from tng.tunnel.ohttp.recipients import (
    ClientCredential,
    OuterUrl,
    Recipient,
    Recipients,
    life_of,
)
from tng.verdict import AttestedPeer, NoRa
from tng.wire.ohttp_keys import ADVERTISED_SUITES, KeyConfig

URL = OuterUrl(Endpoint("egress", 80), b"/")


def recipient(renew_at: float, ends_at: float) -> Recipient:
    config = KeyConfig(0, bytes(32), ADVERTISED_SUITES)
    return Recipient(config, config.suites[0], NoRa.NO_RA, None, b"", renew_at, ends_at)


class Fetching:
    """Hands out recipients; each answer waits until it is let go."""

    def __init__(self) -> None:
        self.calls: list[OuterUrl] = []
        self.answers: list[Recipient | BaseException] = []
        self.gate: Wait[None] | None = None

    async def fetch(self, url: OuterUrl) -> Recipient:
        self.calls.append(url)
        answer = self.answers.pop(0)
        if self.gate is not None:
            await self.gate
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def made(plane):
    clock, fetching = FixedClock(100.0), Fetching()
    return Recipients(plane.reactor, clock, fetching.fetch), clock, fetching


async def test_a_key_is_asked_for_once_and_used_until_it_is_time(plane, made) -> None:
    recipients, clock, fetching = made
    first, second = recipient(150.0, 200.0), recipient(250.0, 300.0)
    fetching.answers = [first, second]
    assert await plane.run(recipients.get(URL)) is first
    clock.at = 149.0
    assert await plane.run(recipients.get(URL)) is first
    assert len(fetching.calls) == 1
    clock.at = 150.0
    assert await plane.run(recipients.get(URL)) is first, "it is renewed beside its use"
    assert await plane.run(recipients.get(URL)) is second
    assert list(recipients.known()) == [(URL, second)]


async def test_a_key_whose_time_is_over_is_not_used_even_if_no_other_comes(plane, made) -> None:
    recipients, clock, fetching = made
    fetching.answers = [recipient(150.0, 200.0), NetError("nobody"), NetError("nobody")]
    await plane.run(recipients.get(URL))
    clock.at = 160.0
    await plane.run(recipients.get(URL))  # a renewal fails, and the old one serves on
    await plane.run(recipients.get(URL))
    assert len(fetching.calls) == 2, "the next try waits a moment"
    clock.at = 200.0
    with pytest.raises(NetError):
        await plane.run(recipients.get(URL))


async def test_who_asks_meanwhile_gets_the_same_answer(plane, made) -> None:
    recipients, _, fetching = made
    only = recipient(150.0, 200.0)
    fetching.answers, fetching.gate = [only], Wait()
    found = []

    async def ask() -> None:
        found.append(await recipients.get(URL))

    async def all_ask() -> None:
        for _ in range(3):
            plane.reactor.spawn(ask(), "asks")
        plane.reactor.call_later(0.01, lambda: fetching.gate.set(None))
        found.append(await recipients.get(URL))

    await plane.run(all_ask())
    await plane.call(lambda: None)
    assert found == [only] * 4
    assert len(fetching.calls) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(NetError("nobody"), "upstream_unreachable"), (KeyError(), "internal_error")],
)
async def test_everybody_who_waits_hears_why_not(plane, made, error, code, caplog) -> None:
    recipients, _, fetching = made
    fetching.answers = [error]
    with pytest.raises(TngError) as heard:
        await plane.run(recipients.get(URL))
    assert heard.value.code == code
    fetching.answers = [recipient(150.0, 200.0)]
    assert await plane.run(recipients.get(URL)), "the next one tries again"


async def test_a_refused_key_is_replaced_unless_that_was_done_already(plane, made) -> None:
    recipients, _, fetching = made
    first, second = recipient(150.0, 200.0), recipient(150.0, 200.0)
    fetching.answers = [first, second]
    await plane.run(recipients.get(URL))
    assert await plane.run(recipients.get_other(URL, first)) is second
    assert await plane.run(recipients.get_other(URL, first)) is second
    assert len(fetching.calls) == 2


async def test_only_so_many_urls_are_remembered(plane, made, monkeypatch) -> None:
    monkeypatch.setattr(recipients_module, "MAX_RECIPIENTS", 3)
    recipients, _, fetching = made
    for number in range(10):
        fetching.answers = [recipient(150.0, 200.0)]
        await plane.run(recipients.get(OuterUrl(URL.endpoint, b"/%d" % number)))
    assert [url.path for url, _ in recipients.known()] == [b"/7", b"/8", b"/9"]


def peer(valid_until: float) -> AttestedPeer:
    return AttestedPeer(verdict(accepted=True, valid_until=valid_until), "token")


def credential(expires: float) -> ClientCredential:
    private = X25519PrivateKey.generate()
    return ClientCredential(private, private.public_key().public_bytes_raw(), "secret", expires)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"expires": 200.0}, (175.0, 200.0)),
        ({"expires": 1e9, "interval_s": 50.0}, (150.0, 1e9)),
        ({"expires": 0.0}, (100.75, 101.0)),
        ({"expires": 200.0, "interval_s": 0}, (100.0, 100.0)),
        ({"expires": 1e9, "peer": peer(140.0)}, (130.0, 140.0)),
        ({"expires": 1e9, "credential": credential(120.0)}, (115.0, 120.0)),
        ({"expires": 0.0, "peer": peer(100.5)}, (100.375, 100.5)),
    ],
)
def test_the_shortest_life_counts(settings, expected) -> None:
    given = {"interval_s": 300.0, "peer": NoRa.NO_RA, "credential": None, **settings}
    assert life_of(100.0, **given) == expected


def test_nothing_secret_is_shown() -> None:
    shown = repr(credential(1.0)) + repr(recipient(1.0, 2.0))
    assert "secret" not in shown
