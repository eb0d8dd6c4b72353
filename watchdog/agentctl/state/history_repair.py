"""Repair a damaged or shortened history from its other copies: the union of them all, never less.

The file that is replaced is kept, damaged bytes and all. Whole lines go over byte for byte; an
object without an id is told apart by its bytes, so that a careless writer loses nothing either.
What is no plain file gives way to a candidate, and is kept; a candidate that cannot be read is
skipped and named.
"""

from __future__ import annotations

import _sqlite3 as sqlite3  # the package around it imports what is not used here
import os

from ..core import durable
from ..core.errors import AgentctlError
from . import history

BLOCK = 1 << 16


class RepairReport:
    """What mending did: `recovered` messages came from candidates, the old file is at `kept_as`."""

    __slots__ = (
        "count", "damaged_count", "is_changed", "kept_as", "recovered", "skipped", "sources"
    )  # fmt: skip

    def __init__(self, facts: history.HistoryFacts) -> None:
        self.is_changed, self.recovered = False, 0
        self.kept_as: str | None = None
        self.count, self.damaged_count = facts.count, facts.damaged_count
        self.sources: list[str] = []
        self.skipped: list[tuple[str, str]] = []


def repair(path: str, candidates: list[str], *, keep_damaged_as: str) -> RepairReport:
    """Make the file the union of its own messages and those of every candidate, if it needs that.

    Each copy's order is kept; between the same two neighbours a candidate's messages come first;
    where two copies have one id, the candidate's bytes stay. The agent must be stopped: who holds
    the file open goes on writing to the replaced one.
    """
    is_plain = history.is_plain(path)
    lock = _open_and_lock(path) if is_plain else None
    spares = _spare_names(path)
    try:
        facts = history.scan(path)
        report = RepairReport(facts)
        best = _gather(path, candidates, spares, report)
        if best == path and is_plain and not facts.is_whole:
            best = spares[0]
            _write(best, (line for _, line, _ in _whole_lines(path)))
        if best != path:
            report.kept_as = _replace(path, best, lock, keep_damaged_as)
            report.is_changed = True
        return report
    finally:
        for spare in spares:
            _unlink(spare)
        if lock is not None:
            os.close(lock)


def _spare_names(path: str) -> list[str]:
    """Return two free names beside `path`, after sweeping up what somebody killed here left."""
    folder, name = os.path.split(path)
    prefix = f".{name}.mend-"
    for entry in os.scandir(folder or "."):
        if entry.name.startswith(prefix) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)
    return [os.path.join(folder, prefix + history.new_id()) for _ in range(2)]


def _gather(path: str, candidates: list[str], spares: list[str], report: RepairReport) -> str:
    """Fold every candidate that has more into a spare file; return the file with the union."""
    best = path
    for candidate in candidates:
        try:
            difference = _Difference(candidate, best)
        except (OSError, AgentctlError) as error:
            report.skipped.append((candidate, str(error)))
            continue
        if difference.gained:
            target = spares[1] if best == spares[0] else spares[0]
            _write(target, difference.union())
            best = target
            report.count += difference.gained
            report.recovered += difference.gained
            report.sources.append(candidate)
    return best


class _Difference:
    """What `theirs` has and `ours` lacks; memory holds ids only, and only after their fork."""

    __slots__ = ("gained", "our_fork", "our_places", "ours", "their_fork", "their_keys", "theirs")

    def __init__(self, theirs: str, ours: str) -> None:
        os.close(history.open_plain(theirs))
        self.theirs, self.ours = theirs, ours
        self.their_fork, self.our_fork = _fork(theirs, ours)
        self.their_keys = {key for key, _ in _keyed(theirs, self.their_fork)}
        self.our_places: dict = {}
        if self.their_keys:
            ours_after = enumerate(_keyed(ours, self.our_fork))
            self.our_places = {key: place for place, (key, _) in ours_after}
        self.gained = sum(key not in self.our_places for key in self.their_keys)

    def union(self):
        """Yield every line of both, in the order of each where they do not contradict."""
        yield from (line for _, line, _ in _whole_lines(self.ours, 0, self.our_fork))
        ours = _keyed(self.ours, self.our_fork)
        place = 0
        for key, line in _keyed(self.theirs, self.their_fork):
            while place < self.our_places.get(key, 0):
                our_key, our_line = next(ours)
                place += 1
                if our_key not in self.their_keys:
                    yield our_line
            yield line
        yield from (line for key, line in ours if key not in self.their_keys)


def _fork(first: str, second: str) -> tuple[int, int]:
    """Return the offset in each file where its messages stop being those of the other."""
    start = _common_bytes(first, second)
    at = (start, start)
    for one, other in zip(_whole_lines(first, start), _whole_lines(second, start), strict=False):
        if one[1] != other[1]:
            break
        at = (one[0], other[0])
    return at


def _common_bytes(first: str, second: str) -> int:
    """Return how many bytes of whole lines both begin with: two reads are quicker than parsing."""
    if not (os.path.lexists(second) and history.is_plain(second)):
        return 0
    with _reader(first) as one, _reader(second) as other:
        offset = line_end = 0
        while True:
            a, b = one.read(BLOCK), other.read(BLOCK)
            same = len(a) if a == b else len(os.path.commonprefix([a, b]))  # noqa: RUF071 - byte by byte is what is meant
            if newline := a.rfind(b"\n", 0, same) + 1:
                line_end = offset + newline
            offset += same
            if same < BLOCK:
                return line_end


def _reader(path: str):
    return open(history.open_plain(path), "rb", buffering=0)


def _keyed(path: str, start: int):
    """Yield (key, line): the key is the id, or else the bytes, and which occurrence it is."""
    seen: dict = {}
    for _, line, message in _whole_lines(path, start):
        name = history.id_of(message) or line
        seen[name] = times = seen.get(name, 0) + 1
        yield (name if times == 1 else (name, times)), line


def _whole_lines(path: str, start: int = 0, stop: int | None = None):
    """Yield (offset of its end, line with its newline, message) of every whole line."""
    end = start
    if not history.is_plain(path):
        return
    for raw, length in history.lines(path, start):
        if stop is not None and end >= stop:
            return
        end += length
        try:
            message = history.parse(raw)
        except ValueError:
            continue
        yield end, raw if raw.endswith(b"\n") else raw + b"\n", message


def _open_and_lock(path: str) -> int | None:
    try:
        fd = history.open_plain(path)
    except FileNotFoundError:
        return None
    history.lock(fd)  # or without it: a stopped agent is not to stay down for whoever holds it
    return fd


def _write(path: str, lines) -> None:
    _unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb", buffering=1 << 20) as file:
        file.writelines(lines)
        file.flush()
        os.fsync(fd)


def _replace(path: str, by: str, old: int | None, keep_as: str) -> str | None:
    """Put `by` in the place of `path`, which stays readable as `keep_as`; return that name."""
    folder = os.path.dirname(path) or "."
    is_odd = old is None and os.path.lexists(path)
    like = os.stat(folder) if old is None else os.fstat(old)
    fd = history.open_plain(by)
    try:
        if os.geteuid() == 0:
            os.fchown(fd, like.st_uid, like.st_gid)
        os.fchmod(fd, 0o644 if old is None else like.st_mode & 0o777)
        os.fsync(fd)
    finally:
        os.close(fd)
    kept = None if old is None else _keep(path, old, keep_as)
    if is_odd:  # a folder, a link, a FIFO: it cannot be linked or replaced, but it can be moved
        kept = _free_name(f"{path}.damaged")
        os.rename(path, kept)
    os.rename(by, path)
    durable.sync_folder(folder)
    return kept


def _keep(path: str, fd: int, keep_as: str) -> str:
    """Give the file a second name, or a copy where it cannot have one; never over another file."""
    if os.path.lexists(keep_as) and os.path.samestat(os.lstat(keep_as), os.fstat(fd)):
        return keep_as  # killed right here, the time before
    name = _free_name(keep_as)
    try:
        os.link(path, name, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        os.lseek(fd, 0, os.SEEK_SET)
        _write(name, iter(lambda: os.read(fd, 1 << 20), b""))
    durable.sync_folder(os.path.dirname(name) or ".")
    return name


def _free_name(wanted: str) -> str:
    name, number = wanted, 1
    while os.path.lexists(name):
        number += 1
        name = f"{wanted}.{number}"
    return name


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


# -- history copy ----------------------------------------------------------------------------------
# The watchdog's copy of the conversation, as the recovery path reads it: plain SQLite, no watchdog needed.
# Only looks: which messages the agent's own file lacks, and all of them as lines. A copy that cannot be read is none.


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
