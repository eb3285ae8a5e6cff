"""A folder of collateral: what was fetched, kept for the next start.

One file per kind of platform, `<fmspc>-<platform|processor>.json`: an object with `format`,
`fetched_at` (Unix time, seconds), `sha256` and `collateral` (the JSON form, as text).  The digest
finds files that were cut short or altered; whether their content is the vendor's is asked by the
caller each time, so that a folder adds no trust.  The same folder, filled elsewhere and carried
over, serves a machine without a network.

Invariant: a file is replaced as a whole, and a file that cannot be read is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tng.attest.tdx.collateral import MAX_COLLATERAL_OCTETS, Collateral
from tng.errors import AppraiserError

FORMAT: Final = "tng-collateral-1"

MAX_FILE: Final = 2 * MAX_COLLATERAL_OCTETS
"""Octets of one file: the collateral's text, with its quotes escaped."""

MAX_FILES: Final = 64
"""Files in the folder; the oldest makes room.  Whoever sends quotes names the platforms."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """One file's content.

    Attributes:
        collateral: not judged yet.
        fetched_at: Unix time, seconds.
    """

    collateral: Collateral
    fetched_at: float


class CollateralFolder:
    """Collateral on disk.  Blocking: called in threads.

    Args:
        path: the folder; made, for its owner alone, when something is first kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def file_of(self, platform: str) -> Path:
        """Where the collateral of a platform is, or would be.

        Args:
            platform: FMSPC in lower-case hexadecimal, a hyphen, and "platform" or "processor".
        """
        return self._path / f"{platform}.json"

    def load(self, platform: str) -> Kept | None:
        """What is kept for a platform; None without a whole and unaltered file."""
        file = self.file_of(platform)
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_FILE + 1)
            return _parse(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AppraiserError) as exc:
            log.warning("kept collateral is of no use file=%s reason=%s", file, exc)
            return None

    def save(self, platform: str, kept: Kept) -> None:
        """Keep the collateral of a platform; a folder that cannot be written is only logged."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room()
            _replace(self.file_of(platform), _dump(kept))
        except OSError as exc:
            log.warning("collateral is not kept folder=%s reason=%s", self._path, exc)

    def _make_room(self) -> None:
        files = sorted(self._path.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[: max(0, len(files) - MAX_FILES + 1)]:
            file.unlink()


def _dump(kept: Kept) -> bytes:
    text = kept.collateral.to_json()
    members = {
        "format": FORMAT,
        "fetched_at": int(kept.fetched_at),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "collateral": text,
    }
    return json.dumps(members, indent=1).encode()


def _parse(data: bytes) -> Kept:
    if len(data) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} octets")
    try:
        members = json.loads(data)
    except RecursionError as exc:
        raise ValueError("it is not JSON") from exc
    match members:
        case {
            "format": str(version),
            "fetched_at": int(fetched_at),
            "sha256": str(digest),
            "collateral": str(text),
        } if version == FORMAT and not isinstance(fetched_at, bool):
            pass
        case _:
            raise ValueError(f"it is no object of the format {FORMAT!r}")
    seen = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    if not hmac.compare_digest(seen.encode(), digest.encode("utf-8", "surrogatepass")):
        raise ValueError("its digest is not that of its content")
    return Kept(Collateral.from_json(text), float(fetched_at))


def _replace(file: Path, data: bytes) -> None:
    """Write beside the file and rename, so that no reader meets half of it."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(name).replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
