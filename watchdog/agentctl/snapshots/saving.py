"""Keep what a restore replaces or removes: a second link to it in another folder, or a copy across file systems.

It never overwrites: a thing that is already there is recognised, another thing of the same name
goes to `tree.2/`, and so on.
"""

from __future__ import annotations

import os
import stat as modes

from . import filecopy
from .places import open_child, open_folder
from .syncs import Syncs, remove_tree

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HALF = ".agentctl-half-saved"


class Saved:
    """The folder of replaced things, while a restore adds to it; it is made if need be, 0700."""

    def __init__(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        self._path, self._fd, self._syncs = path, open_folder(os.path.abspath(path)), Syncs()

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_) -> None:
        self._syncs.drop()
        os.close(self._fd)

    def add(self, live: int, name: str, stored_at: str, stat) -> None:
        """Keep `name` of the folder `live` as `stored_at`."""
        top, *above, last = stored_at.split("/")
        turn = 1
        while not self._add_below([top if turn == 1 else f"{top}.{turn}", *above], live, name, last, stat):
            turn += 1

    def finish(self) -> None:
        """Make everything added durable."""
        self._syncs.finish(self._path)

    def _add_below(self, folders: list[str], live: int, name: str, last: str, stat) -> bool:
        try:
            folder = self._folder(folders)
        except NotADirectoryError:
            return False
        try:
            if modes.S_ISDIR(stat.st_mode):
                return _is_folder_made(folder, last)
            return _keep(folder, last, live, name, stat)
        finally:
            self._syncs.take_over(folder)

    def _folder(self, names: list[str]) -> int:
        fd = os.dup(self._fd)
        for name in names:
            try:
                is_made = _is_folder_made(fd, name)
                child = open_child(fd, name) if is_made else -1
            finally:
                self._syncs.take_over(fd)
            if not is_made:
                raise NotADirectoryError(name)
            fd = child
        return fd


def copy_thing(source: int, name: str, target: int, new_name: str) -> None:
    """Copy a file or link with its attributes, durably; other kinds have no content to copy."""
    stat = os.stat(name, dir_fd=source, follow_symlinks=False)
    if modes.S_ISLNK(stat.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), new_name, dir_fd=target)
        if os.geteuid() == 0:
            os.chown(new_name, stat.st_uid, stat.st_gid, dir_fd=target, follow_symlinks=False)
    elif modes.S_ISREG(stat.st_mode):
        _copy_file(source, name, target, new_name)


def _copy_file(source: int, name: str, target: int, new_name: str) -> None:
    old = os.open(name, _READ, dir_fd=source)
    try:
        new = os.open(new_name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            stat = os.fstat(old)
            filecopy.copy(old, new, stat)
            if os.geteuid() == 0:
                os.fchown(new, stat.st_uid, stat.st_gid)
            os.fchmod(new, modes.S_IMODE(stat.st_mode))
            os.utime(new, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
            os.fsync(new)
        finally:
            os.close(new)
    except filecopy.SourceUnreadable as error:
        raise OSError(5, f"cannot be read ({error})", name) from error
    finally:
        os.close(old)


def _keep(folder: int, last: str, live: int, name: str, stat) -> bool:
    """Link or copy; False if another thing has that name already."""
    try:
        os.link(name, last, src_dir_fd=live, dst_dir_fd=folder, follow_symlinks=False)
        return True
    except FileExistsError:
        return _is_the_same(folder, last, live, name, stat)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        if _exists(folder, last):
            return _is_the_same(folder, last, live, name, stat)
        remove_tree(folder, _HALF)
        copy_thing(live, name, folder, _HALF)
        if _exists(folder, _HALF):
            os.rename(_HALF, last, src_dir_fd=folder, dst_dir_fd=folder)
        return True


def _is_the_same(folder: int, last: str, live: int, name: str, stat) -> bool:
    """Recognise what an earlier attempt saved: the same inode, or a copy with the same bytes."""
    saved = os.stat(last, dir_fd=folder, follow_symlinks=False)
    if (saved.st_dev, saved.st_ino) == (stat.st_dev, stat.st_ino):
        return True
    if modes.S_IFMT(saved.st_mode) != modes.S_IFMT(stat.st_mode) or saved.st_dev == stat.st_dev:
        return False
    if modes.S_ISLNK(stat.st_mode):
        return os.readlink(last, dir_fd=folder) == os.readlink(name, dir_fd=live)
    if not modes.S_ISREG(stat.st_mode) or saved.st_size != stat.st_size:
        return False
    ours, theirs = os.open(last, _READ, dir_fd=folder), os.open(name, _READ, dir_fd=live)
    try:
        return filecopy.is_same(ours, theirs, stat.st_size)
    finally:
        os.close(ours)
        os.close(theirs)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_folder_made(folder: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
        return True
    except FileExistsError:
        return modes.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
