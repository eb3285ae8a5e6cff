"""What goes wrong between two gateways that speak OHTTP, in the reference's names and statuses.

Source: spec of the OHTTP transport, sections 1.9 (answers of an egress) and 2.9 (answers of an
ingress).  The names go out as `code` of a JSON body; `tng.errors.ErrorCode` says the same to
whoever reads logs of both transports.
"""

from __future__ import annotations

import enum
from typing import Final

from tng.errors import ErrorCode, TngError


class Problem(enum.Enum):
    """Name, status, and the code of our own."""

    REJECT_NON_TNG_REQUEST = ("RejectNonTngRequest", 403, ErrorCode.REQUEST_REJECTED)
    INVALID_OHTTP_API_HEADER_VALUE = (
        "InvalidOhttpApiHeaderValue",
        400,
        ErrorCode.REQUEST_REJECTED,
    )
    INVALID_REQUEST_PAYLOAD = ("InvalidRequestPayload", 400, ErrorCode.REQUEST_REJECTED)
    INVALID_OHTTP_REQUEST = ("InvalidOHttpRequest", 400, ErrorCode.REQUEST_REJECTED)
    METADATA_READ_ERROR = ("MetadataReadError", 400, ErrorCode.REQUEST_REJECTED)
    METADATA_TOO_LONG = ("MetadataTooLong", 413, ErrorCode.REQUEST_REJECTED)
    METADATA_DECODE_ERROR = ("MetadataDecodeError", 400, ErrorCode.REQUEST_REJECTED)
    METADATA_VALIDATE_ERROR = ("MetadataValidateError", 500, ErrorCode.REQUEST_REJECTED)
    OHTTP_ERROR = ("OhttpError", 500, ErrorCode.REQUEST_REJECTED)
    KEY_HINT_NOT_SPECIFIED = ("ServerKeyConfigHintNotSpecified", 400, ErrorCode.REQUEST_REJECTED)
    KEY_NOT_FOUND = ("ServerKeyConfigNotFound", 422, ErrorCode.REQUEST_REJECTED)
    NO_ACTIVE_KEY = ("NoActiveKey", 422, ErrorCode.EVIDENCE_UNAVAILABLE)
    BHTTP_ERROR = ("BhttpError", 500, ErrorCode.REQUEST_REJECTED)
    INVALID_HTTP_REQUEST = ("InvalidHttpRequest", 400, ErrorCode.REQUEST_REJECTED)
    REPLAYED = ("ReplayedRequest", 409, ErrorCode.REQUEST_REJECTED)
    UPGRADE_NOT_SUPPORTED = ("UpgradeNotSupported", 501, ErrorCode.REQUEST_REJECTED)
    PLAIN_TEXT_FORWARD_ERROR = ("HttpPlainTextForwardError", 502, ErrorCode.UPSTREAM_UNREACHABLE)
    KEY_CONFIG_RESPONSE_FAILED = (
        "GenServerHpkeConfigurationResponseFailed",
        500,
        ErrorCode.EVIDENCE_UNAVAILABLE,
    )
    CHALLENGE_FAILED = (
        "ServerVerifyClientGetChallengeTokenFailed",
        500,
        ErrorCode.AS_UNREACHABLE,
    )
    EVIDENCE_FAILED = ("ServerVerifyClientEvidenceFailed", 500, ErrorCode.AS_REJECTED)
    CREATE_CLIENT_FAILED = ("CreateOHttpClientFailed", 500, ErrorCode.UPSTREAM_UNREACHABLE)
    SELECT_CONFIGURATION_FAILED = (
        "ClientSelectHpkeConfigurationFailed",
        500,
        ErrorCode.NOT_A_TNG_PEER,
    )
    NEW_KEY_NEEDED = (
        "ShouldRequestNewKeyConfigFromServerError",
        500,
        ErrorCode.UPSTREAM_UNREACHABLE,
    )
    CIPHER_TEXT_BAD_RESPONSE = ("HttpCipherTextBadResponse", 502, ErrorCode.UPSTREAM_UNREACHABLE)
    CIPHER_TEXT_FORWARD_ERROR = (
        "HttpCipherTextForwardError",
        504,
        ErrorCode.UPSTREAM_UNREACHABLE,
    )
    INVALID_OHTTP_RESPONSE = ("InvalidOHttpResponse", 400, ErrorCode.NOT_A_TNG_PEER)
    INVALID_HTTP_RESPONSE = ("InvalidHttpResponse", 400, ErrorCode.NOT_A_TNG_PEER)
    ANSWER_UNREADABLE = ("BhttpError", 500, ErrorCode.NOT_A_TNG_PEER)

    def __init__(self, title: str, status: int, code: ErrorCode) -> None:
        self.title: Final = title
        self.status: Final = status
        self.error_code: Final = code


class OhttpError(TngError):
    """One of `Problem`, with its circumstances.

    Args:
        problem: which.
        message: what was expected, what was seen, and what to do.
        code: where the cause has a better one than the problem in general.
    """

    def __init__(self, problem: Problem, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message, code=code or problem.error_code)
        self.problem = problem

    @property
    def http_status(self) -> int:
        """The status in the reference's table."""
        return self.problem.status
