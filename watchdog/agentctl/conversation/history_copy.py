"""The watchdog's copy of the conversation, as the rescue path reads it: plain SQLite, no watchdog needed.

Only looks: which messages the agent's own file lacks, and all of them as lines. A copy that cannot be read is none.
"""

from __future__ import annotations

import _sqlite3 as sqlite3  # the package around it imports what is not used here
import os

from . import history

STORE_VERSION = 1  # of the watchdog's tables
PATIENCE_SECONDS = 0.5
SEAM_BYTES = 256  # by which the place in a file is known again

# Named, or SQLite may choose the other index and look at a million messages to find that none is missing.
MISSING = "INDEXED BY messages_not_in_file WHERE agent=? AND is_in_file=0"
WHOLE, SHORT, BROKEN = "whole", "short", "broken"  # what the file is, seen from the copy


class HistoryCopy:
    """The messages of one agent in the watchdog's store; without a store it is empty."""

    def __init__(self, path: str, agent: str) -> None:
        self.agent, self._db = agent, None
        if not os.path.exists(path):
            return
        quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        try:
            self._db = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, isolation_level=None,
                                       timeout=PATIENCE_SECONDS)  # fmt: skip
            self._db.execute("PRAGMA query_only=ON")
            self._ask("SELECT 1 FROM messages WHERE agent=? LIMIT 1")
            is_known = self._version() <= STORE_VERSION  # what a newer agentctl's tables mean nobody here knows
        except sqlite3.Error:
            is_known = False
        if not is_known:
            self.close()
            self._db = None

    def _version(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE key='version'").fetchone()
        return int(row[0]) if row and row[0].isdigit() else 1

    def close(self) -> None:
        """Close the database if it was opened."""
        if self._db is not None:
            self._db.close()

    def judge(self, path: str) -> str:
        """Tell whether the file has all that was acknowledged, lacks only newest messages, or has lost some."""
        try:
            return self._judge(path)
        except sqlite3.Error:
            return WHOLE  # what cannot be read can mend nothing

    def _judge(self, path: str) -> str:
        if self._db is None or not self._ask("SELECT 1 FROM messages WHERE agent=? LIMIT 1"):
            return WHOLE
        cursor = self._ask("SELECT offset, seam FROM cursors WHERE agent=?")
        if not os.path.isfile(path) or (cursor and not _continues(path, *cursor[0])):
            return BROKEN
        missing = self._ask(f"SELECT min(seq) FROM messages {MISSING}")[0][0]
        if missing is None:
            return WHOLE
        is_older = self._ask("SELECT 1 FROM messages WHERE agent=? AND is_in_file=1 AND seq>? LIMIT 1", missing)
        return SHORT if not is_older and _ends_whole(path) else BROKEN

    def missing(self, path: str) -> list[bytes]:
        """Return the messages that the file lacks, oldest first; what the watchdog has not read of it yet, it has."""
        cursor = self._ask("SELECT offset FROM cursors WHERE agent=?")
        unread: dict = {}
        for raw, _ in history.lines(path, cursor[0][0] if cursor else 0):
            if (key := _key(raw)) is not None:
                unread[key] = unread.get(key, 0) + 1
        found = []
        for (line,) in self._ask(f"SELECT line FROM messages {MISSING} ORDER BY seq"):
            key = _key(line)
            if unread.get(key, 0):
                unread[key] -= 1
            else:
                found.append(_ended(line))
        return found

    def export(self, path: str) -> bool:
        """Write every message into a file that only we read; False if it cannot be done to the end."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "wb", buffering=1 << 20) as file:
                file.writelines(
                    _ended(row[0])
                    for row in self._db.execute("SELECT line FROM messages WHERE agent=? ORDER BY seq", (self.agent,))
                )
        except sqlite3.Error:
            return False
        return True

    def _ask(self, sql: str, *more: object) -> list[tuple]:
        return self._db.execute(sql, (self.agent, *more)).fetchall()


def _continues(path: str, offset: int, seam: bytes) -> bool:
    """Tell whether the file still has, before `offset`, what the watchdog had read there."""
    if not history.is_plain(path) or os.path.getsize(path) < offset:
        return False
    with open(path, "rb") as file:
        start = max(0, offset - SEAM_BYTES)
        file.seek(start)
        return file.read(offset - start) == seam


def _ends_whole(path: str) -> bool:
    """Tell whether the file is empty or its last line is ended: then lines can follow."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 1))
        return file.read() in (b"", b"\n")


def _key(line: bytes) -> str | bytes | None:
    """Return what tells a message from others, its id or else its bytes; None if it is no message."""
    try:
        return history.id_of(history.parse(line)) or line.rstrip(b"\n")
    except ValueError:
        return None


def _ended(line: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + b"\n"
