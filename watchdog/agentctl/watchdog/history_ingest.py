"""Carry the agent's history file into the store, message by message, also for agents that know nothing of us.

The watchdog reads the file; the runner has no part in it and can never wait for it. What was read, and how far, is
committed together. A file that was replaced, cut or rewritten is read from its start again: ids tell what is there.
"""

from __future__ import annotations

import hashlib
import os

from ..state import history
from ..state.history_repair import SEAM_BYTES
from .store import tables

PIECE_BYTES = 2 << 20


class Former:
    """The stored messages without ids of their own, to know each again when a file is read anew.

    Their ids are made of what stands before them. Where messages were put between, what follows is the same still:
    after a line that is known, the next one with the same bytes that has not been met.
    """

    def __init__(self, agent: str, store) -> None:
        self._agent, self._store = agent, store
        self._by_line: dict[bytes, list[str]] = {}
        self._places: dict[str, int] = {}
        for place, message_id, line in store.without_ids(agent):
            self._places[message_id] = place
            self._by_line.setdefault(_digest(line), []).append(message_id)

    def id_of(self, line: bytes, derived: str, before: str) -> str:
        """Return the id of a line that stands after the message `before`; the one `derived` for it if it is new."""
        ids = self._by_line.get(_digest(line), [])
        found = derived
        if ids and derived not in self._places and (after := self._place_of(before)) is not None:
            found = next((known for known in ids if self._places[known] > after), derived)
        if found in ids:
            ids.remove(found)
        return found

    def _place_of(self, message_id: str) -> int | None:
        return self._places.get(message_id) or self._store.place_of(self._agent, message_id)


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line.rstrip(b"\n"), digest_size=16).digest()


class Shipper:
    """Follows one history file; its methods block and belong in a thread."""

    def __init__(self, agent: str, path: str, store) -> None:
        self.agent, self.path, self.store = agent, path, store
        self.damaged = 0
        self._fd = -1
        self._renewals = -1
        self._cursor: dict | None = None
        self._glance: tuple | None = None
        self._former: Former | None = None  # while a file is read anew

    def step(self) -> bool:
        """Read the next piece; True if there may be more. Raise StoreUnavailable where it cannot be kept."""
        if self._renewals != self.store.renewals:
            self._cursor, self._glance = self.store.cursor(self.agent), None
            self._renewals = self.store.renewals
        try:
            found = os.lstat(self.path)
        except OSError:
            return self._lost()
        glance = (found.st_ino, found.st_size, found.st_mtime_ns)
        if glance == self._glance:
            return False
        if self._fd < 0 or os.fstat(self._fd).st_ino != found.st_ino:
            if self._fd >= 0 and self._ship():  # the rest of the file that was moved away
                return True
            try:
                self._open()
            except (history.NotPlain, OSError):
                return self._lost()
        has_more = self._ship()
        if not has_more:
            self._glance = glance
        return has_more

    def _open(self) -> None:
        self._close()
        self._fd = history.open_plain(self.path)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lost(self) -> bool:
        """There is no file: nothing that is stored is in it any more."""
        if self._fd >= 0 and self._ship():  # the rest of the file that was here
            return True
        self._close()
        if self._cursor is not None and self._cursor["inode"] != 0:
            self._keep([], 0, 0, b"", "", is_anew=True)
        return False

    def _ship(self) -> bool:
        """Store the next whole lines of the open file; True if there may be more."""
        facts, cursor = os.fstat(self._fd), self._cursor
        is_anew = cursor is None or cursor["inode"] != facts.st_ino or not self._continues(cursor, facts.st_size)
        offset, before = (0, "") if is_anew else (cursor["offset"], cursor["last_id"])
        if is_anew:
            self._former = Former(self.agent, self.store)
        data = self._whole_lines(offset)
        if not data and not is_anew:
            self._former = None
            return False
        rows, last_id = self._rows(data, before)
        end = offset + len(data)
        seam = os.pread(self._fd, min(SEAM_BYTES, end), max(0, end - SEAM_BYTES))
        self._keep(rows, facts.st_ino, end, seam, last_id, is_anew=is_anew)
        has_more = bool(data) and end < facts.st_size
        self._former = self._former if has_more else None
        return has_more

    def _continues(self, cursor: dict, size: int) -> bool:
        end = cursor["offset"]
        start = max(0, end - SEAM_BYTES)
        return size >= end and os.pread(self._fd, end - start, start) == cursor["seam"]

    def _whole_lines(self, offset: int) -> bytes:
        """Read up to the last line end; a line that is too long to hold comes without its end, as damage."""
        size = PIECE_BYTES
        while True:
            data = os.pread(self._fd, size, offset)
            end = data.rfind(b"\n") + 1
            if end or len(data) < size:
                return data[:end]
            if size >= history.LONGEST_LINE:
                return data
            size *= 4

    def _rows(self, data: bytes, before: str) -> tuple[list[dict], str]:
        rows = []
        for line in data.split(b"\n"):
            if not line.strip():
                continue
            try:
                message = history.parse(line)
            except ValueError:
                self.damaged += 1
                continue
            row = tables.row_of(self.agent, message, line + b"\n", is_in_file=True, before=before)
            if self._former is not None and history.id_of(message) is None:
                row["id"] = self._former.id_of(line, row["id"], before)
            rows.append(row)
            before = row["id"]
        return rows, before

    def _keep(self, rows: list[dict], inode: int, offset: int, seam: bytes, last_id: str, *, is_anew: bool) -> None:
        cursor = {"agent": self.agent, "inode": inode, "offset": offset, "seam": seam, "last_id": last_id}
        self.store.append_from_file(rows, cursor, is_anew=is_anew).result()
        self._cursor = cursor
