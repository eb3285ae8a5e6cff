"""Where trust in a token's signer comes from, and when it is looked up again."""

from __future__ import annotations

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding

from tng.attest.verifier.anchors import (
    FAILURE_MEMORY_S,
    REFETCH_INTERVAL_S,
    FetchedAnchors,
    load_pinned,
)
from tng.errors import AppraiserError, ConfigError


class Service:
    """Publishes certificates; absent while `certificates` is None."""

    def __init__(self, certificates):
        self.certificates = certificates
        self.calls = 0

    async def fetch_certificates(self):
        self.calls += 1
        await trio.sleep(0.01)
        if self.certificates is None:
            raise AppraiserError("absent")
        return list(self.certificates)


async def test_pinned_files_give_their_first_certificate(signer, tmp_path):
    path = tmp_path / "chain.pem"
    path.write_bytes(signer.chain_pem)
    anchors = load_pinned([str(path)])
    assert await anchors.get() == (signer.leaf,)
    assert await anchors.newer_than((signer.leaf,)) is None


def test_every_unreadable_file_is_named(signer, tmp_path):
    (tmp_path / "text.pem").write_text("hello")
    (tmp_path / "large.pem").write_bytes(signer.ca.public_bytes(Encoding.PEM) * 1000)
    paths = [str(tmp_path / name) for name in ("absent.pem", "text.pem", "large.pem")]
    with pytest.raises(ConfigError) as caught:
        load_pinned(paths)
    assert len(caught.value.problems) == 3
    assert all(path in problem for path, problem in zip(paths, caught.value.problems, strict=True))


async def test_anchors_are_fetched_once_for_everybody(signer, autojump_clock):
    service = Service([signer.ca])
    anchors = FetchedAnchors(service)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(anchors.get)
    assert await anchors.get() == (signer.ca,)
    assert service.calls == 1


async def test_a_failure_is_remembered_for_a_moment_only(signer, autojump_clock):
    service = Service(None)
    anchors = FetchedAnchors(service)
    for _ in range(3):
        with pytest.raises(AppraiserError, match="absent"):
            await anchors.get()
    assert service.calls == 1
    service.certificates = [signer.ca]
    await trio.sleep(FAILURE_MEMORY_S)
    assert await anchors.get() == (signer.ca,)


async def test_newer_anchors_are_looked_for_at_most_once_per_interval(signer, autojump_clock):
    service = Service([signer.ca])
    anchors = FetchedAnchors(service)
    seen = await anchors.get()
    assert await anchors.newer_than(seen) is None
    assert await anchors.newer_than(seen) is None
    assert service.calls == 2
    service.certificates = [signer.leaf]
    await trio.sleep(REFETCH_INTERVAL_S)
    newer = await anchors.newer_than(seen)
    assert newer == (signer.leaf,)
    assert await anchors.newer_than(seen) == newer
    assert service.calls == 3


async def test_a_failed_look_keeps_the_old_anchors(signer, autojump_clock):
    service = Service([signer.ca])
    anchors = FetchedAnchors(service)
    seen = await anchors.get()
    service.certificates = None
    assert await anchors.newer_than(seen) is None
    assert await anchors.get() == seen
