"""What git ignores in the replaced tree: asked ahead, and chosen from for the good one."""

from __future__ import annotations

from ..config.context import Context
from ..core.errors import CommandFailed
from ..host import command


def ask_ignored(context: Context, folder: str) -> command.Running | None:
    """Ask git ahead what it ignores in the old tree: on a large one that takes longer than all the steps together.

    git works from its current folder, so it goes on with the old tree when the trees are exchanged under it. What
    appears after it has looked stays in quarantine with the rest.
    """
    try:
        return context.staging.ask_ignored(folder)
    except (CommandFailed, OSError):  # the tree is gone; then there is nothing to carry over
        return None


def choose_carried(attempt) -> list[str]:
    """Choose what moves into the good tree: what git ignores there, too, but no environment and no byte code.

    Byte code stays behind because a stale one with a matching time stamp would run the condemned code again.
    """
    ignored = read_ignored(attempt)
    kept_back = set(attempt.context.config.environment.paths)
    carried = [
        name
        for name in ignored
        if name.rstrip("/") not in kept_back and "__pycache__" not in name.split("/") and not name.endswith(".pyc")
    ]
    carried = attempt.context.staging.keep_ignored(carried)
    return carried + attempt.context.repository.inner_worktrees()


def read_ignored(attempt) -> list[str]:
    """Return what git ignores; asked again where it failed, because tree and `.git` moved while it looked."""
    for inquiry in (attempt.ignored_inquiry, None):
        try:
            asked = inquiry or attempt.context.staging.ask_ignored(f"{attempt.quarantine}/tree")
            return attempt.context.staging.read_ignored(asked, (f"{attempt.quarantine}/tree", attempt.context.code_dir))
        except (CommandFailed, OSError):
            continue
    from .repair_staging import find_ignored

    # A power cut may have torn the index for good, and `.env` and its like must come along.
    return find_ignored(attempt.context.staging, f"{attempt.quarantine}/tree")
