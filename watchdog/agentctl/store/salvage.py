"""Take out of a damaged SQLite file the messages that can still be read. The file itself is not changed."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from .tables import messages

COLUMNS = ("agent", "id", "at", "role", "line")
READ = f"SELECT {', '.join(COLUMNS)} FROM messages ORDER BY seq"


def salvage(path: str, engine: sa.Engine) -> int:
    """Copy what can be read, from both ends, into a new store; return how many messages that were."""
    found: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="agentctl-salvage-") as folder:
        for ending in ("", "-wal"):  # a copy: reading may recover the file, and it is to stay as it is
            with contextlib.suppress(OSError):
                shutil.copyfile(path + ending, f"{folder}/copy{ending}")
        with contextlib.suppress(sqlite3.Error):
            source = sqlite3.connect(f"{folder}/copy")
            found = _rows(source, READ)
            found += reversed(_rows(source, f"{READ} DESC"))
            source.close()
    if not found:
        return 0
    with engine.begin() as connection:
        connection.execute(insert(messages).on_conflict_do_nothing(), found)
    return len({(row["agent"], row["id"]) for row in found})


def _rows(source: sqlite3.Connection, sql: str) -> list[dict]:
    """Read until the first page that is broken."""
    rows: list[dict] = []
    with contextlib.suppress(sqlite3.Error):
        for values in source.execute(sql):
            if all(value is not None for value in values) and isinstance(values[-1], bytes):
                rows.append({**dict(zip(COLUMNS, values, strict=True)), "is_in_file": 0})
    return rows
