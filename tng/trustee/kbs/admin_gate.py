"""Who may administer: the holder of one Ed25519 key, by a token that the key signed.

    Authorization: Bearer <JWT, alg EdDSA, claims iat and exp>

A header and the time go in; nothing comes out, or an error.  Source: admin tokens of the key
broker (RFC 7519, RFC 8037).

Invariant: without a configured public key nobody is an administrator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tng.errors import StartError
from tng.trustee.problems import ProblemCode, TrusteeRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_LIFETIME_S: Final = 7200
"""Seconds from `iat` to `exp`: what clients of the key broker ask for."""

_CLOCK_SKEW_S: Final = 60  # the administrator's machine may run ahead
_MAX_TOKEN: Final = 4096  # characters; one has about 150
_MAX_KEY_FILE: Final = 65536
_MAX_TIME: Final = 1 << 40  # Unix time; later ones, and what is no number, are no times


class AdminGate:
    """Checks tokens.

    Args:
        key: verifies them; None lets nobody through.
    """

    def __init__(self, key: ed25519.Ed25519PublicKey | None) -> None:
        self._key = key

    @property
    def is_open(self) -> bool:
        """Whether there is anybody who could be an administrator."""
        return self._key is not None

    def check(self, authorization: str, now: float) -> None:
        """Return if the header shows a token of the administrator.

        Args:
            authorization: value of the header; "" if there is none.
            now: Unix time, seconds.

        Raises:
            TrusteeRequestError: administration is off (403), or no valid token (401).
        """
        if self._key is None:
            raise TrusteeRequestError(
                "administration is off: the service was started without --admin-key",
                ProblemCode.NOT_ALLOWED,
            )
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not 1 <= len(token) <= _MAX_TOKEN:
            raise _refused("expected Authorization: Bearer and a signed token")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["EdDSA"],
                # Times are checked below, against the clock that everything else uses.
                options={
                    "require": ["iat", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "verify_aud": False,
                },
            )
        except jwt.InvalidTokenError as exc:
            raise _refused("the token is not signed by the administrator's key") from exc
        _check_times(claims, now)


def read_admin_key(path: Path) -> ed25519.Ed25519PublicKey:
    """The administrator's public key, PEM.

    Raises:
        StartError: it cannot be read, or is no Ed25519 public key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_FILE)
        key = serialization.load_pem_public_key(data)
    except OSError as exc:
        raise StartError(f"{path}: {exc.strerror}") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise StartError(f"{path}: expected a public key in PEM") from exc
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise StartError(f"{path}: expected an Ed25519 public key")
    return key


def _check_times(claims: Mapping[str, object], now: float) -> None:
    issued, expires, not_before = (_time(claims.get(name, 0)) for name in ("iat", "exp", "nbf"))
    if not max(issued, not_before) - _CLOCK_SKEW_S <= now < expires:
        raise _refused("the token is out of its time")
    if expires - issued > MAX_LIFETIME_S:
        raise _refused(f"the token is good for more than {MAX_LIFETIME_S} s")


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_TIME:
        raise _refused("iat, exp and nbf of the token must be times")
    return value


def _refused(message: str) -> TrusteeRequestError:
    return TrusteeRequestError(message, ProblemCode.KBS_ADMIN)
