"""The peers of an egress that shares keys: those of the configuration, and those of a file.

In: the list `peers`, and the path `peers_file` of a JSON file with a list of `host:port`, which is
looked at again and again.  Out: both together, each once.
Invariant: a file that is no such list changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

from tng.attest.strict_json import parse_json
from tng.errors import ConfigError
from tng.tunnel.ohttp.pem_key import UnusableFileError, read_small_file

log = logging.getLogger(__name__)

MAX_PEERS: Final = 256
"""As many as the configuration takes; each is asked every two seconds."""

_MAX_NAME: Final = 300  # characters: a DNS name, a colon and a port


class PeerList:
    """Who else has our keys.

    Args:
        configured: `host:port` each.
        path: file with a list of more; None for no file.
        where: path of that setting in the configuration, for messages.
    """

    def __init__(self, configured: Iterable[str], path: str | None, where: str) -> None:
        self._configured = tuple(dict.fromkeys(configured))
        self._path = path
        self._where = where
        self._seen: bytes | None = None
        self._complaint = ""
        self._current = self._configured

    @property
    def current(self) -> Sequence[str]:
        """Every peer once, those of the configuration first."""
        return self._current

    def read_first(self) -> None:
        """Read the file, which has to be there when we start.

        Raises:
            ConfigError: it is no JSON list of peers.
        """
        try:
            self._read()
        except UnusableFileError as exc:
            raise ConfigError([f"{self._where}: cannot use {self._path!r}: {exc}"]) from exc

    def look(self) -> None:
        """Read the file if it has changed; one that cannot be used is told about once."""
        try:
            self._read()
        except UnusableFileError as exc:
            if str(exc) != self._complaint:
                self._complaint = str(exc)
                log.warning(
                    "list of peers cannot be used, the one before stays %s=%r: %s",
                    self._where,
                    self._path,
                    exc,
                )

    def _read(self) -> None:
        if self._path is None:
            return
        content = read_small_file(self._path).content
        if content == self._seen:
            return
        self._current = tuple(dict.fromkeys((*self._configured, *_parse_peers(content))))
        if self._seen is not None:
            log.info("list of peers has changed peers=%d", len(self._current))
        self._seen, self._complaint = content, ""


def _parse_peers(content: bytes) -> list[str]:
    try:
        value = parse_json(content)
    except ValueError as exc:
        raise UnusableFileError(f"expected a JSON list of peers: {exc}") from exc
    if not isinstance(value, list) or len(value) > MAX_PEERS:
        raise UnusableFileError(f"expected a JSON list of at most {MAX_PEERS} peers")
    peers = [peer for peer in value if isinstance(peer, str) and _is_peer(peer)]
    if len(peers) != len(value):
        raise UnusableFileError("expected each peer as a text host:port")
    return peers


def _is_peer(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return (
        bool(host and colon)
        and len(text) <= _MAX_NAME
        and text.isprintable()
        and port.isascii()
        and port.isdecimal()
        and 1 <= int(port[:6]) <= 65535
    )
