"""What an ingress says of its peers: the answer of `/status/attestation`, as values.

In: the JSON text.  Out: one `PeerView` per peer.  Source: the control interface of this project.
Invariant: text of another shape is an error, never an empty answer.
"""

from __future__ import annotations

import pydantic

from tng.errors import RemoteProtocolError


class CheckView(pydantic.BaseModel):
    """One check; the fields are those of `tng.verdict.Check`."""

    number: int
    name: str
    outcome: str
    detail: str


class PeerView(pydantic.BaseModel):
    """The last verdict on one peer; the fields are those of `tng.verdict.Verdict`."""

    accepted: bool
    code: str | None = None
    checks: list[CheckView] = []
    tee: str = ""
    simulated: bool = False


class _Entry(pydantic.BaseModel):
    id: int
    peers: dict[str, PeerView] = {}


class _Status(pydantic.BaseModel):
    ingress: list[_Entry] = []


def peers_of_ingress(text: str | bytes) -> dict[str, PeerView]:
    """All peers that any ingress has judged, by `host:port`.

    Raises:
        RemoteProtocolError: the text is not the answer of `/status/attestation`.
    """
    try:
        status = _Status.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RemoteProtocolError(f"/status/attestation: {where}: {first['msg']}") from error
    return {label: view for entry in status.ingress for label, view in entry.peers.items()}
