"""The key broker's settings in SQLite: the resource policy, and reference values.

    setting          name -> text
    reference_value  name -> JSON text, end of its life (Unix time, seconds)

Every change is one transaction, flushed to disk before the call returns, so that a crash leaves
the state before or after it.  One connection, used by one thread at a time; calls block for a few
milliseconds and belong into a thread.

Invariant: the file belongs to one user, as every file of the state directory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Self

from tng.errors import StartError
from tng.trustee.private_files import FILE_MODE, check_private

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = 1
"""Version of the tables, kept in `user_version`."""

_TABLES: Final = """\
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS reference_value (
    name TEXT PRIMARY KEY, value TEXT NOT NULL, expires INTEGER NOT NULL) STRICT;
"""


class Database:
    """An open database.  Close it, or leave its `with` block."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file; made if it is missing.

        Raises:
            StartError: it is not ours alone, no such database, or of a later version.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        except OSError as exc:
            raise StartError(f"{path}: {exc.strerror}") from exc
        try:
            check_private(descriptor, path)
        finally:
            os.close(descriptor)
        try:
            connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as exc:
            raise StartError(f"{path}: cannot be opened as a database: {exc}") from exc
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def setting(self, name: str) -> str | None:
        """A setting's text; None if it was never set."""
        with self._transaction() as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_setting(self, name: str, value: str) -> None:
        """Keep a setting."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def reference_values(self, now: float) -> dict[str, str]:
        """JSON texts of the reference values that are still good, by name."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT name, value FROM reference_value WHERE expires > ? ORDER BY name",
                (int(now),),
            ).fetchall()
        return dict(rows)

    def set_reference_values(self, values: dict[str, str], expires: float, now: float) -> None:
        """Keep reference values, all or none, and drop those whose life has ended.

        Args:
            values: JSON texts by name.
            expires: end of their life; Unix time, seconds.
            now: Unix time, seconds.
        """
        with self._transaction() as connection:
            connection.execute("DELETE FROM reference_value WHERE expires <= ?", (int(now),))
            connection.executemany(
                "INSERT OR REPLACE INTO reference_value VALUES (?, ?, ?)",
                [(name, value, int(expires)) for name, value in values.items()],
            )

    def delete_reference_value(self, name: str) -> bool:
        """Forget a reference value; whether there was one."""
        with self._transaction() as connection:
            cursor = connection.execute("DELETE FROM reference_value WHERE name = ?", (name,))
            return cursor.rowcount > 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as exc:
                raise StartError(f"{self._path}: {exc}") from exc


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("PRAGMA synchronous = FULL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version <= SCHEMA:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;"
            )
    except sqlite3.Error as exc:
        raise StartError(f"{path}: cannot be used as a database: {exc}") from exc
    if version > SCHEMA:
        raise StartError(f"{path}: was written by a later version of tng")
