"""Carry entries of the replaced tree over into the good one, by rename. Runs as the agent's user, deletes nothing."""

from __future__ import annotations

import os

from ..entries import is_under_way, relocate
from ..errors import AgentctlError


def carry_over(old: str, new: str, names: list[str]) -> str:
    """Move entries from the old tree into the new one; what is in the way there stays. Safe to repeat.

    Run it as the agent's user. Returns the names that were not moved because something was in the way.
    """
    blocked = []
    _allow_moves(old)
    for name in (given.rstrip("/") for given in names):
        source, target = f"{old}/{name}", f"{new}/{name}"
        if not os.path.lexists(source) and not is_under_way(target):
            continue
        if os.path.lexists(target):
            blocked.append(name)
            continue
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _move(source, target)
        except (OSError, AgentctlError):
            blocked.append(name)
    return "\n".join(blocked)


def _move(source: str, target: str) -> None:
    """Rename; a folder that its owner may not write to cannot change its parent, nor leave one like it."""
    try:
        relocate(source, target)
    except PermissionError:
        _allow_moves(os.path.dirname(source))
        mode = os.lstat(source).st_mode & 0o7777
        is_folder = os.path.isdir(source) and not os.path.islink(source)
        if is_folder:
            os.chmod(source, mode | 0o700)
        relocate(source, target)
        if is_folder:
            os.chmod(target, mode)


def _allow_moves(folder: str) -> None:
    """Give the owner of a folder the right to move what is in it."""
    try:
        mode = os.stat(folder).st_mode & 0o7777
        if mode & 0o700 != 0o700:
            os.chmod(folder, mode | 0o700)
    except OSError:
        return
