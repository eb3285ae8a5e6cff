"""The end of a token's life, read from a token of our own.

A JWT in, Unix time in seconds out; its signature is for those to check whom it is shown to.

Invariant: the time is a finite number within the calendar, or there is an error.
"""

from __future__ import annotations

from tng.attest.base64_text import decode_base64
from tng.attest.jws import MAX_TOKEN
from tng.attest.strict_json import parse_object
from tng.errors import AppraiserError, ErrorCode


def read_live_expiry(token: str, now: float) -> float:
    """The `exp` claim of a token that has just been made for us, Unix time in seconds.

    Raises:
        AppraiserError: AS_BAD_TOKEN; as `read_expiry`, or it has passed already.
    """
    expires = read_expiry(token)
    if expires <= now:
        raise AppraiserError(
            f"attestation service issued a token that expired {now - expires:.0f} s ago; "
            "compare the clocks of both machines",
            code=ErrorCode.AS_BAD_TOKEN,
        )
    return expires


def read_expiry(token: str) -> float:
    """The `exp` claim of a token of ours, Unix time in seconds; its signature is not checked here.

    Peers check the token; we only need to know when to ask for the next one.

    Raises:
        AppraiserError: AS_BAD_TOKEN; not a JWT with a numeric `exp`.
    """
    parts = token.split(".") if len(token) <= MAX_TOKEN else []
    if len(parts) != 3:
        raise _bad_token("it is not a JWT")
    try:
        claims = parse_object(decode_base64(parts[1]))
    except ValueError as exc:
        raise _bad_token("its claims are not a JSON object in base64url") from exc
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise _bad_token("it has no numeric exp claim")
    # Year 9999; also keeps infinities, NaN and integers beyond any float out.
    if not 0 < expires < 253402300800:
        raise _bad_token("its exp claim is no point in time")
    return float(expires)


def _bad_token(detail: str) -> AppraiserError:
    return AppraiserError(
        f"attestation service returned an unusable token: {detail}", code=ErrorCode.AS_BAD_TOKEN
    )
