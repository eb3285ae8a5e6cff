"""Sources of certificates and statements that need no attester."""

from __future__ import annotations

from stage.certificates import self_signed
from tng.attest.credential import Credential
from tng.attest.statement_source import Passport, StatementSource
from tng.attest.user_data import UserData
from tng.wire.dice import CocoEvidence, HashAlgorithm


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


class Vouching(StatementSource):
    """Makes statements that only a stand-in judge believes; counts them.

    Args:
        model: what is shown.
        expires_at: `exp` of the tokens, Unix time in seconds.
    """

    provider = "coco"

    def __init__(self, model: str = "background_check", expires_at: float = 4102444800.0) -> None:
        self._model = model
        self.expires_at = expires_at
        self.made = 0
        self.about: list[UserData] = []
        self.is_closed = False

    @property
    def model(self) -> str:
        return self._model

    async def evidence(self, user_data: UserData) -> CocoEvidence:
        self.made += 1
        self.about.append(user_data)
        return CocoEvidence("sample", b"{}", None, "{}", HashAlgorithm.SHA384)

    async def passport(self, user_data: UserData) -> Passport:
        self.made += 1
        self.about.append(user_data)
        return Passport(f"a.b{self.made}.c", self.expires_at)

    async def aclose(self) -> None:
        self.is_closed = True
