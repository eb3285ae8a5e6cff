"""TLS contexts follow our certificate."""

from __future__ import annotations

from typing import Any

import pytest

from stage.conversation import eventually
from stage.identities import Ordinary
from tng.clock import SystemClock
from tng.errors import EvidenceError
from tng.tunnel.rats_tls.contexts import Contexts
from tng.tunnel.rats_tls.identity import Identity


class Absent(Ordinary):
    async def make(self) -> Any:
        raise EvidenceError("no TEE here")


def contexts(plane: Any, ours: Identity | None, *, server_side: bool) -> Contexts:
    return Contexts((b"h2",), ours, plane.bridge, server_side=server_side)


@pytest.mark.parametrize("server_side", [True, False])
async def test_without_attestation_one_context_serves_all(plane, server_side: bool) -> None:
    made = contexts(plane, None, server_side=server_side)
    assert await plane.run(made.get()) is await plane.run(made.get())


async def test_a_certificate_per_connection_is_a_context_per_connection(plane) -> None:
    made = contexts(plane, Identity(Ordinary(), 0, SystemClock()), server_side=True)
    assert await plane.run(made.get()) is not await plane.run(made.get())


async def test_a_renewed_certificate_is_a_new_context(plane, nursery) -> None:
    ours = Identity(Ordinary(), 1, SystemClock())
    made = contexts(plane, ours, server_side=False)
    nursery.start_soon(ours.run)
    first = await plane.run(made.get())
    assert await plane.run(made.get()) is first
    before = ours.current
    await eventually(lambda: ours.current is not before)
    assert await plane.run(made.get()) is not first


async def test_who_must_prove_itself_and_cannot_gets_no_context(plane, nursery) -> None:
    ours = Identity(Absent(), 600, SystemClock())
    nursery.start_soon(ours.run)
    with pytest.raises(EvidenceError, match="no TEE here"):
        await plane.run(contexts(plane, ours, server_side=True).get())
