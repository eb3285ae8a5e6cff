"""The files of a simulated platform: written once and atomically, read back, locked.

The directory holds:

    platform.json          what this is, when it was made, how it is spoiled
    root.der               the development root, DER: what a verifier is given to trust
    *.key.pem              five private keys, mode 0600
    certificates.pem       root, PCK CA, TCB signer, PCK certificate
    collateral.json        the collateral of the moment it was made
    eventlog.bin           the guest's boot log
    reference_values.json  digests that a policy may ask for

The last three are for people and for other tools; `read_platform` does not need them.  Who can
read the keys can make evidence of this platform; that is all such evidence ever proves.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography import x509

from tng.attest.tdx.simulator.authority import Authority, Identity, dump_pem
from tng.attest.tdx.simulator.host import SimulatedHost
from tng.attest.tdx.simulator.keys import PrivateKey, read_key, write_key
from tng.attest.tdx.simulator.profile import HostProfile
from tng.attest.tdx.simulator.spoil import Spoil
from tng.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DESCRIPTION_FILE: Final = "platform.json"

_KIND: Final = "SIMULATED TDX platform, not Intel hardware"
_FORMAT: Final = 1
_KEYS: Final = ("root", "pck-ca", "tcb-signer", "pck", "attestation")


@dataclass(frozen=True, slots=True)
class StoredPlatform:
    """What a platform is made of and has to keep.

    Attributes:
        authority: the vendor.
        host: the machine, unspoiled.
        created: Unix time, seconds.
        spoil: the one thing that is wrong with the platform; None for nothing.
    """

    authority: Authority
    host: SimulatedHost
    created: int
    spoil: Spoil | None


def write_platform(directory: Path, platform: StoredPlatform, extra: Mapping[str, bytes]) -> None:
    """Write a new platform.

    Args:
        directory: must not exist, or be empty.
        platform: what to write.
        extra: further files, name to contents.

    Raises:
        EvidenceError: the directory is in use or cannot be written.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and renamed, so that nobody ever sees half a platform.
        scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            _write_files(scratch, platform, extra)
            scratch.rename(directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as exc:
        raise EvidenceError(
            f"a simulated platform cannot be written to {directory}: {exc.strerror}"
        ) from exc


def read_platform(directory: Path) -> StoredPlatform:
    """Read what `write_platform` wrote.

    Raises:
        EvidenceError: there is no platform, or its files do not belong together.
    """
    try:
        created, spoil = _read_description(directory / DESCRIPTION_FILE)
        keys = [read_key(directory / f"{name}.key.pem") for name in _KEYS]
        pem = (directory / "certificates.pem").read_bytes()
        chain = x509.load_pem_x509_certificates(pem)
        root, ca, signer, pck = (
            _identity(key, certificate) for key, certificate in zip(keys[:4], chain, strict=True)
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise EvidenceError(
            f"{directory} holds no simulated platform ({exc}); remove it to have a new one made"
        ) from exc
    authority = Authority(root, ca, signer)
    host = SimulatedHost(authority, pck, HostProfile(), keys[4])
    return StoredPlatform(authority, host, created, spoil)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a lock file beside `directory`; it stays there, empty, for the next process.

    Raises:
        EvidenceError: it cannot be made.
    """
    path = directory.with_name(f".{directory.name}.lock")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise EvidenceError(f"the lock {path} cannot be made: {exc.strerror}") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_files(directory: Path, platform: StoredPlatform, extra: Mapping[str, bytes]) -> None:
    authority, host = platform.authority, platform.host
    identities = (authority.root, authority.pck_ca, authority.tcb_signer, host.pck)
    keys = (*(i.key for i in identities), host.attestation_key)
    for name, key in zip(_KEYS, keys, strict=True):
        write_key(key, directory / f"{name}.key.pem")
    description = {
        "kind": _KIND,
        "format": _FORMAT,
        "created": platform.created,
        "spoil": platform.spoil,
    }
    files = {
        "certificates.pem": dump_pem(*(i.certificate for i in identities)).encode(),
        "root.der": authority.root_der,
        DESCRIPTION_FILE: json.dumps(description, indent=1).encode(),
    }
    for name, contents in {**extra, **files}.items():
        (directory / name).write_bytes(contents)


def _read_description(path: Path) -> tuple[int, Spoil | None]:
    description = json.loads(path.read_bytes())
    if (description["kind"], description["format"]) != (_KIND, _FORMAT):
        raise ValueError(f"{path.name} describes something else")
    spoil = description["spoil"]
    return int(description["created"]), None if spoil is None else Spoil(spoil)


def _identity(key: PrivateKey, certificate: x509.Certificate) -> Identity:
    if certificate.public_key() != key.public_key():
        raise ValueError("a certificate and its key do not belong together")
    return Identity(key, certificate)
