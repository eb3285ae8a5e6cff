"""The policies that a running service knows: built-in ones, and uploaded ones on top of them.

Uploaded texts live in the state directory and shadow a built-in policy of the same name until
they are deleted.  Invariant: a policy is on disk before the upload is answered.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tng.errors import StartError
from tng.trustee.policy import BUILT_IN, Policy, make_policy
from tng.trustee.problems import ProblemCode, TrusteeRequestError
from tng.trustee.rego_text import Engines, without_engine

if TYPE_CHECKING:
    from tng.trustee.state import StateDirectory

log = logging.getLogger(__name__)

DEFAULT_POLICY: Final = "default"
"""What a request without policy ids means; it always exists."""

MAX_UPLOADED: Final = 256
"""Uploaded policies; bounds the directory and the list."""


class Policies:
    """Policies by id.

    Args:
        state: where uploaded ones are kept.
        engines: makes the Rego engine, for texts without a native twin.

    Raises:
        StartError: a stored policy cannot be evaluated by this version.
    """

    def __init__(self, state: StateDirectory, engines: Engines = without_engine) -> None:
        self._state = state
        self._engines = engines
        self._changing = asyncio.Lock()
        self._uploaded: dict[str, Policy] = {}
        for policy_id, text in state.policies().items():
            try:
                self._uploaded[policy_id] = make_policy(policy_id, text, engines)
            except TrusteeRequestError as exc:
                raise StartError(f"stored policy {policy_id!r}: {exc}") from exc
            _warn_if_trusting(self._uploaded[policy_id])

    def all(self) -> list[Policy]:
        """Every policy, by id."""
        return [policy for _, policy in sorted((BUILT_IN | self._uploaded).items())]

    def get(self, policy_id: str) -> Policy:
        """One policy.

        Raises:
            TrusteeRequestError: there is none of that name (404).
        """
        policy = self._uploaded.get(policy_id) or BUILT_IN.get(policy_id)
        if policy is None:
            known = ", ".join(item.policy_id for item in self.all()[:20])
            raise TrusteeRequestError(
                f"no policy {policy_id[:80]!r}; known: {known}", ProblemCode.NOT_FOUND
            )
        return policy

    def chosen_by(self, policy_ids: tuple[str, ...]) -> Policy:
        """The policy that a request asks for.

        Raises:
            TrusteeRequestError: more than one, or an unknown one (400).
        """
        if len(policy_ids) > 1:
            # An EAR token carries one id; a verifier that wants two could never accept it.
            raise TrusteeRequestError(
                f"policy_ids: an EAR token carries one policy, {len(policy_ids)} were asked for",
                ProblemCode.INVALID_ARGUMENT,
                field="policy_ids",
            )
        try:
            return self.get(policy_ids[0] if policy_ids else DEFAULT_POLICY)
        except TrusteeRequestError as exc:
            raise TrusteeRequestError(
                str(exc), ProblemCode.INVALID_ARGUMENT, field="policy_ids[0]"
            ) from exc

    async def put(self, policy_id: str, text: str) -> Policy:
        """Store a policy under a name, in place of what had it.

        Raises:
            TrusteeRequestError: see `policy.make_policy`; or there are too many (400).
            StartError: the state directory cannot be written.
        """
        policy = await asyncio.to_thread(make_policy, policy_id, text, self._engines)
        async with self._changing:  # what is on disk is what is known, whoever else uploads
            if policy_id not in self._uploaded and len(self._uploaded) >= MAX_UPLOADED:
                raise TrusteeRequestError(
                    f"there are {MAX_UPLOADED} uploaded policies already",
                    ProblemCode.INVALID_ARGUMENT,
                )
            await asyncio.to_thread(self._state.write_policy, policy_id, text)
            self._uploaded[policy_id] = policy
        log.info("policy stored id=%s sha384=%s", policy_id, policy.digest.hex())
        _warn_if_trusting(policy)
        return policy

    async def delete(self, policy_id: str) -> None:
        """Forget an uploaded policy; a built-in one of the same name shows again.

        Raises:
            TrusteeRequestError: it is the default policy or a built-in one (400), or unknown (404).
            StartError: the state directory cannot be written.
        """
        async with self._changing:
            self.get(policy_id)
            if policy_id == DEFAULT_POLICY or policy_id not in self._uploaded:
                raise TrusteeRequestError(
                    f"policy {policy_id!r} cannot be deleted", ProblemCode.INVALID_ARGUMENT
                )
            await asyncio.to_thread(self._state.remove_policy, policy_id)
            del self._uploaded[policy_id]
        log.info("policy deleted id=%s", policy_id)


def _warn_if_trusting(policy: Policy) -> None:
    if policy.trusts_all:
        log.warning(
            "policy %s affirms all evidence that verifies, whatever it measured: for tests only",
            policy.policy_id,
        )
