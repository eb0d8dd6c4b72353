"""The scratch repository after a power cut: nothing in it is synced, so objects may be empty and its index torn.

It holds nothing that could not be made again from the tree, so it is made again; to sync it would cost every launch.
"""

from __future__ import annotations

import os

from ..core.errors import CommandFailed
from ..host import command
from .git import Git
from .tree_capture import Staging, but
from .vault import create_bare

REMOVE = "/bin/rm"
CHECKSUM_BYTES = 20
BLOCK_BYTES = 1 << 20


def renew(staging: Staging) -> None:
    """Throw the scratch repository away and make an empty one."""
    command.run([REMOVE, "-rf", "--", staging.path], env={"LC_ALL": "C"}, limit_seconds=3600)
    create_bare(staging.path, staging.user)


def repair_after_boot(staging: Staging) -> None:
    """Start anew where the index is not what was written: git itself does not look at its checksum."""
    if not _is_whole(staging.index):
        renew(staging)


def find_ignored(staging: Staging, folder: str) -> list[str]:
    """Tell what git ignores in `folder` where the index of the last capture is lost (folders end in '/')."""
    try:
        renew(staging)
        git = Git(
            staging.path,
            work_tree=folder,
            index=staging.index,
            user=staging.user,
            fsync=False,
            config={"core.autocrlf": "false"},
        )
        git.run("add", "--all", "--ignore-errors", "--", ".", *but(staging.hidden), check=False, limit_seconds=3600)
        return staging.read_ignored(staging.ask_ignored(folder))
    except (CommandFailed, OSError):
        return []


def _is_whole(index: str) -> bool:
    from _sha1 import sha1  # hashlib around it costs 3 ms

    digest = sha1()
    try:
        fd = os.open(index, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            left = os.fstat(fd).st_size - CHECKSUM_BYTES
            while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
                digest.update(block)
                left -= len(block)
            return digest.digest() == file.read(CHECKSUM_BYTES)
    except FileNotFoundError:
        return True
    except OSError:
        return False
