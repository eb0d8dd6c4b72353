"""Copy one open file into another, by reflink if the file system can; make a batch of copies durable.

Every copy is checksummed on the way. CRC-32: it is there to find damage, not forgery (the folder
is ours alone), runs at 3 GB/s and needs no big import; SHA-256 is half as fast and costs 3 ms to
import. Because the bytes pass through here for it anyway, `copy_file_range` would only add a
second read.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENXIO
from zlib import crc32

from ...core import durable

BLOCK = 128 * 1024
_ZERO = bytes(BLOCK)
_FICLONE = 0x40049409


class SourceUnreadable(Exception):
    """The file to be copied cannot be read; the disk we write to is not to blame."""


def copy(source: int, target: int, stat) -> int:
    """Copy the first `stat.st_size` bytes and return their checksum; `target` is empty."""
    size = stat.st_size
    if size > BLOCK and _reflink(source, target):
        os.ftruncate(target, size)  # it may have grown since `stat`
        return checksum(target, size, stat.st_blocks * 512 < size)
    return _pump(source, target, size, stat.st_blocks * 512 < size)


def checksum(source: int, size: int, is_sparse: bool = True) -> int:
    """Return the CRC-32 of the first `size` bytes.

    Blocks of zeros are left out, and the next block's offset goes in instead: the same whether they
    are holes or not, and a hole of a terabyte costs nothing. Without any it is the plain CRC-32.
    """
    return _pump(source, -1, size, is_sparse)


def is_same(one: int, other: int, size: int) -> bool:
    """Compare the first `size` bytes of two files."""
    at = 0
    while at < size:
        at = min(_next_data(one, at, size), _next_data(other, at, size))
        length = min(BLOCK, size - at)
        if _read_block(one, at, length) != _read_block(other, at, length):
            return False
        at += BLOCK
    return True


def write_all(fd: int, data: bytes, at: int) -> None:
    """Write all of `data` at offset `at`."""
    done = os.pwrite(fd, data, at)
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def _pump(source: int, target: int, size: int, is_sparse: bool) -> int:
    crc, at, expected = 0, 0, 0
    while at < size:
        if is_sparse:
            at = _next_data(source, at, size)
            if at >= size:
                break
        block = _read_block(source, at, min(BLOCK, size - at))
        if not block:
            break
        if block[0] or block != _ZERO[: len(block)]:
            if at != expected:
                crc = crc32(b"%d" % at, crc)
            crc = crc32(block, crc)
            expected = at + len(block)
            if target >= 0:
                write_all(target, block, at)
        at += len(block)
    if target >= 0 and expected != size:
        os.ftruncate(target, size)
    return crc


def _next_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA) // BLOCK * BLOCK
    except OSError as error:
        if error.errno == ENXIO:
            return size
        if error.errno == EINVAL:  # no holes on this file system
            return at
        raise SourceUnreadable(error.strerror) from error


def _read_block(fd: int, at: int, length: int) -> bytes:
    try:
        block = os.pread(fd, length, at)
        while len(block) < length and (more := os.pread(fd, length - len(block), at + len(block))):
            block += more
        return block
    except OSError as error:
        raise SourceUnreadable(error.strerror) from error


def _reflink(source: int, target: int) -> bool:
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


# -- syncs -----------------------------------------------------------------------------------------
# Make a batch of files and folders durable: fsync each while they are few, one syncfs when many.
# syncfs is the faster call on a quiet disk, but it waits for everybody's unwritten data: 300 ms where ten small files
# took 3, while something else was writing. Past a few dozen files it wins even so.


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

    def count_as_many(self) -> None:
        """Have all of the file system synced: what was written before is part of it."""
        self._is_many = True
        self.drop()

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
