"""The ballast: disk kept in reserve, given up in slices when a recovery needs room, made again when there is enough.

One file on each file system we need to write to. It holds nothing, so it is the one thing that may go.
"""

from __future__ import annotations

import os

SLICES = 4  # so that one full disk does not leave the next one without
LEAST_BYTES = 256 * 1024  # smaller than this it would help nobody
SHARE = 8  # of what is free, at most


class Ballast:
    """The files called `paths`, each of up to `size` bytes; of two on one file system the first counts."""

    def __init__(self, paths: list[str], size: int) -> None:
        self.size, self.paths, seen = size, [], set()
        for path in paths:
            device = device_of(os.path.dirname(path))
            if device not in seen:
                seen.add(device)
                self.paths.append(path)

    def make_room(self, wanted: int) -> int:
        """Give slices until `wanted` bytes are free everywhere, or nothing is left; return the bytes given."""
        given = 0
        for path in self.paths:
            while free_bytes(os.path.dirname(path)) < wanted and (slice_bytes := self._cut(path)):
                given += slice_bytes
        return given

    def give(self) -> int:
        """Give one slice where the disk is fullest; return the bytes, 0 if none is left."""
        fullest = sorted(self.paths, key=lambda path: free_bytes(os.path.dirname(path)))
        return next((given for path in fullest if (given := self._cut(path))), 0)

    def is_wanted(self) -> bool:
        """Tell whether there is less of it than there could be; costs two system calls for each file."""
        return any(self._missing(path) for path in self.paths)

    def refill(self) -> None:
        """Make it as large as the settings say and the disk allows; one that is too large shrinks."""
        for path in self.paths:
            if _size(path) > self.size:
                _shrink(path, self.size)
            missing = self._missing(path)
            if missing:
                _grow(path, _size(path) + missing)

    def _missing(self, path: str) -> int:
        there = _size(path)
        missing = min(self.size, (free_bytes(os.path.dirname(path)) + there) // SHARE) - there
        return missing if missing >= LEAST_BYTES or (missing > 0 and there + missing == self.size) else 0

    def _cut(self, path: str) -> int:
        there = _size(path)
        if there == 0:
            return 0
        cut = max(self.size // SLICES, there // SLICES, LEAST_BYTES)
        left = there - cut if there - cut >= LEAST_BYTES else 0
        try:
            _shrink(path, left)
        except OSError:  # read-only: then nothing of it helps
            return 0
        return there - left


def free_bytes(folder: str) -> int:
    """Return what we may still write on the file system of `folder`; a great deal if nobody can tell."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def is_read_only(folder: str) -> bool:
    """Tell whether the file system of `folder` takes no writes."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def device_of(folder: str) -> int | str:
    """Tell file systems apart; a folder that is not there is one of its own."""
    try:
        return os.stat(folder).st_dev
    except OSError:
        return folder


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _shrink(path: str, size: int) -> None:
    if size == 0:
        os.unlink(path)
    else:
        os.truncate(path, size)


def _grow(path: str, size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:  # no room after all: better none than a disk that we have filled
        os.unlink(path)
    finally:
        os.close(fd)
