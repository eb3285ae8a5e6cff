"""Base64 as tokens and services write it (RFC 4648 sections 4 and 5).

Octets in, text out, and back.  `decode_base64` takes either alphabet, with or without padding,
because services differ in what they send; `decode_standard` takes the one spelling that
`dump_standard` writes.

Invariant: nothing is skipped: a character that belongs to no alphabet is an error.
"""

from __future__ import annotations

import base64


def dump_base64url(data: bytes) -> str:
    """Text of the URL-safe alphabet, without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def dump_standard(data: bytes) -> str:
    """Text of the standard alphabet, padded (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_standard(text: str) -> bytes:
    """Octets of padded base64 in the standard alphabet, of which there is one spelling only.

    Raises:
        ValueError: other characters, missing padding, or bits behind the last octet.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as exc:  # binascii.Error, or characters beyond ASCII
        raise ValueError("not base64") from exc
    if dump_standard(data) != text:
        raise ValueError("not the one base64 spelling of its octets")
    return data


def decode_base64(text: str) -> bytes:
    """Octets of base64 in either alphabet, padded or not.

    RFC 7515 wants the standard alphabet with padding; some services send the URL-safe one.

    Raises:
        ValueError: characters of neither alphabet, of both, or an impossible length.
    """
    body = text.rstrip("=")
    if len(text) - len(body) > 2 or (("-" in body or "_" in body) and ("+" in body or "/" in body)):
        raise ValueError("not base64 of one alphabet")
    body = body.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except ValueError as exc:  # binascii.Error, or characters beyond ASCII
        raise ValueError("not base64") from exc
