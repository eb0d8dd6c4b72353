"""Make a batch of files and folders durable: fsync each while they are few, one syncfs when many.

syncfs is the faster call on a quiet disk, but it waits for everybody's unwritten data: 300 ms where
ten small files took 3, while something else was writing. Past a few dozen files it wins even so.
"""

from __future__ import annotations

import os

from .. import durable

FEW = 32  # descriptors held open; beyond it one syncfs is cheaper


class Syncs:
    """Collects descriptors (and closes them) until `finish` makes all of them durable."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._is_many = False

    def take_over(self, fd: int) -> None:
        """Own `fd` from here on."""
        if len(self._fds) >= FEW:
            self._is_many = True
            self.drop()
        if self._is_many:
            os.close(fd)
        else:
            self._fds.append(fd)

    def finish(self, filesystem: str) -> None:
        """Make everything durable; `filesystem` is a folder on the one that holds it all."""
        if self._is_many:
            durable.sync_filesystem(filesystem)
        for fd in self._fds:
            _start_writing(fd)
        for fd in self._fds:
            os.fsync(fd)
        self.drop()

    def drop(self) -> None:
        """Close without syncing."""
        while self._fds:
            os.close(self._fds.pop())


def _start_writing(fd: int) -> None:
    """Have the disk begin with this one; started together, one commit serves them all."""
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return  # only advice


def remove_tree(folder: int, name: str) -> None:
    """Remove our own leftover `name` in `folder`, whatever it is, following no link."""
    try:
        os.unlink(name, dir_fd=folder)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        for child in os.listdir(fd):
            remove_tree(fd, child)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=folder)
