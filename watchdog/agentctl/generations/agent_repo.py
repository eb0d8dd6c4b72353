"""The agent's own repository, on the recovery path: read its HEAD, put it back on a good commit, mend or remake it.

Everything runs as the agent's user and trusts nothing it finds: hooks, filters and configuration are neutralised,
every change is verified, and what is in the way is moved aside, never deleted.
"""

from __future__ import annotations

import os

from ..core import fast_json
from ..core.errors import AgentctlError, CommandFailed
from ..core.identity import Identity
from ..host import command
from ..host.command import Result
from . import git_folder, repair_git_folder, tree_capture
from .git import Git, pipe_pack, share_boundary
from .move_entries import relocate

READ_SECONDS = 10.0  # for a question about HEAD; whoever takes longer has been made to wait
WITH_HEAD = "%(HEAD) %(objectname) %(refname)"  # a star for the branch that HEAD is on


class Repository:
    """The repository whose work tree is `code_dir`."""

    def __init__(self, code_dir: str, user: Identity | None, hidden: str = "") -> None:
        self.code_dir, self.user = code_dir, user
        self.hidden = hidden  # a folder of ours in the work tree, '' if there is none
        self.git_dir = f"{code_dir}/.git"
        self.git = Git(self.git_dir, work_tree=code_dir, user=user, is_agents=True)

    def head(self) -> tuple[str, str]:
        """Return (commit, branch) of HEAD; '' for what cannot be read (unborn, detached, broken)."""
        if self.what_hangs():
            return "", ""
        shown = self._ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if shown is None:
            return "", ""
        commit = shown.text if shown.status == 0 else ""
        return commit, self.current_branch()

    def _ask(self, *words: str) -> Result | None:
        """Ask git something small; None if it waits at what is no file, as an object may be: then nobody can say."""
        try:
            return self.git.run(*words, check=False, limit_seconds=READ_SECONDS)
        except CommandFailed:
            if not self.git.standstills:
                raise
            return None

    def what_hangs(self) -> str:
        """Name what in `.git` would make git wait for ever, '' if nothing: then git can be asked."""
        return command.call_as(self.user, git_folder.what_hangs, self.git_dir)

    def current_branch(self) -> str:
        """Name the branch that HEAD is on, '' if none."""
        named = self.git.run("symbolic-ref", "--quiet", "HEAD", check=False, limit_seconds=READ_SECONDS)
        return _branch_of(named.text) if named.status == 0 else ""

    def look(self) -> tuple[str, str, str]:
        """Return (commit, its tree, branch) of HEAD by one question; '' for what cannot be read."""
        if self.what_hangs():
            return "", "", ""
        words = ("HEAD^{commit}", "HEAD^{tree}", "--symbolic-full-name", "HEAD")
        told = self._ask("rev-parse", *words)
        if told is None:
            return "", "", ""
        lines = told.text.splitlines()
        if told.status != 0 or len(lines) != 3:  # a tag or a branch called HEAD: git tells of both, or of neither
            commit, branch = self.head()
            return commit, "", branch
        return lines[0], lines[1], _branch_of(lines[2])

    def survey(self) -> tuple[str, str, str]:
        """Return (commit, branch, all refs as text) by one question where HEAD is on a branch."""
        if self.what_hangs():
            return "", "", ""
        listed = self._ask("for-each-ref", f"--format={WITH_HEAD}")
        if listed is None:
            return "", "", ""
        if listed.status != 0:
            return *self.head(), ""
        current = next((line.split(" ", 2) for line in listed.text.splitlines() if line.startswith("*")), None)
        if current is None or not current[2].startswith("refs/heads/"):  # a tag is an object of its own
            return *self.head(), listed.text
        return current[1], current[2].removeprefix("refs/heads/"), listed.text

    def put_on(self, branch: str, commit: str, rescue: dict[str, str], *, is_current: bool = False) -> None:
        """Point HEAD at `branch` and `branch` at `commit`, and create the `rescue` branches, in one transaction.

        `is_current` says that HEAD was seen on the branch already. Raise CommandFailed or AgentctlError if the
        repository did not take it, also when git claims it did.
        """
        lines = [f"update refs/heads/{branch} {commit}"]
        lines += [f"update refs/heads/{name} {oid}" for name, oid in rescue.items() if oid]
        lines += [""]
        if not is_current:
            self.git.run("symbolic-ref", "HEAD", f"refs/heads/{branch}", limit_seconds=30)
        self.git.run("update-ref", "--no-deref", "--stdin", stdin="\n".join(lines).encode(), limit_seconds=30)
        got = self.git.run("for-each-ref", f"--format={WITH_HEAD}", f"refs/heads/{branch}", limit_seconds=30)
        if got.text.splitlines()[:1] != [f"* {commit} refs/heads/{branch}"]:
            raise AgentctlError(f"{self.git_dir}: HEAD is not {branch} at {commit} after it was put there")

    def hide(self) -> None:
        """Have git leave our folder in the work tree alone: neither status nor `add` nor `clean` is to see it.

        It is a courtesy: what is in the way of it hinders nothing.
        """
        if not self.hidden:
            return
        try:
            command.call_as(self.user, _add_line, f"{self.git_dir}/info/exclude", f"/{self.hidden}/")
        except (AgentctlError, OSError):
            return

    def inner_worktrees(self) -> list[str]:
        """List the linked worktrees that stand inside the code folder, by their paths in it."""
        if not os.path.isdir(f"{self.git_dir}/worktrees"):
            return []
        return command.call_as(self.user, git_folder.find_inner_worktrees, self.git_dir, self.code_dir).splitlines()

    def put_tags(self, tags: dict[str, str]) -> None:
        """Put tags back into a repository that was made anew; one that cannot be is left out."""
        for name, oid in tags.items():
            self.git.run("update-ref", f"refs/{name}", oid, check=False, limit_seconds=READ_SECONDS)

    @property
    def is_usable(self) -> bool:
        """Tell whether git can read the settings and takes this for a repository."""
        asked = self.git.run("rev-parse", "--is-inside-work-tree", check=False, limit_seconds=READ_SECONDS)
        return asked.status == 0

    def lacks(self, commit: str) -> bool:
        """Tell whether the commit or its tree is not readable here."""
        return not self.git.has_object(f"{commit}^{{tree}}")

    def is_on_a_branch(self, commit: str) -> bool:
        """Tell whether some branch leads to the commit."""
        return bool(self.git.run("for-each-ref", "--contains", commit, "--count=1", "refs/heads", check=False).text)

    def fetch_from(self, vault: Git, commits: list[str]) -> None:
        """Bring commits in from the vault, whole, whatever is here already."""
        share_boundary(vault, self.git)
        pipe_pack(vault, commits, [], self.git)

    def tidy(self, folder: str, branch: str, *, is_thorough: bool = False) -> dict:
        """Move out of `.git` into `folder` what hinders git or would undo us; return what `git_tidy.tidy` tells.

        `is_thorough` looks at every object, too.
        """
        found = fast_json.loads(
            command.call_as(self.user, repair_git_folder.repair, self.git_dir, folder, branch, is_thorough)
        )
        self.git.standstills = 0  # what it waited at is out of its way
        return found

    def repair_settings(self, folder: str) -> None:
        """Give it plain settings with the remotes, branches and user of the old, which go into `folder`."""
        command.call_as(self.user, repair_git_folder.set_aside, self.git_dir, folder, ["config", "config.worktree"])
        listed = self.git.run(
            "config",
            "--file",
            f"{folder}/config",
            "--no-includes",
            "--list",
            "-z",
            check=False,
            limit_seconds=READ_SECONDS,
        )
        text = repair_git_folder.compose_settings(listed.stdout.decode("utf-8", "surrogateescape"))
        command.call_as(self.user, repair_git_folder.write, f"{self.git_dir}/config", text)

    def repair_refs(self, folder: str) -> None:
        """Keep of packed-refs what is a ref."""
        command.call_as(self.user, repair_git_folder.repair_packed, self.git_dir, folder)

    def set_index_aside(self, folder: str) -> None:
        """Keep the index: what was staged and not committed is nowhere else."""
        command.call_as(self.user, repair_git_folder.set_aside, self.git_dir, folder, ["index"])

    def take_index(self, index_path: str) -> None:
        """Install a prepared index file; without one git makes its own from the commit."""
        if not os.path.exists(index_path):
            self.git.run("read-tree", "HEAD", limit_seconds=600)
            return
        if self.user is None or self.user.is_us:
            relocate(index_path, f"{self.git_dir}/index")
            return
        fd = os.open(index_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            command.call_as(self.user, _install_index, fd, self.git_dir)
        finally:
            os.close(fd)

    def remake(self, branch: str, vault: Git, commits: list[str]) -> None:
        """Make a new `.git` from the vault where the old one cannot be used (it is in quarantine by now)."""
        command.call_as(self.user, os.mkdir, self.git_dir)
        Git(self.git_dir, user=self.user).run(
            "init", "--quiet", f"--initial-branch={branch}", "--template=", limit_seconds=30
        )
        self.git.standstills = 0
        self.fetch_from(vault, commits)

    def commit_work(self, tree_dir: str, branch: str, parent: str, message: str, scratch: str) -> str:
        """Commit what was not committed in `tree_dir` onto `parent` as `branch`; return '' if there was nothing.

        Files are read with the settings of `scratch`, a repository of ours: `add` would run the filters of the agent's.
        """
        index = f"{self.git_dir}/agentctl-rescue-index"
        git = Git(
            scratch,
            work_tree=tree_dir,
            index=index,
            user=self.user,
            config={"core.autocrlf": "false", "core.excludesFile": f"{self.git_dir}/info/exclude"},
        )
        git.env["GIT_OBJECT_DIRECTORY"] = f"{self.git_dir}/objects"
        for leftover in (index, f"{index}.lock", f"{self.git_dir}/refs/heads/{branch}.lock"):
            command.call_as(self.user, _unlink_if_there, leftover)  # a save of ours that was killed in the middle
        try:
            if parent:
                git.run("read-tree", parent, limit_seconds=600)
            tree_capture.record(git, tree_dir, lambda _name: False)
            tree = git.run("write-tree", limit_seconds=600).text
            if parent and git.run("rev-parse", f"{parent}^{{tree}}").text == tree:
                return ""
            made = git.run("commit-tree", tree, *(["-p", parent] if parent else []), stdin=message.encode()).text
            self.git.run("update-ref", f"refs/heads/{branch}", made)
            return made
        finally:
            command.call_as(self.user, _unlink_if_there, index)


def check_adoptable(code_dir: str, branch: str, user: Identity | None) -> tuple[str, str]:
    """Return (commit, branch) to adopt; raise AgentctlError with a hint when the folder cannot be adopted."""
    if not os.path.isdir(code_dir):
        raise AgentctlError(f"cannot adopt {code_dir}: no such folder", "name the agent's git repository")
    if not os.path.lexists(f"{code_dir}/.git"):
        raise AgentctlError(
            f"cannot adopt {code_dir}: not a git repository",
            f"cd {code_dir} && git init && git add -A && git commit -m 'first version'",
        )
    if not os.path.isdir(f"{code_dir}/.git"):
        raise AgentctlError(
            f"cannot adopt {code_dir}: its .git is a file, so this is a linked worktree or a submodule",
            "a rollback has to move the whole repository: adopt a clone of its own",
        )
    repository = Repository(code_dir, user)
    waiting = repository.what_hangs() or command.call_as(user, git_folder.find_waiting_object, repository.git_dir)
    if waiting:
        raise AgentctlError(
            f"cannot adopt {code_dir}: {waiting} in its .git is no file; git would wait at it for ever",
            f"look at it (ls -l {code_dir}/.git), and move it away if it does not belong there",
        )
    _refuse_format(repository)
    commit, current = repository.head()
    if not commit:
        raise AgentctlError(
            f"cannot adopt {code_dir}: it has no commit on its current branch",
            f"cd {code_dir} && git add -A && git commit -m 'first version'",
        )
    if not branch:
        if not current:
            raise AgentctlError(f"cannot adopt {code_dir}: HEAD is detached", "git switch main, or name --branch")
        return commit, current
    try:
        tip = repository.git.run("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}").text
    except CommandFailed:
        known = repository.git.run("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").text.split()
        raise AgentctlError(
            f"cannot adopt {code_dir}: there is no branch '{branch}'",
            f"its branches: {', '.join(known) or 'none'}; choose one with --branch",
        ) from None
    if current != branch:
        raise AgentctlError(
            f"cannot adopt {code_dir}: it is on '{current or 'a detached HEAD'}', not on '{branch}'",
            f"git switch {branch}, or adopt with --branch {current or 'NAME'}",
        )
    return tip, branch


def _refuse_format(repository: Repository) -> None:
    asked = repository.git.run("rev-parse", "--show-object-format", check=False, limit_seconds=READ_SECONDS)
    if asked.status == 0 and asked.text != "sha1":
        old, branch = repository.code_dir, repository.current_branch() or "main"
        raise AgentctlError(
            f"cannot adopt {old}: its object format is {asked.text}, and agentctl keeps copies in sha1 only",
            f"adopt a copy of it: git init --object-format=sha1 COPY && git -C {old} fast-export --all "
            f"--signed-tags=strip | git -C COPY fast-import && git -C COPY switch {branch}",
        )


def _branch_of(name: str) -> str:
    """Name the branch that a full ref is, '' for a ref that is none."""
    return name.removeprefix("refs/heads/") if name.startswith("refs/heads/") else ""


def why_not_whole(repository: Repository, commit: str) -> AgentctlError:
    """Say why a commit cannot be copied from the repository, and which command helps."""
    code_dir = repository.code_dir
    asked = repository.git.run("config", "--name-only", "--get-regexp", r"^remote\..*\.promisor$", check=False)
    promising = asked.text.splitlines()[0] if asked.text else ""
    if promising:
        return AgentctlError(
            f"cannot adopt {code_dir}: it is a partial clone, and commit {commit[:12]} is not whole in it",
            f"git -C {code_dir} fetch --refetch --no-filter {promising[7:-9]}   brings what is missing; then adopt it",
        )
    return AgentctlError(
        f"cannot adopt {code_dir}: its commit {commit[:12]} is not whole in the repository",
        f"'git -C {code_dir} fsck --full' tells what is missing; adopt a fresh clone",
    )


def _install_index(fd: int, git_dir: str) -> None:
    temp = f"{git_dir}/index.agentctl"
    out = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    size, offset = os.fstat(fd).st_size, 0
    while offset < size:
        offset += os.sendfile(out, fd, offset, size - offset)
    os.fsync(out)  # the step is on record as done long before the kernel writes this back, and git reads no torn index
    os.close(out)
    os.rename(temp, f"{git_dir}/index")


def _add_line(path: str, line: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    with open(fd, "r+b", buffering=0) as file:
        present = file.read(1 << 20) or b""  # a FIFO has nothing to say
        if line.encode() not in present.splitlines():
            file.write((b"\n" if present and not present.endswith(b"\n") else b"") + line.encode() + b"\n")


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
