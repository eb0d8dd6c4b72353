"""The staging: a scratch repository of the agent's user that hashes the work tree as it is.

It does not trust the agent's `.git`: own folder, own index, and no settings but ours.
"""

from __future__ import annotations

import os

from ..machine.command import CommandFailed, Identity, Running
from . import work_tree
from .git import Git

# What git says when the fault is not in the file it reads.
HINDERED = (b"insert into database", b"Input/output error", b"No space left", b"Out of diskspace", b"quota exceeded",
            b"Read-only file system", b"Too many open files")  # fmt: skip


class Capture:
    """A work tree as found: `tree` is its exact content, `commit` the agent's HEAD ('' when unreadable)."""

    __slots__ = ("branch", "commit", "commit_tree", "problems", "tree")

    def __init__(self, tree: str, commit: str, commit_tree: str, branch: str, problems: list[str]) -> None:
        self.tree, self.commit, self.commit_tree = tree, commit, commit_tree
        self.branch, self.problems = branch, problems

    @property
    def is_clean(self) -> bool:
        """Tell whether the tree is exactly what the commit says."""
        return self.tree == self.commit_tree


class Staging:
    """A scratch repository of the agent's user: hashes the work tree without trusting the agent's `.git`."""

    def __init__(self, path: str, code_dir: str, user: Identity | None, hidden: str = "") -> None:
        self.path, self.code_dir, self.user = path, code_dir, user
        self.hidden = hidden  # a folder of ours in the work tree, '' if there is none
        self.index = f"{path}/agentctl-index"
        exclude = f"{code_dir}/.git/info/exclude"
        self.config = {"core.excludesFile": exclude, "core.autocrlf": "false", "core.untrackedCache": "keep"}
        self.git = Git(path, work_tree=code_dir, index=self.index, user=user, config=self.config, fsync=False)

    def capture(self, repository: Git, commit: str, branch: str, commit_tree: str = "") -> Capture:
        """Record the work tree as it is: tracked, dirty and untracked files, not what git ignores.

        `commit_tree` is the commit's tree where the caller knows it already.
        """
        # Without a commit nothing is tracked, or git cannot be asked: it might wait at what is no file.
        tracked = repository.start("ls-files", "-z", "--cached", "--ignored", "--exclude-standard") if commit else None
        problems = self._add_all(lambda name: bool(commit) and _knows(repository, name))
        if tracked is not None:
            self._add_tracked_but_ignored(repository, tracked)
        tree = self.git.run("write-tree").text
        if commit and not commit_tree:
            shown = repository.run("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}", check=False)
            commit_tree = shown.text if shown.status == 0 else ""
        return Capture(tree, commit, commit_tree, branch, problems)

    def _add_all(self, is_tracked) -> list[str]:
        """Add what can be read, return what could not be; raise CommandFailed if what could be read could not be kept.

        A file that nobody may read stays out of every capture. One that was left out because the disk was full would
        be missing from the generation that is being tried, and nobody would know. What the agent's own list of
        ignored files does to git must not hinder it: the last try goes without.
        """
        bare = Git(
            self.path,
            work_tree=self.code_dir,
            index=self.index,
            user=self.user,
            config={**self.config, "core.excludesFile": "/dev/null"},
            fsync=False,
        )
        for git in (self.git, self.git, bare):
            self._remove_stale_lock()
            added, problems = work_tree.record(git, self.code_dir, is_tracked, self.hidden)
            if added.status in (0, 1) and not any(said in added.stderr for said in HINDERED):
                return problems
        raise CommandFailed(added.argv, added.status, added.stdout, added.stderr)

    def ask_ignored(self, folder: str) -> Running:
        """Start asking what git ignores in `folder`, judged by the last capture's index."""
        homes = (f"{folder}/.git", f"{self.code_dir}/.git")  # carried over already, after an interruption
        exclude = next((path for home in homes if os.path.isfile(path := f"{home}/info/exclude")), "/dev/null")
        git = Git(self.path, work_tree=folder, index=self.index, user=self.user, config={"core.excludesFile": exclude})
        return git.start("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")

    def read_ignored(self, asked: Running, folders: tuple[str, ...] = ()) -> list[str]:
        """Return the names that git ignores (folders end in '/'); it looked at one of `folders`."""
        listed = self.git.finish(asked, limit_seconds=600, let_go=lambda: self._let_go(*folders))
        names = [n for n in listed.stdout.decode("utf-8", "surrogateescape").split("\0") if n]
        return [n for n in names if not self.hidden or n.split("/")[0] != self.hidden]

    def _let_go(self, *folders: str) -> None:
        for folder in folders:
            work_tree.release_readers(self.user, folder)

    def keep_ignored(self, names: list[str]) -> list[str]:
        """Return which of `names` the tree in place ignores, too; all of them where git cannot say."""
        if not names:
            return []
        git = Git(self.path, work_tree=self.code_dir, index=self.index, user=self.user, config=self.config)
        asked = {f"{name}x" if name.endswith("/") else name: name for name in names}  # a folder that is not there yet
        running = git.start("check-ignore", "-z", "--stdin", "--no-index")
        told = self.git.finish(
            running,
            os.fsencode("\0".join(asked)),
            limit_seconds=60,
            check=False,
            let_go=lambda: self._let_go(self.code_dir),
        )
        if told.status > 1:
            return names
        return [asked[path] for path in os.fsdecode(told.stdout).split("\0") if path in asked]

    def _add_tracked_but_ignored(self, repository: Git, asked: Running) -> None:
        try:
            listed = repository.finish(asked, check=False, let_go=lambda: self._let_go(self.code_dir))
        except CommandFailed:  # nobody knows then what is tracked, as without a commit
            return
        names = [n for n in listed.stdout.split(b"\0") if n and n.split(b"/")[0] != os.fsencode(self.hidden)]
        if listed.status == 0 and names:
            self.git.run(
                "add",
                "--force",
                "--ignore-errors",
                "--pathspec-from-file=-",
                "--pathspec-file-nul",
                stdin=b"\0".join(names),
                check=False,
                limit_seconds=600,
            )

    def _remove_stale_lock(self) -> None:
        lock = f"{self.index}.lock"
        if os.path.exists(lock):  # the staging folder is ours alone; a lock is what a kill left behind
            os.unlink(lock)


def _knows(repository: Git, name: str) -> bool:
    asked = repository.run("ls-files", "--error-unmatch", "--", f":(top,literal){name}", check=False, limit_seconds=60)
    return asked.status == 0
