"""Record a work tree with git, whatever lies in it: what git cannot take is left out and named, and nothing hangs.

Left out are also untracked files of `LARGEST_BYTES` and more, for git would copy them for minutes: these count as
ignored.
"""

from __future__ import annotations

import os
import stat
import time

from .. import lean_json as json
from ..errors import CommandFailed
from ..machine import command
from ..machine.standstill import Standstill
from .git import Git

LARGEST_BYTES = 1 << 30
# What git opens in a work tree without looking what it is: a FIFO of that name would make it wait for ever.
OPENED = (".gitignore", ".gitattributes", ".gitmodules", "HEAD", "config", "packed-refs", "exclude", "main")
# And whatever a repository inside the tree has for a branch.
OF_A_REPOSITORY = "/.git/"
SPECIAL = "\\*?[#! "


def record(git: Git, folder: str, is_tracked, hidden: str = "") -> tuple[command.Result, list[str]]:
    """Add everything in `folder` to git's index; return how that ended, and what could not be added, in words.

    `hidden` names a folder of ours in it. `is_tracked(name)` tells whether the agent's repository knows a file: then it
    is added whatever its size.
    """
    exclude_path = f"{git.git_dir}/info/exclude"
    _forget_gone(git, folder, exclude_path)
    left_out: list[str] = []
    while True:
        look = _Look(git, folder, is_tracked)
        excluded = [f":(exclude,top,literal){name}" for name in left_out]
        adding = git.start("add", "--all", "--ignore-errors", "--", ".", ":(exclude,top).git", *but(hidden), *excluded)
        try:
            look.watch = Standstill([adding.pid])
            added = adding.finish(limit_seconds=3600, check=False, on_idle=look)
        except CommandFailed:
            if not look.large:
                raise
            command.call_as(git.user, _leave_out, git.env["GIT_INDEX_FILE"], exclude_path, json.dumps(look.large))
            continue
        offender = _find_offender(added.stderr)
        if added.status == 0 or not offender or offender in left_out:
            break
        left_out.append(offender)
    problems = [f"{name}: a repository without a commit" for name in left_out]
    problems += [f"{name}: too large to keep a copy of" for name in _read_excluded(exclude_path)]
    said = added.stderr.decode("utf-8", "replace").strip()
    return added, problems + ([said[-1000:]] if added.status != 0 and said else [])


def but(hidden: str) -> list[str]:
    """Return what tells git to leave out a folder of ours in the tree, '' if there is none.

    As a glob: of a name that is also in an exclude file git says that it cannot add it.
    """
    return [f":(exclude,top,glob){hidden[:-1]}[{hidden[-1]}]/**"] if hidden else []


def _find_offender(said: bytes) -> str:
    """Name the nested repository that made git give up in the middle, '' if none did."""
    for line in said.split(b"\n"):
        if line.startswith(b"error: '") and line.endswith(b"' does not have a commit checked out"):
            return os.fsdecode(line[8:-36])
    return ""


class _Look:
    """What holds a long recording up: a reader that waits at a FIFO is let go, large files are named."""

    def __init__(self, git: Git, folder: str, is_tracked) -> None:
        self.git, self.folder, self.is_tracked = git, folder, is_tracked
        self.large: list[str] = []
        self.watch = Standstill([])
        self._pause, self._next_at = 1.0, 0.0

    def __call__(self) -> bool | str:
        """Look ever more rarely; true is the end, or why git will never get on, though who waited was let go."""
        if time.monotonic() < self._next_at:
            return False
        found = json.loads(command.call_as(self.git.user, _look_over, self.folder))
        self.large = [name for name in found if not self.is_tracked(name)]
        self._pause *= 2
        self._next_at = time.monotonic() + self._pause
        return bool(self.large) or self.watch()


def release_readers(user, folder: str) -> None:
    """Let go whoever waits at a FIFO in `folder`."""
    command.call_as(user, _look_over, folder)


def _look_over(folder: str) -> str:
    """As the agent's user: let go who waits at a FIFO; return the names of large files as JSON."""
    large = []
    for top, _, files in os.walk(folder):
        for name in files:
            path = f"{top}/{name}"
            try:
                facts = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISFIFO(facts.st_mode) and (name in OPENED or OF_A_REPOSITORY in path):
                _let_go(path)
            elif stat.S_ISREG(facts.st_mode) and facts.st_size >= LARGEST_BYTES:
                large.append(path[len(folder) + 1 :])
    return json.dumps(large)


def _let_go(path: str) -> None:
    """Open and close the other end: the reader that waits there reads an empty file."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return  # nobody waits there


def _leave_out(index: str, exclude_path: str, names: str) -> None:
    """As the agent's user: have git ignore files from now on, and remove what the killed one left."""
    for leftover in (f"{index}.lock",):
        if os.path.lexists(leftover):
            os.unlink(leftover)
    objects = f"{os.path.dirname(os.path.dirname(exclude_path))}/objects"
    for folder in ("pack", *(n for n in os.listdir(objects) if len(n) == 2)):
        for name in os.listdir(f"{objects}/{folder}") if os.path.isdir(f"{objects}/{folder}") else []:
            if name.startswith(("tmp_pack_", "tmp_obj_")):
                os.unlink(f"{objects}/{folder}/{name}")
    with open(exclude_path, "ab") as file:
        file.writelines(os.fsencode(_as_pattern(name)) + b"\n" for name in json.loads(names))


def _as_pattern(name: str) -> str:
    """Write a path as the pattern of an exclude file; a newline cannot be said, but any character can."""
    return "/" + "".join(f"\\{c}" if c in SPECIAL else c for c in name).replace("\n", "?")


def _read_excluded(exclude_path: str) -> list[str]:
    try:
        with open(exclude_path, "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
    except OSError:
        return []
    return [line[1:].replace("\\", "") for line in lines if line.startswith("/")]


def _forget_gone(git: Git, folder: str, exclude_path: str) -> None:
    """A file that is gone, or small by now, is no longer left out."""
    names = _read_excluded(exclude_path)
    if names and not all(_is_large(f"{folder}/{name}") for name in names):
        kept = [name for name in names if _is_large(f"{folder}/{name}")]
        command.call_as(git.user, _rewrite, exclude_path, json.dumps(kept))


def _is_large(path: str) -> bool:
    try:
        return os.lstat(path).st_size >= LARGEST_BYTES
    except OSError:
        return False


def _rewrite(exclude_path: str, names: str) -> None:
    with open(exclude_path, "wb") as file:
        file.writelines(os.fsencode(_as_pattern(name)) + b"\n" for name in json.loads(names))
