"""Hash algorithms by the names that requests use for them."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes

from tng.attest.strict_json import Json
from tng.trustee.json_body import invalid, join

DEFAULT_HASH: Final = "sha384"
"""What a request without an algorithm means."""

_ALGORITHMS: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
    "sm3": hashes.SM3,
}


def hash_name(members: dict[str, Json], name: str, where: str) -> str:
    """Value of the member that names an algorithm; the default where it is missing or null.

    Raises:
        TrusteeRequestError: unknown algorithm (400).
    """
    value = members.get(name)
    if value is None:
        return DEFAULT_HASH
    return checked_hash_name(value, join(where, name))


def checked_hash_name(value: object, field: str) -> str:
    """A value that must name an algorithm.

    Raises:
        TrusteeRequestError: it does not (400).
    """
    if not isinstance(value, str) or value not in _ALGORITHMS:
        raise invalid(f"expected one of {', '.join(_ALGORITHMS)}", field)
    return value


def digest(name: str, data: bytes) -> bytes:
    """Hash of `data` by the algorithm of that name: 32, 48 or 64 octets."""
    state = hashes.Hash(_ALGORITHMS[name]())
    state.update(data)
    return state.finalize()
