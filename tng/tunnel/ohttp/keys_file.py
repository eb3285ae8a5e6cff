"""One key that the operator keeps in a file: the source `file`.

The path of a PKCS#8 PEM file in, the key in it out; the file is read every second, so that it
does not matter how a new key got there: written in place, renamed over, deleted and made again,
or by a symbolic link that points elsewhere (Kubernetes secrets).
Source: TNG 2.12, `file`; the key id is 0, and a key is offered for 30 years.

Invariant: content that is no key changes nothing.  A key that was replaced stays usable for
`GRACE_S`, so that clients that know only the old one lose no request.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tng.clock import Clock
from tng.errors import ConfigError
from tng.tunnel.ohttp.keyring import Key, Keyring, make_key, short_name
from tng.tunnel.ohttp.pem_key import (
    ReadFile,
    UnusableFileError,
    parse_private_key,
    read_small_file,
)

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Seconds between two looks at the file."""

FIND_INTERVAL_S: Final = 0.05
"""Seconds between two looks for the sake of requests: those with invented keys must not keep us
reading."""

GRACE_S: Final = 300.0
"""Seconds for which a replaced key is usable: clients ask for keys at least that often."""

LIFE_S: Final = 30 * 365 * 86400
"""Seconds for which a key is offered; the operator decides when it ends."""

MAX_REPLACED: Final = 16
"""Replaced keys in grace: whoever writes a new key every second is no reason to keep 300."""


class FileKey:
    """The source of a key in a file.

    Args:
        path: PKCS#8 PEM file.
        clock: the time of day.
        where: path of the setting in the configuration, for messages.
    """

    def __init__(self, path: str, clock: Clock, where: str) -> None:
        self._path = path
        self._clock = clock
        self._where = where
        self._seen: ReadFile | str | None = None
        """What the last look gave: the content, or the complaint; each is told once."""
        self._current: Key | None = None
        self._keyring = Keyring()
        self._finding = trio.Lock()
        self._looked_at = float("-inf")

    @property
    def keyring(self) -> Keyring:
        """The key of the file and those it replaced; any thread may read it."""
        return self._keyring

    @property
    def not_ready(self) -> str | None:
        """Why no key can be offered to clients, or None when one can."""
        if self._keyring.active(self._clock.now()) is None:
            return f"no OHTTP key is active; {self._where} holds the key"
        return None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the key, then follow the file, until cancelled.

        Raises:
            ConfigError: the file holds no key when we start.
        """
        try:
            self._look()
        except UnusableFileError as exc:
            raise ConfigError([f"{self._where}: cannot use {self._path!r}: {exc}"]) from exc
        task_status.started()
        while True:
            await trio.sleep(LOOK_S)
            self._look_again()
            self._keep_current()

    def status(self, now: float) -> dict[str, object]:
        """What the control interface shows: public key and times."""
        key = self._current
        return {
            "key_manager_type": "file",
            "key": None if key is None else key.status_json(now),
        }

    async def find_elsewhere(self, public_key: bytes) -> bool:
        """Look at the file now: another egress with the same file may have read it before us.

        All who ask while a look is awaited share it.

        Returns:
            Whether the key is there now.
        """
        asked = trio.current_time()
        async with self._finding:
            if self._looked_at < asked:
                await trio.sleep_until(self._looked_at + FIND_INTERVAL_S)
                self._look_again()
        return self._keyring.find(public_key, self._clock.now()) is not None

    def _look_again(self) -> None:
        self._looked_at = trio.current_time()
        try:
            self._look()
        except UnusableFileError as exc:
            self._complain(str(exc))

    def _look(self) -> None:
        file = read_small_file(self._path)
        if file == self._seen:
            return
        private = parse_private_key(file.content)
        if not file.is_private:
            log.warning(
                "OHTTP key file can be read or written by others than its owner; "
                "chmod 600 is expected %s=%r",
                self._where,
                self._path,
            )
        self._seen = file
        self._take(private)

    def _take(self, private: X25519PrivateKey) -> None:
        now = self._clock.now()
        key = make_key(0, private, now, LIFE_S)
        old = self._current
        if old is not None and old.public_key == key.public_key:
            return
        others = [k for k in self._keyring.unexpired(now) if k.public_key != key.public_key]
        if old is not None:
            others.remove(old)
            others.insert(0, dataclasses.replace(old, stale_at=now, expire_at=now + GRACE_S))
        self._current = key
        self._keyring = Keyring([key, *others[:MAX_REPLACED]])
        log.info("OHTTP key read from file public_key=%s", short_name(key.public_key))

    def _complain(self, complaint: str) -> None:
        if self._seen != complaint:
            self._seen = complaint
            log.warning(
                "OHTTP key file cannot be used, the key read before stays %s=%r: %s",
                self._where,
                self._path,
                complaint,
            )

    def _keep_current(self) -> None:
        """Drop what has expired; offer the key also when the clock was set to before its time."""
        now = self._clock.now()
        keys = self._keyring.unexpired(now)
        if self._keyring.active(now) is None and self._current is not None:
            self._current = make_key(0, self._current.private, now, LIFE_S)
            keys.append(self._current)
        elif len(keys) == len(self._keyring):
            return
        self._keyring = Keyring(keys)
