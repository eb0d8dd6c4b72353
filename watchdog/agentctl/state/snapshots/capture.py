"""Walk a place and bring every entry into a snapshot: link what did not change, copy what did.

Links go to the previous snapshot's copy, never to the live file. Sockets, FIFOs and devices are
named, not opened. What cannot be read is reported and does not stop the rest; what we lack ourselves does.
"""

from __future__ import annotations

import os
import time
from errno import ELOOP, EMFILE, ENFILE, ENOMEM, ENXIO

from . import file_copy, sqlite_copy
from .folders import DEEPEST, LONGEST, MAKING, STAGING, SnapshotFolder, open_child
from .manifest import Entry, Manifest
from .progress import Progress

TYPES = {0o010000: "fifo", 0o140000: "socket", 0o020000: "char", 0o060000: "block",
          0o120000: "link", 0o040000: "dir", 0o100000: "file"}  # fmt: skip


OUR_LACK = (EMFILE, ENFILE, ENOMEM)  # says nothing of the file: a snapshot without it would pass for a whole one


class Capture:
    """One run over all places. `syncs` owns the new files until they are durable."""

    def __init__(self, previous: Manifest | None, avoid: set, syncs, progress: Progress) -> None:
        self._before = previous.by_path() if previous else {}
        self._settled_before = previous.started_ns - SETTLED_NS if previous else 0
        self._avoid, self._syncs, self._progress = avoid, syncs, progress
        self._kept_before = progress.started_ns - SETTLED_NS
        self.entries: list[Entry] = []
        self.skipped: list[str] = []
        self.copied_bytes = 0

    def place(self, place: SnapshotFolder, target: int, previous: int) -> None:
        """Bring in everything the place means, from its folder into `target`."""
        state = place.patterns.start() if place.patterns else None
        self._patterns, self._place = place.patterns, place
        self._folder(place.fd, target, previous, place.prefix, state, 0)

    def _folder(self, live: int, target: int, previous: int, above: str, state, depth: int) -> None:
        try:
            names = sorted(os.listdir(live))
        except OSError as error:
            _stop_at_our_lack(error)
            self.skipped.append(f"{above}: {error.strerror}")
            if depth:
                self.entries[-1].state = "unreadable"  # the folder itself was the last to come in
            return
        journals = sqlite_copy.companions_in(names)
        done: set[str] = set()  # journals that went with their database
        for name in names:
            if name in done or name in (STAGING, MAKING):
                continue
            self._progress.note(self.entries)
            below = self._patterns.step(state, name) if state is not None else None
            if below is not None and not below:
                continue
            at = Spot(live, target, previous, name, above + name)
            try:
                stat = at.stat()
                kind = TYPES[stat.st_mode & 0o170000]
                if kind == "dir":
                    self._subfolder(at, stat, below, depth)
                elif below is None or self._patterns.is_hit(below):
                    done.update(self._thing(at, kind, stat, journals.get(name, ())))
            except FileNotFoundError:
                continue  # gone since it was listed
            except FileExistsError:
                continue  # two patterns mean it
            except file_copy.SourceUnreadable as error:
                self._skip(at, "file", stat, str(error))

    def _subfolder(self, at: Spot, stat, state, depth: int) -> None:
        if (stat.st_dev, stat.st_ino) in self._avoid:
            self._add(at, "dir", stat, state="left-out")
            return
        if depth >= DEEPEST or len(os.fsencode(at.path)) > LONGEST:
            self._skip(at, "dir", stat, "nested too deep")
            return
        try:
            live = open_child(at.live, at.name)
        except OSError as error:
            _stop_at_our_lack(error)
            self._skip(at, "dir", stat, error.strerror)
            return
        try:
            if at.make_folder(may_be_there=self._progress.is_new(at.path)):
                self._add(at, "dir", stat)
            target = open_child(at.target, at.name)
            previous = at.open_previous_folder()
            try:
                self._folder(live, target, previous, at.path + "/", state, depth + 1)
            finally:
                self._syncs.take_over(target)
                if previous >= 0:
                    os.close(previous)
        finally:
            os.close(live)

    def _thing(self, at: Spot, kind: str, stat, journals) -> list[str]:
        if self._progress.is_new(at.path):
            kept = self._progress.kept.get(at.path)
            if kept and kind == "file" and not journals and self._is_kept(at, kept, stat):
                self.entries.append(kept)
                return []
            for spot in (at, *(at.beside(name) for name in journals)):
                file_copy.remove_tree(spot.target, spot.name)
        if kind == "link":
            text = os.readlink(at.name, dir_fd=at.live)
            os.symlink(text, at.name, dir_fd=at.target)
            self._add(at, kind, stat, target=text)
        elif kind == "file":
            return self._file(at, stat, list(journals))
        else:
            self._add(at, kind, stat)
        return []

    def _file(self, at: Spot, stat, journals: list[str]) -> list[str]:
        also, newest = sqlite_copy.signature(at.live, at.name, stat) if journals else ("", 0)
        newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
        old = self._before.get(at.path)
        if old and newest < self._settled_before and self._is_same(old, stat, also):
            spots = [at, *(at.beside(name) for name in journals)]
            group = [(spot, self._before[spot.path]) for spot in spots if spot.path in self._before]
            if old.sqlite != "files":
                group = group[:1]  # SQLite merged the journals into the copy, or they are none
            if all(spot.link(entry) for spot, entry in group):
                self.entries += [entry for _, entry in group]
                return journals if old.sqlite else []
            for spot, _ in group:
                spot.unlink_new()
        try:
            source = at.open_live()
        except FileNotFoundError:
            raise
        except OSError as error:
            _stop_at_our_lack(error)
            if error.errno in (ELOOP, ENXIO):  # became a link or a socket since it was listed
                return self._skip(at, "file", stat, "changed its kind while looked at")
            return self._skip(at, "file", stat, error.strerror)
        try:
            return self._copy(at, source, journals)
        finally:
            os.close(source)

    def _is_kept(self, at: Spot, kept: Entry, stat) -> bool:
        """Tell whether another run's copy is of the file as it is now."""
        is_settled = max(stat.st_mtime_ns, stat.st_ctime_ns) < self._kept_before
        return is_settled and self._is_same(kept, stat, "") and at.has_copy_of(kept)

    def _is_same(self, old: Entry, stat, also: str) -> bool:
        return (
            old.ino == stat.st_ino
            and old.mtime_ns == stat.st_mtime_ns and old.ctime_ns == stat.st_ctime_ns
            and (not old.sqlite or old.also == also) and old.state == "" and old.type == "file"
            and (old.size == stat.st_size or old.sqlite == "backup")
        )  # fmt: skip

    def _copy(self, at: Spot, source: int, journals: list[str]) -> list[str]:
        stat = os.fstat(source)
        kind = TYPES[stat.st_mode & 0o170000]
        if kind != "file":
            self._add(at, kind, stat)
            return []
        target = at.open_new()
        try:
            if stat.st_size >= 512 and sqlite_copy.is_database(source):
                return self._database(at, source, target, journals)
            stat, crc, state = settle(source, target)
        except file_copy.SourceUnreadable:
            at.unlink_new()
            os.close(target)
            target = -1
            raise
        finally:
            if target >= 0:
                self._syncs.take_over(target)
        self._count(at, stat, crc=crc, state=state)
        return []

    def _database(self, at: Spot, source: int, target: int, journals: list[str]) -> list[str]:
        """Copy a database as it lies with its journals; if it moves, have SQLite do it."""
        stat = os.fstat(source)
        also, newest = sqlite_copy.signature(at.live, at.name, stat)
        mark = len(self.entries), len(self.skipped), self.copied_bytes
        crc = file_copy.copy(source, target, stat)
        self._count(at, stat, crc=crc, sqlite="files", also=also if journals else "")
        beside = [at.beside(name) for name in journals if not name.endswith("-shm")]
        for spot in beside:
            self._journal(spot)
        is_young = newest > time.time_ns() - SETTLED_NS  # its times may not tell: read it twice
        copies = self.entries[mark[0] :]
        is_still = not is_young or all(self._is_still(at.beside(_last(e)), e) for e in copies)
        if is_still and sqlite_copy.signature(at.live, at.name, os.fstat(source))[0] == also:
            return journals
        del self.entries[mark[0] :], self.skipped[mark[1] :]
        self.copied_bytes = mark[2]
        for spot in beside:
            spot.unlink_new()
        return self._moving_database(at, source, target, journals, also if journals else "")

    def _is_still(self, at: Spot, entry: Entry) -> bool:
        try:
            return not entry.has_copy or has_same_bytes(at, entry.size)
        except (OSError, file_copy.SourceUnreadable):
            return False

    def _moving_database(self, at: Spot, source: int, target: int, journals: list[str], also: str) -> list[str]:
        stat = os.fstat(source)
        os.ftruncate(target, 0)
        limit = 30 + stat.st_size / 50e6
        live, copy = (f"/proc/{os.getpid()}/fd/{fd}/{at.name}" for fd in (at.live, at.target))
        live, copy = (os.path.join(os.path.realpath(os.path.dirname(p)), at.name) for p in (live, copy))
        if sqlite_copy.backup(live, copy, (stat.st_uid, stat.st_gid), limit):
            size = os.fstat(target).st_size
            self._count(at, stat, size=size, crc=file_copy.checksum(target, size), sqlite="backup", also=also)
            return journals
        os.ftruncate(target, 0)
        crc = file_copy.copy(source, target, stat)
        self.skipped.append(f"{at.path}: kept changing and SQLite could not copy it; copied as it lies")
        self._count(at, stat, crc=crc, state="unsettled", sqlite="files", also=also)
        return [name for name in journals if name.endswith("-shm")]

    def _journal(self, at: Spot) -> None:
        try:
            stat = at.stat()
            self._thing(at, TYPES[stat.st_mode & 0o170000], stat, ())
        except FileNotFoundError:
            return  # then the signature differs, and SQLite does the copying
        except file_copy.SourceUnreadable as error:
            self._skip(at, "file", stat, str(error))

    def _count(self, at: Spot, stat, size: int | None = None, **more) -> None:
        self.copied_bytes += stat.st_size if size is None else size
        if more.get("state") == "unsettled":
            self.skipped.append(f"{at.path}: changed during each of {TRIES + 1} copies")
        self._add(at, "file", stat, size, **more)

    def _skip(self, at: Spot, kind: str, stat, why: str) -> list[str]:
        self.skipped.append(f"{at.path}: {why}")
        self._add(at, kind, stat, state="unreadable")
        return []

    def _add(self, at: Spot, kind: str, s, size: int | None = None, **more) -> None:
        size = (s.st_size if kind == "file" else 0) if size is None else size
        mode = s.st_mode & 0o7777
        times = s.st_mtime_ns, s.st_ctime_ns
        who = s.st_uid, s.st_gid
        self.entries.append(Entry(at.path, kind, mode, *who, size, *times, s.st_ino, **more))


def _last(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]


def _stop_at_our_lack(error: OSError) -> None:
    if error.errno in OUR_LACK:
        raise error


# -- spot ------------------------------------------------------------------------------------------
# One name that a snapshot meets: in its live folder, in the new snapshot and in the previous one.
# Everything goes through the three folders' descriptors; no link is followed and no live file is ever linked.


TRIES = 3
# The kernel's file clock ticks every 10 ms at worst: a younger file may change and keep its times.
SETTLED_NS = 50_000_000
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Spot:
    """`live`, `target` and `previous` are folders; the last is -1 if it has no such folder."""

    __slots__ = ("live", "name", "path", "previous", "target")

    def __init__(self, live: int, target: int, previous: int, name: str, path: str) -> None:
        self.live, self.target, self.previous = live, target, previous
        self.name, self.path = name, path

    def beside(self, name: str) -> Spot:
        """Return the spot of a name in the same folders."""
        above = self.path[: len(self.path) - len(self.name)]
        return Spot(self.live, self.target, self.previous, name, above + name)

    def stat(self) -> os.stat_result:
        """Look at the live thing itself."""
        return os.stat(self.name, dir_fd=self.live, follow_symlinks=False)

    def open_live(self) -> int:
        """Open the live file to read; a FIFO put in its place does not block."""
        return os.open(self.name, READ, dir_fd=self.live)

    def open_new(self) -> int:
        """Make the copy's file."""
        return os.open(self.name, _NEW, 0o600, dir_fd=self.target)

    def link(self, entry: Entry) -> bool:
        """Link the previous snapshot's copy, unless it is gone, cut short or has too many links."""
        if self.previous < 0 or not entry.has_copy:
            return False
        try:
            before = os.stat(self.name, dir_fd=self.previous, follow_symlinks=False)
            if before.st_size != entry.size:
                return False
            folders = {"src_dir_fd": self.previous, "dst_dir_fd": self.target}
            os.link(self.name, self.name, follow_symlinks=False, **folders)
        except OSError:
            return False
        return True

    def unlink_new(self) -> None:
        """Take the copy back, if there is one."""
        try:
            os.unlink(self.name, dir_fd=self.target)
        except FileNotFoundError:
            return

    def has_copy_of(self, entry: Entry) -> bool:
        """Tell whether a file of that size lies where the copy goes."""
        try:
            there = os.stat(self.name, dir_fd=self.target, follow_symlinks=False)
        except OSError:
            return False
        return TYPES[there.st_mode & 0o170000] == "file" and there.st_size == entry.size

    def make_folder(self, *, may_be_there: bool = False) -> bool:
        """Make the folder's copy; return False if it was there, unless it may be, from a run that was cut off."""
        try:
            os.mkdir(self.name, 0o700, dir_fd=self.target)
        except FileExistsError:
            if not may_be_there:
                return False
            there = os.stat(self.name, dir_fd=self.target, follow_symlinks=False)
            if TYPES[there.st_mode & 0o170000] != "dir":
                file_copy.remove_tree(self.target, self.name)
                os.mkdir(self.name, 0o700, dir_fd=self.target)
        return True

    def open_previous_folder(self) -> int:
        """Open the previous snapshot's folder of that name, or return -1."""
        try:
            return open_child(self.previous, self.name) if self.previous >= 0 else -1
        except OSError:
            return -1


def settle(source: int, target: int) -> tuple:
    """Copy until the file held still or only grew; return its stat, checksum and state.

    An append-only file may grow: its beginning is one state.
    """
    for attempt in range(TRIES + 1):
        if attempt:
            os.ftruncate(target, 0)
        stat = os.fstat(source)
        crc = file_copy.copy(source, target, stat)
        after = os.fstat(source)
        if after.st_size > stat.st_size:
            return stat, crc, ""
        if after.st_mtime_ns == stat.st_mtime_ns and not _is_moving(source, target, after):
            return stat, crc, ""
    return stat, crc, "unsettled"


def _is_moving(source: int, target: int, stat) -> bool:
    """Read a file that was just written a second time: a write under way has set its time before it began."""
    is_young = time.time_ns() - stat.st_mtime_ns < SETTLED_NS
    return is_young and not file_copy.is_same(source, target, stat.st_size)


def has_same_bytes(at: Spot, size: int) -> bool:
    """Read the live file and its copy once more and compare."""
    live, copy = at.open_live(), os.open(at.name, READ, dir_fd=at.target)
    try:
        return file_copy.is_same(live, copy, size)
    finally:
        os.close(live)
        os.close(copy)
