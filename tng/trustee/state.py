"""The state directory: keys, certificates and policies, between one start and the next.

    lock               held while a process uses the directory
    signer.pem         token signer and its CA, private keys included
    ca.pem             the CA's certificate alone, for verifiers to pin
    challenge-key.pem  RSA key of challenges
    policies/ID.rego   uploaded policies

Directories are 0700 and files 0600.  A file is replaced whole (written beside, flushed, renamed,
the directory flushed), so that a crash leaves the old text or the new one.

Invariant: secrets of this directory were never readable by another user; one that was is
refused.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa

from tng.errors import StartError
from tng.trustee.challenge import KEY_BITS
from tng.trustee.identity import (
    RENEW_BEFORE_S,
    SignerIdentity,
    dump_identity,
    make_identity,
    parse_identity,
)
from tng.trustee.pem import dump_private_key, parse_private_keys

_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_MAX_FILE: Final = 1_048_576
"""Octets that are read of one file; a policy has at most 256 KiB."""


class StateDirectory:
    """One state directory, locked for as long as it is open.

    Close it with `close()` or leave its `with` block.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Make the directory if it is missing, check it, and lock it.

        Raises:
            StartError: another process holds it, it is not ours, others can write to it, or the
                file system says no.
        """
        try:
            path.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
            _check_directory(path)
            policies = path / "policies"
            policies.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
            _check_directory(policies)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _FILE_MODE)
        except OSError as exc:
            raise StartError(f"state directory {path}: {exc.strerror}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(lock)
            raise StartError(
                f"state directory {path} is in use by another tng trustee;"
                " stop that one, or name another directory with --state"
            ) from exc
        return cls(path, lock)

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def identity(self, now: float) -> SignerIdentity:
        """The token signer; made on first use, and again within a year of its end.

        Args:
            now: Unix time, seconds.

        Raises:
            StartError: the file is damaged, or readable by others.
        """
        path = self.path / "signer.pem"
        data = self._read(path)
        identity = parse_identity(data, str(path)) if data is not None else None
        if identity is None or identity.not_after - now < RENEW_BEFORE_S:
            identity = make_identity(now)
            self._replace(path, dump_identity(identity))
        self._replace(self.path / "ca.pem", identity.ca_pem)
        return identity

    def challenge_key(self) -> rsa.RSAPrivateKey:
        """The key of challenges; made on first use.

        Raises:
            StartError: the file is damaged, or readable by others.
        """
        path = self.path / "challenge-key.pem"
        data = self._read(path)
        if data is None:
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            self._replace(path, dump_private_key(key))
            return key
        keys = parse_private_keys(data, str(path))
        if len(keys) != 1 or not isinstance(keys[0], rsa.RSAPrivateKey):
            raise StartError(f"{path}: expected one RSA key")
        return keys[0]

    def policies(self) -> dict[str, str]:
        """Texts of the uploaded policies by id.

        Raises:
            StartError: a file is not text, or writable by others.
        """
        texts: dict[str, str] = {}
        for path in sorted((self.path / "policies").glob("*.rego")):
            data = self._read(path)
            try:
                texts[path.stem] = (data or b"").decode("utf-8")
            except UnicodeDecodeError as exc:
                raise StartError(f"{path}: expected UTF-8 text") from exc
        return texts

    def write_policy(self, policy_id: str, text: str) -> None:
        """Store a policy.

        Args:
            policy_id: checked by `policy.make_policy`, so that it is a plain file name.
            text: Rego.

        Raises:
            StartError: the file system says no.
        """
        self._replace(self.path / "policies" / f"{policy_id}.rego", text.encode("utf-8"))

    def remove_policy(self, policy_id: str) -> None:
        """Forget a policy; one that is not there is forgotten already.

        Raises:
            StartError: the file system says no.
        """
        path = self.path / "policies" / f"{policy_id}.rego"
        try:
            path.unlink(missing_ok=True)
            _flush_directory(path.parent)
        except OSError as exc:
            raise StartError(f"{path}: {exc.strerror}") from exc

    def _read(self, path: Path) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StartError(f"{path}: {exc.strerror}") from exc
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise StartError(f"{path}: expected a regular file of the user who runs tng")
            if stat.S_IMODE(status.st_mode) & 0o077:
                raise StartError(
                    f"{path}: mode is {stat.S_IMODE(status.st_mode):04o}, expected 0600;"
                    " other users may know this secret: delete the file to get a new one"
                )
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise StartError(f"{path}: larger than {_MAX_FILE} octets")
        return data

    def _replace(self, path: Path, data: bytes) -> None:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(
                draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _FILE_MODE
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            draft.replace(path)
            _flush_directory(path.parent)
        except OSError as exc:
            draft.unlink(missing_ok=True)
            raise StartError(f"{path}: cannot be written: {exc.strerror}") from exc


def _check_directory(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StartError(f"{path}: expected a directory of the user who runs tng")
    if status.st_mode & 0o022:
        # Whoever can write here may have put a key of his own in place.
        raise StartError(
            f"{path}: mode is {stat.S_IMODE(status.st_mode):04o}, other users can write to it;"
            " expected 0700: name a new directory"
        )
    path.chmod(_DIRECTORY_MODE)


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
