"""What a killed run had acknowledged: its SQL statements, replayed, must give the ledger that is on disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
from itertools import zip_longest

TABLES = ("meta", "generations", "launches", "incidents", "attempts", "steps", "requests", "events", "changes")


class Replay:
    """One ledger, followed from `start` on; `scratch` is a folder to read a copy in."""

    def __init__(self, path: str, scratch: str) -> None:
        self.path, self.copy = path, f"{scratch}/ledger.db"
        self._said = sqlite3.connect(":memory:", isolation_level=None)

    def start(self) -> None:
        """Take what is on disk now for what was said so far."""
        self._said.close()
        self._said = self.read()

    def read(self) -> sqlite3.Connection:
        """Read the ledger as it is, log and all, without touching it: whoever opens it also mends it."""
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.copy + suffix):
                os.unlink(self.copy + suffix)
            if suffix != "-shm" and os.path.exists(self.path + suffix):
                shutil.copyfile(self.path + suffix, self.copy + suffix)
        found = sqlite3.connect(":memory:", isolation_level=None)
        on_disk = sqlite3.connect(self.copy)
        try:
            on_disk.backup(found)
        finally:
            on_disk.close()
        return found

    def check(self, sql: list[tuple[str, str]]) -> dict[str, list[dict]]:
        """The ledger must hold exactly what it was told: no line is lost, none is half there. Return its tables."""
        for path, text in sql:
            if path == self.path and not text.startswith(("SELECT", "PRAGMA")):
                self._said.execute(text)
        if self._said.in_transaction:
            self._said.execute("ROLLBACK")
        now = self.read()
        rows = {table: rows_of(now, table) for table in TABLES}
        now.close()
        for table, on_disk in rows.items():
            wrong = [pair for pair in zip_longest(on_disk, rows_of(self._said, table)) if not are_same(*pair)]
            assert not wrong, f"I4: {table}: on disk, and acknowledged: {wrong}"
        return rows


def rows_of(db: sqlite3.Connection, table: str) -> list[dict]:
    """Return a table's rows."""
    cursor = db.execute(f"SELECT * FROM {table} ORDER BY 1, 2{'' if table == 'meta' else ', 3'}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def are_same(one: dict | None, other: dict | None) -> bool:
    """Compare two rows; SQLite's trace shortens instants, so milliseconds do."""
    if one is None or other is None:
        return False
    return all(
        abs(v - other[n]) < 0.001 if isinstance(v, float) and isinstance(other[n], float) else v == other[n]
        for n, v in one.items()
    )
