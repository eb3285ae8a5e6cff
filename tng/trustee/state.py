"""The state directory: keys, certificates and policies, between one start and the next.

    lock               held while a process uses the directory
    signer.pem         token signer and its CA, private keys included
    ca.pem             the CA's certificate alone, for verifiers to pin
    challenge-key.pem  RSA key of challenges
    policies/ID.rego   uploaded policies
    resource-key.bin   key of the secrets in `resources`, unless it is kept elsewhere
    resources/         the key broker's secrets, sealed (`kbs.sealed_directory`)
    broker.sqlite      the key broker's policy and reference values (`kbs.database`)

Every file is written and read by the rules of `private_files`.

Invariant: secrets of this directory were never readable by another user; one that was is
refused.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric import rsa

from tng.attest.signer_identity import SignerIdentity
from tng.errors import StartError
from tng.trustee.challenge import KEY_BITS
from tng.trustee.identity import (
    RENEW_BEFORE_S,
    dump_identity,
    make_identity,
    parse_identity,
)
from tng.trustee.pem import dump_private_key, parse_private_keys
from tng.trustee.private_files import (
    FILE_MODE,
    make_private_directory,
    read_private,
    remove_drafts,
    remove_private,
    replace_private,
)

RESOURCE_KEY_OCTETS: Final = 32
"""Octets of the key that secrets at rest are sealed with (AES-256)."""


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
            make_private_directory(path, parents=True)
            for name in ("policies", "resources"):
                make_private_directory(path / name)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
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
        try:
            for directory in (path, path / "policies", path / "resources"):
                remove_drafts(directory)
        except OSError as exc:
            os.close(lock)
            raise StartError(f"state directory {path}: {exc.strerror}") from exc
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
        data = read_private(path)
        identity = parse_identity(data, str(path)) if data is not None else None
        if identity is None or identity.not_after - now < RENEW_BEFORE_S:
            identity = make_identity(now)
            replace_private(path, dump_identity(identity))
        replace_private(self.path / "ca.pem", identity.ca_pem)
        return identity

    def challenge_key(self) -> rsa.RSAPrivateKey:
        """The key of challenges; made on first use.

        Raises:
            StartError: the file is damaged, or readable by others.
        """
        path = self.path / "challenge-key.pem"
        data = read_private(path)
        if data is None:
            key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            replace_private(path, dump_private_key(key))
            return key
        keys = parse_private_keys(data, str(path))
        if len(keys) != 1 or not isinstance(keys[0], rsa.RSAPrivateKey):
            raise StartError(f"{path}: expected one RSA key")
        return keys[0]

    def resource_key(self, path: Path | None = None) -> bytes:
        """The key of secrets at rest; made on first use.

        Args:
            path: where it is kept; None for this directory.

        Raises:
            StartError: the file is not 32 octets long, or readable by others.
        """
        path = path or self.path / "resource-key.bin"
        key = read_private(path)
        if key is None:
            key = secrets.token_bytes(RESOURCE_KEY_OCTETS)
            replace_private(path, key)
        if len(key) != RESOURCE_KEY_OCTETS:
            raise StartError(f"{path}: expected {RESOURCE_KEY_OCTETS} octets, got {len(key)}")
        return key

    def policies(self) -> dict[str, str]:
        """Texts of the uploaded policies by id.

        Raises:
            StartError: a file is not text, or writable by others.
        """
        texts: dict[str, str] = {}
        for path in sorted((self.path / "policies").glob("*.rego")):
            data = read_private(path)
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
        replace_private(self.path / "policies" / f"{policy_id}.rego", text.encode("utf-8"))

    def remove_policy(self, policy_id: str) -> None:
        """Forget a policy; one that is not there is forgotten already.

        Raises:
            StartError: the file system says no.
        """
        remove_private(self.path / "policies" / f"{policy_id}.rego")
