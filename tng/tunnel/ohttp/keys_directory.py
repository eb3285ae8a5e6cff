"""Keys that another process keeps in a directory: the source `directory`.

In: a folder as `tng tools key-sync` of TNG 2.12 writes it, beside which this egress shares the
keys of a cluster of TNG egresses:

    current/<public key in hex>.key          PKCS#8 PEM, X25519
    current/<public key in hex>.meta.json    key_id, actived_at, stale_at, expire_at (RFC 3339), ...
    next/...     expired/...                 the same

Out: those keys.  Their times say what they are good for; the folder only lets a current key be
offered a little longer, until the next one is there.

Invariant: a key is taken when both its files are there, whole, and belong together.  One that is
gone stays for one look more, because it may just be moving from one folder to another.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import trio

from tng.attest.strict_json import parse_object
from tng.clock import Clock
from tng.errors import ConfigError
from tng.tunnel.ohttp.keyring import MAX_KEYS, Key, Keyring, short_name
from tng.tunnel.ohttp.pem_key import UnusableFileError, parse_private_key, read_small_file

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Seconds between two looks at the folder."""

FOLDERS: Final = ("expired", "next", "current")
"""Where keys lie; the last that has a key counts, which moves through all of them."""

OVERLAP_S: Final = 5.0
"""Seconds for which a current key is offered beyond its time: `key-sync` writes the first
successor when a key has got stale, up to a second late, and we see it another second later."""

_KEY_FILE: Final = re.compile(r"([0-9a-f]{64})\.key")
_TELL_AFTER: Final = 3  # looks; what is being written is whole by then


class DirectoryKeys:
    """The source of keys in a directory.

    Args:
        path: folder that holds `current`, `next` and `expired`.
        clock: the time of day.
        where: path of the setting in the configuration, for messages.
    """

    def __init__(self, path: str, clock: Clock, where: str) -> None:
        self._path = Path(path)
        self._clock = clock
        self._where = where
        self._found: dict[bytes, Key] = {}
        """What the last look found."""
        self._looks_in_vain: dict[Path, int] = {}
        self._keyring = Keyring()

    @property
    def keyring(self) -> Keyring:
        """The keys of now; any thread may read it."""
        return self._keyring

    @property
    def not_ready(self) -> str | None:
        """Why no key can be offered to clients, or None when one can."""
        if self._keyring.active(self._clock.now()) is None:
            return f"no OHTTP key is active; {self._where} has {len(self._keyring)} usable keys"
        return None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the keys, then follow the folder, until cancelled.

        A folder without keys is no error: the process that fills it may start later.

        Raises:
            ConfigError: there is no such folder when we start.
        """
        if not self._path.is_dir():
            raise ConfigError([f"{self._where}: expected a directory at {str(self._path)!r}"])
        self._look()
        task_status.started()
        while True:
            await trio.sleep(LOOK_S)
            self._look()

    def status(self, now: float) -> dict[str, object]:
        """What the control interface shows: public keys and times."""
        return {"key_manager_type": "directory", "keys": self._keyring.status_json(now)}

    async def find_elsewhere(self, public_key: bytes) -> bool:
        """Look at once: whoever fills the folder may know a key since a moment ago."""
        await trio.lowlevel.checkpoint()
        self._look()
        return self._keyring.find(public_key, self._clock.now()) is not None

    def _look(self) -> None:
        now = self._clock.now()
        found: dict[bytes, Key] = {}
        in_vain: dict[Path, int] = {}
        for file, name in self._key_files():
            try:
                key = self._read(file, name)
            except UnusableFileError as exc:
                in_vain[file] = self._looks_in_vain.get(file, 0) + 1
                if in_vain[file] == _TELL_AFTER:
                    log.warning("OHTTP key is left out file=%r: %s", str(file), exc)
            else:
                found[key.public_key] = key
        keys = [key for key in {**self._found, **found}.values() if key.expire_at > now]
        self._found, self._looks_in_vain = found, in_vain
        self._publish(sorted(keys, key=lambda key: -key.expire_at)[:MAX_KEYS])

    def _publish(self, keys: list[Key]) -> None:
        before, after = set(self._keyring), set(keys)
        if before == after:
            return
        known = {key.public_key for key in before}
        for key in keys:
            if key.public_key not in known:
                log.info("OHTTP key read from directory public_key=%s", short_name(key.public_key))
        self._keyring = Keyring(keys)

    def _key_files(self) -> Iterator[tuple[Path, str]]:
        """Files that may hold a key, with the public key in hex; not more than a ring takes."""
        for folder in FOLDERS:
            try:
                names = sorted(os.listdir(self._path / folder))  # noqa: PTH208 - names are enough
            except OSError:
                continue  # key-sync makes each folder when it first needs it
            matches = [match for match in map(_KEY_FILE.fullmatch, names) if match]
            for match in matches[:MAX_KEYS]:
                yield self._path / folder / match[0], match[1]

    def _read(self, file: Path, name: str) -> Key:
        secret = read_small_file(str(file))
        private = parse_private_key(secret.content)
        public = private.public_key().public_bytes_raw()
        if public.hex() != name:
            raise UnusableFileError(f"its public key is {public.hex()}, expected that of its name")
        if not secret.is_private and all(key.public_key != public for key in self._keyring):
            log.warning(
                "OHTTP key file can be read or written by others than its owner; "
                "chmod 600 is expected file=%r",
                str(file),
            )
        meta = _parse_meta(read_small_file(str(file.with_suffix(".meta.json"))).content)
        key_id = meta.get("key_id")
        if type(key_id) is not int or not 0 <= key_id <= 255:
            raise UnusableFileError("expected an integer 0-255 as key_id beside it")
        actived_at, stale_at, expire_at = (
            _parse_time(meta, field) for field in ("actived_at", "stale_at", "expire_at")
        )
        if not actived_at <= stale_at <= expire_at:
            raise UnusableFileError("expected actived_at, stale_at and expire_at in this order")
        if file.parent.name == FOLDERS[-1]:
            stale_at = min(stale_at + OVERLAP_S, expire_at)
        return Key(key_id, private, public, actived_at, stale_at, expire_at)


def _parse_meta(content: bytes) -> Mapping[str, object]:
    try:
        return parse_object(content)
    except ValueError as exc:
        raise UnusableFileError("expected a JSON object in .meta.json beside it") from exc


def _parse_time(meta: Mapping[str, object], field: str) -> float:
    value = meta.get(field)
    try:
        moment = dt.datetime.fromisoformat(value if isinstance(value, str) else "")
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        moment, seconds = None, 0.0
    if moment is None or moment.tzinfo is None:
        raise UnusableFileError(f"expected an RFC 3339 time with its offset as {field} beside it")
    return seconds
