"""One name that a snapshot meets: in its live folder, in the new snapshot and in the previous one.

Everything goes through the three folders' descriptors; no link is followed and no live file is
ever linked.
"""

from __future__ import annotations

import os
import time

from . import filecopy
from .manifest import Entry
from .places import open_child

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

    def make_folder(self) -> bool:
        """Make the folder's copy; return False if it was there."""
        try:
            os.mkdir(self.name, 0o700, dir_fd=self.target)
        except FileExistsError:
            return False
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
        crc = filecopy.copy(source, target, stat)
        after = os.fstat(source)
        if after.st_size > stat.st_size:
            return stat, crc, ""
        if after.st_mtime_ns == stat.st_mtime_ns and not _is_moving(source, target, after):
            return stat, crc, ""
    return stat, crc, "unsettled"


def _is_moving(source: int, target: int, stat) -> bool:
    """Read a file that was just written a second time: a write under way has set its time before it began."""
    is_young = time.time_ns() - stat.st_mtime_ns < SETTLED_NS
    return is_young and not filecopy.is_same(source, target, stat.st_size)


def has_same_bytes(at: Spot, size: int) -> bool:
    """Read the live file and its copy once more and compare."""
    live, copy = at.open_live(), os.open(at.name, READ, dir_fd=at.target)
    try:
        return filecopy.is_same(live, copy, size)
    finally:
        os.close(live)
        os.close(copy)
