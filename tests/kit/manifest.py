"""What is in a folder, to the byte, and what of it is missing elsewhere.

A manifest maps each path to (type, mode, size, SHA-256 or link target); `.git` is left out where asked.
"""

from __future__ import annotations

import hashlib
import os
import stat

BLOCK_BYTES = 1 << 20
PAGE_BYTES = 4096


def manifest(top, *, without: tuple[str, ...] = ()) -> dict[str, tuple]:
    """Describe every entry below `top`; `without` names paths (relative) that are not looked into."""
    root, found = os.fsencode(os.fspath(top)), {}
    left_out = {os.fsencode(path) for path in without}
    for folder, folders, files in os.walk(root):
        inside = [path for path in (_below(root, folder, n) for n in (*folders, *files)) if path not in left_out]
        folders[:] = [n for n in folders if _below(root, folder, n) not in left_out]
        for path in inside:
            found[os.fsdecode(path)] = describe(os.path.join(root, path))
    return found


def describe(path) -> tuple:
    """Describe one entry: (type, mode, size, SHA-256 or link target)."""
    facts = os.lstat(path)
    mode = stat.S_IMODE(facts.st_mode)
    if stat.S_ISLNK(facts.st_mode):
        return "link", 0o777, 0, os.fsdecode(os.readlink(path))
    if stat.S_ISDIR(facts.st_mode):
        return "folder", mode, 0, ""
    if stat.S_ISREG(facts.st_mode):
        return "file", mode, facts.st_size, _digest(path, facts.st_size)
    kind = {stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}.get(stat.S_IFMT(facts.st_mode), "device")
    return kind, mode, 0, ""


def missing(before: dict[str, tuple], *afterwards: dict[str, tuple]) -> dict[str, tuple]:
    """Tell which entries of `before` are, as they were, in none of the manifests `afterwards`: path -> what it was."""
    return {path: what for path, what in before.items() if all(after.get(path) != what for after in afterwards)}


def _below(root: bytes, folder: bytes, name: bytes) -> bytes:
    return os.path.join(folder, name)[len(root) + 1 :]


def _digest(path, size: int) -> str:
    """Hash the pages that are not all zeros, each with its number.

    Of a sparse file only what is there is read (or 10 GB of nothing would be), and a
    copy is the same whether its file system keeps holes or not.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA) // PAGE_BYTES * PAGE_BYTES
            except OSError:  # a hole up to the end
                break
            offset = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), size)
            while start < offset:
                block = os.pread(file.fileno(), BLOCK_BYTES, start)
                if not block:
                    break
                _add_pages(digest, block, start)
                start += len(block)
            offset = max(offset, start)
    return digest.hexdigest()


def _add_pages(digest, block: bytes, start: int) -> None:
    for at in range(0, len(block), PAGE_BYTES):
        page = block[at : at + PAGE_BYTES]
        if page.strip(b"\0"):
            digest.update(b"%d:" % (start + at))
            digest.update(page)
