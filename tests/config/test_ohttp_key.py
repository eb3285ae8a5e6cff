"""Sources of the egress's OHTTP key: which keys go with which, and the nearest that do not."""

from __future__ import annotations

from typing import Final

import pytest
from pydantic import ValidationError

from tng.config.ohttp import OhttpKey

PEERS: Final = {"source": "peer_shared", "rotation_interval": 300}
ATTEST: Final = {"aa_addr": "unix:///run/aa.sock"}
VERIFY: Final = {"as_addr": "http://127.0.0.1:1", "policy_ids": ["default"]}


@pytest.mark.parametrize(
    "written",
    [
        {"source": "self_generated", "rotation_interval": 1},
        {"source": "file", "path": "/run/key.pem"},
        {"source": "directory", "path": "/run/keys"},
        {"source": "peer_shared", "rotation_interval": 31_536_000, "no_ra": True},
    ],
)
def test_each_source_has_its_settings(written: dict[str, object]) -> None:
    key = OhttpKey.model_validate(written)
    assert {name: getattr(key, name) for name in written} == written


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ({"source": "directory"}, "path: required key is missing"),
        (
            {"source": "directory", "path": "/run/keys", "rotation_interval": 5},
            'rotation_interval: does not go with "source": "directory"',
        ),
        (
            {"source": "self_generated", "rotation_interval": 5, "path": "/run/keys"},
            'it is for "source": "file" or "directory"',
        ),
        ({"source": "self_generated", "rotation_interval": 0}, "expected an integer 1-31536000"),
        ({**PEERS, "attest": ATTEST}, "verify: required beside `attest`"),
        ({**PEERS, "verify": VERIFY}, "attest: required beside `verify`"),
        ({**PEERS, "verify": VERIFY, "no_ra": True}, "should not be used with 'verify' field"),
        ({"source": "folder", "path": "/run/keys"}, "Input should be"),
    ],
)
def test_what_does_not_go_together_is_refused(written: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        OhttpKey.model_validate(written)


def test_peers_that_attest_and_verify_are_taken() -> None:
    key = OhttpKey.model_validate({**PEERS, "attest": ATTEST, "verify": VERIFY})
    assert key.attest is not None
    assert key.verify is not None
