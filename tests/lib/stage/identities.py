"""Sources of certificates that need no attester."""

from __future__ import annotations

from stage.certificates import self_signed
from tng.attest.credential import Credential


class Ordinary:
    """Makes certificates without evidence; counts them."""

    def __init__(self) -> None:
        self.made = 0

    async def make(self) -> Credential:
        self.made += 1
        key, certificate = self_signed()
        return Credential(
            key, certificate, certificate.not_valid_after_utc.timestamp(), tee="sample"
        )
