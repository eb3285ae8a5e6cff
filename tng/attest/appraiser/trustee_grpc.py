"""A client of Trustee's gRPC interface.

In: evidence.  Out: the service's token, unchecked; or whose fault it is that there is none:
`UntrustedPeerError` when the service looked at the evidence and refused it, `AppraiserError` when
it could not be asked or gave no answer to the question.  Also out: a challenge.  The service
publishes no certificate over gRPC: trust in its tokens comes from `trusted_certs_paths` alone.

Source: the package `attestation` of Trustee 1.6.0 and 1.5.2 as TNG 2.12.0 uses it: the newer
message first, then the older; `as_headers` become metadata.  Different on purpose: the generation
that was understood is remembered, a time limit, limits on every answer, and real challenges.

Invariant: no answer of a service is read beyond its limit, and no call outlasts `total_s`.
"""

from __future__ import annotations

import importlib.util
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tng.attest.appraiser.grpc_messages import (
    CHALLENGE,
    EMPTY,
    EVALUATE,
    PROBLEM_KEY,
    STATUS,
    flat_message,
    list_message,
    parse_challenge_message,
    parse_token_message,
)
from tng.attest.appraiser.trustee_messages import excerpt, parse_refusal
from tng.attest.appraiser.trustee_rest import TOTAL_TIMEOUT_S
from tng.attest.checks import Findings, Step
from tng.attest.jws import MAX_TOKEN
from tng.errors import AppraiserError, ConfigError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography import x509

    from tng.attest.appraiser.grpc_exchange import GrpcAnswer, GrpcExchange
    from tng.errors import AttestationError
    from tng.wire.dice import CocoEvidence

MAX_ANSWER: Final = MAX_TOKEN + 64
"""Octets of one answer: a token, and what a message has around it."""

DEFAULT_PORT: Final = 50004
"""Trustee's port for gRPC, where `as_addr` names none."""

_ABSENT: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"})
"""Statuses by which a service, or what stands in front of it, says: not now."""

_NOT_A_VERDICT: Final = frozenset(
    {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND"}
)
"""Statuses about the call itself, which say nothing about the evidence."""

_NO_VERDICT_CODES: Final = frozenset({ErrorCode.AS_UNREACHABLE, ErrorCode.COLLATERAL_UNAVAILABLE})
"""Codes by which our own service says that it could not judge."""

_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e]*")

_HINTS: Final = {
    "UNAVAILABLE": "; is as_addr right, and does the service run?",
    "DEADLINE_EXCEEDED": "; is as_addr right, and does the service run?",
    "UNAUTHENTICATED": "; check as_headers",
    "PERMISSION_DENIED": "; check as_headers",
    "UNIMPLEMENTED": "; check as_addr: is this the gRPC port of an attestation service?",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GrpcAddress:
    """Where a service listens.

    Attributes:
        target: host and port, an IPv6 address in brackets.
        is_secure: whether TLS is spoken.
    """

    target: str
    is_secure: bool

    def __str__(self) -> str:
        return f"{'https' if self.is_secure else 'http'}://{self.target}"


def parse_address(as_addr: str, where: str) -> GrpcAddress:
    """The host and port in an `as_addr`.

    Args:
        as_addr: an http or https URL.
        where: path of the key in the configuration, for messages.

    Raises:
        ConfigError: a path, a query or a password, for which gRPC has no place; or grpcio is not
            installed.
    """
    parts = urlsplit(as_addr)
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            [
                f"{where}: expected scheme, host and port alone (gRPC has no paths), "
                f"got more than {parts.scheme}://{parts.hostname}:{parts.port or DEFAULT_PORT}"
            ]
        )
    if importlib.util.find_spec("grpc") is None:
        raise ConfigError(
            [f"{where}: as_type grpc needs the extra: pip install 'tng-gateway[grpc]'"]
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else DEFAULT_PORT)
    return GrpcAddress(f"{host}:{port}", parts.scheme == "https")


def parse_metadata(headers: Mapping[str, str], where: str) -> list[tuple[str, str]]:
    """Headers as metadata (gRPC over HTTP/2, "Custom-Metadata").

    Args:
        headers: by name.
        where: path of the key in the configuration, for messages.

    Raises:
        ConfigError: a name or a value that metadata in ASCII cannot have; values are not shown.
    """
    metadata, problems = [], []
    for name, value in headers.items():
        key = name.lower()
        if not _KEY.fullmatch(key) or key.startswith("grpc-") or key.endswith("-bin"):
            problems.append(f"{where}: {name!r:.80} is no name for text in gRPC metadata")
        elif not _VALUE.fullmatch(value):
            problems.append(f"{where}[{name!r:.80}]: expected printable ASCII")
        metadata.append((key, value))
    if problems:
        raise ConfigError(problems)
    return metadata


class TrusteeGrpcAppraiser:
    """Asks one attestation service over gRPC.

    Args:
        address: where it listens.
        metadata: sent with every call; the values are secrets and never shown.
        user_agent: what we call ourselves.
        total_s: seconds that one call may take.
    """

    def __init__(
        self,
        address: GrpcAddress,
        metadata: Sequence[tuple[str, str]],
        *,
        user_agent: str,
        total_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._address = address
        self._metadata = tuple(metadata)
        self._user_agent = user_agent
        self._total_s = total_s
        self._exchange: GrpcExchange | None = None
        self._make = list_message
        self._is_understood = False

    def __repr__(self) -> str:
        return f"TrusteeGrpcAppraiser({str(self._address)!r})"

    async def appraise(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> str:
        """See `Appraiser.appraise`."""
        answer = await self._evaluate(evidence, policy_ids)
        if answer.status == "OK":
            return self._parsed(parse_token_message, answer, EVALUATE)
        raise self._refusal(EVALUATE, answer)

    async def challenge(self) -> str:
        """See `Appraiser.challenge`."""
        answer = await self._call(CHALLENGE, EMPTY)
        if answer.status == "OK":
            return self._parsed(parse_challenge_message, answer, CHALLENGE)
        raise self._no_answer(CHALLENGE, answer)

    async def fetch_certificates(self) -> list[x509.Certificate]:
        """Never any: the interface has no such call; the configuration names files instead."""
        raise AppraiserError(
            f"attestation service {self._address} publishes no certificate over gRPC: name the "
            "file of its signer's CA in trusted_certs_paths",
            code=ErrorCode.AS_REJECTED,
        )

    async def probe(self) -> None:
        """See `Appraiser.probe`; a service that knows no status counts as there."""
        answer = await self._call(STATUS, EMPTY)
        if answer.status in _ABSENT:
            raise self._no_answer(STATUS, answer)

    async def aclose(self) -> None:
        """See `Appraiser.aclose`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.close()

    async def _evaluate(self, evidence: CocoEvidence, policy_ids: Sequence[str]) -> GrpcAnswer:
        """Ask in the generation that was right last time, and in the other if it is not today.

        An older service cannot tell which message it was sent: it fails in some way while it reads
        it, or takes it for evidence of a TEE that it does not know.
        """
        answer = await self._call(EVALUATE, self._make(evidence, policy_ids))
        if answer.status == "OK":
            self._is_understood = True
        if not self._may_be_misunderstood(answer):
            return answer
        other = flat_message if self._make is list_message else list_message
        try:
            message = other(evidence, policy_ids)
        except AppraiserError:  # it cannot be said in the older generation
            return answer
        second = await self._call(EVALUATE, message)
        if second.status != "OK":
            return answer  # the newer service's words about the evidence are the better ones
        log.info("attestation service speaks another generation url=%s", self._address)
        self._make, self._is_understood = other, True
        return second

    def _may_be_misunderstood(self, answer: GrpcAnswer) -> bool:
        if answer.status == "OK" or answer.status in _ABSENT | _NOT_A_VERDICT or answer.problem:
            return False
        return not self._is_understood or "decode" in answer.detail

    async def _call(self, method: str, message: bytes) -> GrpcAnswer:
        """The answer to one call, with the service's address in the error."""
        try:
            return await self._open().call(
                method, message, timeout_s=self._total_s, problem_key=PROBLEM_KEY
            )
        except AppraiserError as exc:
            raise AppraiserError(
                f"attestation service {self._address}{method} gave no answer: {exc}", code=exc.code
            ) from exc

    def _open(self) -> GrpcExchange:
        """The channel, made at the first call."""
        if self._exchange is None:
            from tng.attest.appraiser.grpc_exchange import GrpcExchange

            self._exchange = GrpcExchange(
                self._address.target,
                self._metadata,
                is_secure=self._address.is_secure,
                user_agent=self._user_agent,
                max_answer=MAX_ANSWER,
            )
        return self._exchange

    def _parsed(self, parse: Callable[[bytes], str], answer: GrpcAnswer, method: str) -> str:
        try:
            return parse(answer.body)
        except AppraiserError as exc:
            raise AppraiserError(f"{self._address}{method}: {exc}", code=exc.code) from exc

    def _refusal(self, method: str, answer: GrpcAnswer) -> AttestationError:
        """The error for an answer to evidence that is no token."""
        code, words, checks = parse_refusal(answer.problem or answer.detail.encode())
        named = code is not ErrorCode.AS_REJECTED
        if not named and answer.status in _ABSENT | _NOT_A_VERDICT:
            return self._no_answer(method, answer)
        if named and code in _NO_VERDICT_CODES:
            return AppraiserError(f"attestation service {self._address}: {words}", code=code)
        findings = Findings(0)
        findings.failed(Step.APPRAISAL, f"the service answered {answer.status}: {words}")
        findings.report(checks)
        return findings.refused(
            code,
            f"attestation service {self._address} refused the evidence ({answer.status}): {words}",
        )

    def _no_answer(self, method: str, answer: GrpcAnswer) -> AppraiserError:
        """The error for an answer that says nothing about the evidence."""
        is_absent = answer.status in _ABSENT
        return AppraiserError(
            f"attestation service {self._address}{method} answered {answer.status}: "
            f"{excerpt(answer.detail.encode())}{_HINTS.get(answer.status, '')}",
            code=ErrorCode.AS_UNREACHABLE if is_absent else ErrorCode.AS_REJECTED,
        )
