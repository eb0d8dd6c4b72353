"""The folders a snapshot covers: the state folder, and what absolute patterns mean outside it.

Walked by descriptor, one name at a time. It refuses to follow a symbolic link that somebody other
than root or this user made: an agent must not be able to point a copy made by root at somebody
else's files.
"""

from __future__ import annotations

import os
from errno import ELOOP, ENOENT, ENOTDIR

from .patterns import Patterns, fixed_folder

# Our names in a folder that is being restored; never part of a snapshot.
STAGING, MAKING = ".agentctl-restore", ".agentctl-restore.new"
DEEPEST = 150  # levels below a place; each costs up to three descriptors
LONGEST = 3000  # bytes of a path below a place, so that ours around it stays below PATH_MAX
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SnapshotFolder:
    """One folder to walk; `prefix` goes before its names: empty for the state folder."""

    def __init__(self, path: str, prefix: str, globs: list[str] | None) -> None:
        self.path, self.prefix = path, prefix
        self.patterns = None if globs is None else Patterns(globs)
        self.fd, self.why = -1, ""

    def open(self) -> bool:
        """Open the folder; return False if it is not there.

        One outside the state folder that may not be opened is as good as not there, with `why`:
        an agent must not be able to stop every snapshot by what it does to its own home.
        """
        try:
            self.fd = open_folder(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if not self.prefix:
                raise
            self.why = error.strerror
            return False
        return True

    def close(self) -> None:
        """Let go of the folder."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def owns(self, path: str) -> bool:
        """Tell whether an entry's path lies in this place."""
        if not self.prefix:
            return not path.startswith("/")
        return path.startswith(self.prefix) and self.patterns.matches(path[len(self.prefix) :])


def all_places(state_dir: str, extra) -> list[SnapshotFolder]:
    """Return the state folder's place, then one for each folder an `extra` pattern starts from."""
    by_folder: dict[str, list[str]] = {}
    for pattern in extra:
        folder, rest = fixed_folder(pattern)
        by_folder.setdefault(folder, []).append(rest)
    outside = [SnapshotFolder(folder, folder.rstrip("/") + "/", rest) for folder, rest in by_folder.items()]
    return [SnapshotFolder(os.path.abspath(state_dir), "", None), *outside]


def place_of(places: list[SnapshotFolder], path: str) -> SnapshotFolder:
    """Return the place an entry's path lies below, whether its patterns mean it or not."""
    for place in places:
        if path.startswith(place.prefix) and path.startswith("/") == bool(place.prefix):
            return place
    raise FileNotFoundError(ENOENT, "no such place", path)


def open_parent(places: list[SnapshotFolder], path: str) -> tuple[int, str]:
    """Open the folder an entry's path is in, following no link; return it and the last name."""
    place = place_of(places, path)
    *above, name = path[len(place.prefix) :].split("/")
    return open_below(place.fd, above), name


def open_folder(path: str) -> int:
    """Open an absolute path as a folder, following only links made by root or by us."""
    pending = [name for name in path.split("/") if name]
    fd, links = os.open("/", _STEP), 0
    while pending:
        name = pending.pop(0)
        try:
            fd = _replace(fd, os.open(name, _STEP, dir_fd=fd))
        except OSError as error:
            target = _trusted_link(fd, name) if error.errno in (ENOTDIR, ELOOP) and links < 40 else ""
            if not target:
                os.close(fd)
                raise OSError(error.errno, error.strerror, path) from None
            links += 1
            if target.startswith("/"):
                fd = _replace(fd, os.open("/", _STEP))
            pending = [part for part in target.split("/") if part] + pending
    try:
        return os.open(".", _FOLDER, dir_fd=fd)
    finally:
        os.close(fd)


def open_below(fd: int, names: list[str]) -> int:
    """Open a folder below `fd`, following no link at all."""
    at = os.dup(fd)
    for name in names:
        try:
            at = _replace(at, os.open(name, _FOLDER, dir_fd=at))
        except OSError:
            os.close(at)
            raise
    return at


def open_child(fd: int, name: str) -> int:
    """Open the folder `name` in `fd`, following no link."""
    return os.open(name, _FOLDER, dir_fd=fd)


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _trusted_link(fd: int, name: str) -> str:
    stat = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if stat.st_mode & 0o170000 == 0o120000 and stat.st_uid in (0, os.geteuid()):
        return os.readlink(name, dir_fd=fd)
    return ""
