"""Base64url as requests carry it: RFC 4648 section 5, with or without padding, nothing else."""

from __future__ import annotations

import base64
import re
from typing import Final

from tng.trustee.problems import ProblemCode, TrusteeRequestError

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")


def parse_base64url(text: str, field: str) -> bytes:
    """Octets of a text.

    Args:
        text: base64url; padding may be there, whole.
        field: path of the member, for the message.

    Raises:
        TrusteeRequestError: a character outside the alphabet, or a length that cannot be (400).
    """
    bare = text.rstrip("=")
    if (
        not _ALPHABET.fullmatch(text)
        or len(bare) % 4 == 1
        or (len(bare) != len(text) and len(text) % 4)
    ):
        raise TrusteeRequestError(
            f"{field}: not base64url", ProblemCode.INVALID_ENCODING, field=field
        )
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
