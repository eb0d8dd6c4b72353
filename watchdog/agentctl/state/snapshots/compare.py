"""Compare a snapshot with what lies there now and say what a restore has to do.

A database and its journals are one thing here: an old database beside a younger journal is a
broken database. Reads only; touches nothing.
"""

from __future__ import annotations

import os
import stat as modes

from . import file_copy, sqlite_copy
from .capture import READ, SETTLED_NS, TYPES
from .folders import DEEPEST, MAKING, STAGING, SnapshotFolder, open_child, open_parent
from .manifest import Entry, Manifest
from .patterns import Patterns


class RestorePlan:
    """What to do; `replaced` and `removed` are saved before anything else happens."""

    def __init__(self) -> None:
        self.replaced: list[str] = []  # live paths a write or a folder takes the place of
        self.removed: list[str] = []  # live paths the snapshot does not know
        self.folders_removed: list[str] = []  # deepest first
        self.folders_made: list[Entry] = []  # highest first
        self.folders_mended: list[Entry] = []  # there, but with another mode or owner
        self.written: list[Entry] = []
        self.kept: list[str] = []  # meant, but left as it is
        self.leftovers: list[str] = []  # of a restore that was cut short


class Comparison:
    """One snapshot against the opened places."""

    def __init__(self, listed: Manifest, folder, places: list[SnapshotFolder], patterns, keep, avoid) -> None:
        self._listed, self._folder, self._places = listed.by_path(), folder, places
        self._settled_before = listed.started_ns - SETTLED_NS
        self._patterns, self._keep = Patterns(patterns), Patterns(keep)
        self.live: dict[str, os.stat_result] = {}
        self.plan = RestorePlan()
        self._avoid = avoid
        # Nobody knows what was below these, so nothing there is unknown to the snapshot.
        self._unseen = tuple(entry.path + "/" for entry in listed.entries if entry.type == "dir" and entry.state)

    def run(self) -> RestorePlan:
        """Return the plan."""
        for place in self._places:
            state = place.patterns.start() if place.patterns else None
            self._scan(place, place.fd, place.prefix, state, 0)
        wanted = {path: entry for path, entry in self._listed.items() if self._is_meant(path)}
        meant = {path for path in self.live if self._is_meant(path)}
        self._join_journals(wanted, meant)
        for path in sorted(wanted):
            self._compare(wanted[path], meant)
        self._remove(meant.difference(wanted))
        self._drop_shared_memory()
        return self.plan

    def _is_meant(self, path: str) -> bool:
        if not any(place.owns(path) for place in self._places):
            return False
        if not path.startswith("/") and not self._patterns.matches(path):
            return False
        if path.startswith(self._unseen):
            return False
        if self._keep.matches(path):
            if self._kind(path) not in ("", "dir"):
                self.plan.kept.append(path)
            return False
        return True

    def _scan(self, place: SnapshotFolder, fd: int, above: str, state, depth: int) -> None:
        for name in os.listdir(fd):
            below = place.patterns.step(state, name) if state is not None else None
            if name in (STAGING, MAKING):
                self.plan.leftovers.append(above + name)
            elif below is None or below or self._is_journal_of_meant(place, state, name):
                stat = os.stat(name, dir_fd=fd, follow_symlinks=False)
                self.live[above + name] = stat
                if modes.S_ISDIR(stat.st_mode):
                    self._scan_folder(place, fd, name, stat, above + name, below, depth)

    def _scan_folder(self, place, fd: int, name: str, stat, path: str, state, depth: int) -> None:
        try:
            is_ours = (stat.st_dev, stat.st_ino) in self._avoid
            child = -1 if is_ours or depth >= DEEPEST else open_child(fd, name)
        except OSError:
            child = -1
        if child < 0:
            self._unseen += (path + "/",)
            self.plan.kept.append(path)
            return
        try:
            self._scan(place, child, path + "/", state, depth + 1)
        finally:
            os.close(child)

    def _is_journal_of_meant(self, place: SnapshotFolder, state, name: str) -> bool:
        bases = [name[: -len(s)] for s in sqlite_copy.SUFFIXES if name.endswith(s)]
        return any(place.patterns.step(state, base) for base in bases)

    def _kind(self, path: str) -> str:
        stat = self.live.get(path)
        return TYPES[modes.S_IFMT(stat.st_mode)] if stat else ""

    def _join_journals(self, wanted: dict[str, Entry], meant: set[str]) -> None:
        databases = [path for path, entry in wanted.items() if entry.sqlite]
        databases += [path for path in meant if path not in wanted and self._has_journals(path)]
        for path in databases:
            journals = [path + suffix for suffix in sqlite_copy.SUFFIXES]
            if path in wanted and self._is_as_taken(wanted[path]):
                for part in (path, *journals):  # nobody wrote to any of it: it stays as it is
                    wanted.pop(part, None)
                    meant.discard(part)
                continue
            for part in journals:
                if part in self._listed:
                    wanted[part] = self._listed[part]
                if part in self.live:
                    meant.add(part)

    def _has_journals(self, path: str) -> bool:
        if self._kind(path) != "file" or not any(path + s in self.live for s in sqlite_copy.SUFFIXES):
            return False
        fd = self._open(path)
        try:
            return fd >= 0 and sqlite_copy.is_database(fd)
        finally:
            if fd >= 0:
                os.close(fd)

    def _is_as_taken(self, entry: Entry) -> bool:
        """Tell by times alone that a file and its journals were not touched since the snapshot."""
        stat = self.live.get(entry.path)
        if stat is None or entry.ino != stat.st_ino or entry.ctime_ns != stat.st_ctime_ns:
            return False
        also, newest = "", max(stat.st_mtime_ns, stat.st_ctime_ns)
        if entry.sqlite and any(entry.path + suffix in self.live for suffix in sqlite_copy.SUFFIXES):
            folder, name = self._open_folder(entry.path)
            try:
                also, journals_at = sqlite_copy.signature(folder, name, stat)
            finally:
                os.close(folder)
            newest = max(newest, journals_at)
        is_same = entry.mtime_ns == stat.st_mtime_ns and also == entry.also and entry.state == ""
        return is_same and newest < self._settled_before

    def _compare(self, entry: Entry, meant: set[str]) -> None:
        path, kind = entry.path, self._kind(entry.path)
        if entry.type == "dir":
            self._compare_folder(entry, kind)
        elif entry.type not in ("file", "link") or entry.state == "unreadable":
            if kind != entry.type:
                self.plan.kept.append(path)
            meant.discard(path)
        elif not self._is_same(entry, kind):
            self._write(entry, kind, meant)

    def _compare_folder(self, entry: Entry, kind: str) -> None:
        if kind != "dir":
            if entry.state == "":
                self._make_way(entry.path)
        elif entry.state == "" and not self._is_attributed(entry):
            self.plan.folders_mended.append(entry)

    def _write(self, entry: Entry, kind: str, meant: set[str]) -> None:
        if kind == "dir":
            inside = entry.path + "/"
            if any(path.startswith(inside) and path not in meant for path in self.live):
                return self.plan.kept.append(entry.path)
            self.plan.folders_removed.append(entry.path)
        if not self._make_way(os.path.dirname(entry.path)):
            return self.plan.kept.append(entry.path)
        if kind not in ("", "dir"):
            self.plan.replaced.append(entry.path)
        return self.plan.written.append(entry)

    def _make_way(self, path: str) -> bool:
        """Plan for `path` and all above it to be folders; return False if a kept one is not."""
        entry, kind = self._listed.get(path), self._kind(path)
        if not path or kind == "dir" or entry is None or entry in self.plan.folders_made:
            return True
        if kind and self._keep.matches(path):
            return False
        if not self._make_way(os.path.dirname(path)):
            return False
        if kind:
            self.plan.replaced.append(path)
        self.plan.folders_made.append(entry)
        return True

    def _remove(self, unknown: set[str]) -> None:
        in_the_way = set(self.plan.replaced)
        for path in sorted(unknown, reverse=True):
            if self._kind(path) == "dir":
                self.plan.folders_removed.append(path)
            elif path not in in_the_way:
                self.plan.removed.append(path)
        self.plan.folders_removed.sort(reverse=True)

    def _drop_shared_memory(self) -> None:
        """A -shm index goes only if its database or a journal of it does."""
        touched = {*self.plan.removed, *(entry.path for entry in self.plan.written)}
        for path in [path for path in self.plan.removed if path.endswith("-shm")]:
            base = path[: -len("-shm")]
            if self._is_meant(path) or touched.intersection((base, base + "-wal", base + "-journal")):
                continue
            self.plan.removed.remove(path)

    def _is_attributed(self, entry: Entry) -> bool:
        stat = self.live[entry.path]
        is_owned = os.geteuid() != 0 or (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid)
        return is_owned and (entry.type == "link" or modes.S_IMODE(stat.st_mode) == entry.mode)

    def _is_same(self, entry: Entry, kind: str) -> bool:
        if kind != entry.type or not self._is_attributed(entry):
            return False
        if kind == "link":
            folder, name = self._open_folder(entry.path)
            try:
                return os.readlink(name, dir_fd=folder) == entry.target
            finally:
                os.close(folder)
        if self.live[entry.path].st_size != entry.size:
            return False
        return (not entry.sqlite and self._is_as_taken(entry)) or self._has_same_bytes(entry)

    def _has_same_bytes(self, entry: Entry) -> bool:
        ours = os.open(os.path.join(self._folder, entry.stored_at), READ)
        live = self._open(entry.path)
        try:
            return live >= 0 and file_copy.is_same(ours, live, entry.size)
        except file_copy.SourceUnreadable:
            return False
        finally:
            os.close(ours)
            if live >= 0:
                os.close(live)

    def _open(self, path: str) -> int:
        folder, name = self._open_folder(path)
        try:
            return os.open(name, READ, dir_fd=folder)
        except OSError:
            return -1
        finally:
            os.close(folder)

    def _open_folder(self, path: str) -> tuple[int, str]:
        return open_parent(self._places, path)
