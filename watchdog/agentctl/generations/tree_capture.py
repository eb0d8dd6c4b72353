"""Record a work tree as it is, in a scratch repository of the agent's user, whatever lies in it.

Left out are also untracked files of `LARGEST_BYTES` and more, for git would copy them for minutes: these count as
ignored.
"""

from __future__ import annotations

import os
import stat
import time

from ..core import fast_json
from ..core.errors import CommandFailed
from ..core.identity import Identity
from ..host import command
from ..host.command import Running, Standstill
from .git import Git

LARGEST_BYTES = 1 << 30
# What git opens in a work tree without looking what it is: a FIFO of that name would make it wait for ever.
OPENED = (".gitignore", ".gitattributes", ".gitmodules", "HEAD", "config", "packed-refs", "exclude", "main")
BYTE_CODE = ("__pycache__/", "*.pyc", "*.pyo")  # made of the source whenever it is missing: no part of a version
# What programs write beside their code. A suffix that is not here may be source.
DATA: tuple[str, ...] = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".parquet",
    ".pickle",
    ".pkl",
    ".npy",
    ".npz",
    ".dat",
)
DATA += (".db", ".sqlite", ".sqlite3", "-wal", "-shm", "-journal")
DATA += (".log", ".out", ".err", ".txt", ".md", ".pid", ".tmp", ".bak")
PLAIN_MODES = ("000000", "100644")  # none, and a file that nobody can execute
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
    _leave_out_byte_code(git, exclude_path)
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
            command.call_as(git.user, _leave_out, git.env["GIT_INDEX_FILE"], exclude_path, fast_json.dumps(look.large))
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
        found = fast_json.loads(command.call_as(self.git.user, _look_over, self.folder))
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
    return fast_json.dumps(large)


def _let_go(path: str) -> None:
    """Open and close the other end: the reader that waits there reads an empty file."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return  # nobody waits there


def _leave_out_byte_code(git: Git, exclude_path: str) -> None:
    """Have the scratch repository ignore byte code; a repository's own `!*.pyc` has precedence."""
    if not _has_patterns(exclude_path):
        command.call_as(git.user, _add_patterns, exclude_path)


def _has_patterns(exclude_path: str) -> bool:
    try:
        with open(exclude_path, "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
    except OSError:
        return False
    return set(BYTE_CODE) <= set(lines)


def _add_patterns(exclude_path: str) -> None:
    """As the agent's user: a line of its own for each, also after one that was cut off; git tells what is missing."""
    if not os.path.isdir(os.path.dirname(exclude_path)):
        return
    with open(exclude_path, "a", encoding="ascii") as file:
        file.write("".join(f"\n{pattern}" for pattern in BYTE_CODE) + "\n")


def is_byte_code(name: str) -> bool:
    """Tell whether a path is byte code by its name."""
    return "__pycache__" in name.split("/") or name.endswith((".pyc", ".pyo"))


def is_data(name: str, modes: tuple[str, str]) -> bool:
    """Tell whether a change by its name and its modes is of data: neither source nor settings, and no link."""
    if is_byte_code(name):
        return True
    return (
        name.endswith(DATA)
        and not any(part.startswith(".") for part in name.split("/"))
        and set(modes) <= set(PLAIN_MODES)
    )


def _leave_caches(folder: str, names: str) -> str:
    """As the agent's user: leave out of NUL text what Python makes again from its source when it is missing."""
    paths = names.split("\0")
    cached = {path for path in paths if "__pycache__" in path.split("/")}
    beside = {path for path in paths if is_byte_code(path) and os.path.lexists(f"{folder}/{path[:-1]}")}
    return "\0".join(path for path in paths if path not in cached | beside)


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
        file.writelines(os.fsencode(_as_pattern(name)) + b"\n" for name in fast_json.loads(names))


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
        command.call_as(git.user, _rewrite, exclude_path, fast_json.dumps(kept))


def _is_large(path: str) -> bool:
    try:
        return os.lstat(path).st_size >= LARGEST_BYTES
    except OSError:
        return False


def _rewrite(exclude_path: str, names: str) -> None:
    with open(exclude_path, "wb") as file:
        file.writelines(pattern.encode("ascii") + b"\n" for pattern in BYTE_CODE)
        file.writelines(os.fsencode(_as_pattern(name)) + b"\n" for name in fast_json.loads(names))


# -- staging ---------------------------------------------------------------------------------------
# The staging: a scratch repository of the agent's user that hashes the work tree as it is.
# It does not trust the agent's `.git`: own folder, own index, and no settings but ours.


# What git says when the fault is not in the file it reads.
HINDERED = (b"insert into database", b"Input/output error", b"No space left", b"Out of diskspace", b"quota exceeded",
            b"Read-only file system", b"Too many open files")  # fmt: skip


class CapturedTree:
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

    def capture(self, repository: Git, commit: str, branch: str, commit_tree: str = "") -> CapturedTree:
        """Record the work tree as it is: tracked, dirty and untracked files, not what git ignores.

        `commit_tree` is the commit's tree where the caller knows it already.
        """
        # Without a commit nothing is tracked, or git cannot be asked: it might wait at what is no file.
        asked = [self._start_listing_ignored(git) for git in (repository, self.git)] if commit else []
        problems = self._add_all(lambda name: bool(commit) and _knows(repository, name))
        if asked:
            self._follow_ignore_rules(repository, *asked)
        tree = self.git.run("write-tree").text
        if commit and not commit_tree:
            shown = repository.run("rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}", check=False)
            commit_tree = shown.text if shown.status == 0 else ""
        return CapturedTree(tree, commit, commit_tree, branch, problems)

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
            added, problems = record(git, self.code_dir, is_tracked, self.hidden)
            if added.status in (0, 1) and not any(said in added.stderr for said in HINDERED):
                return problems
        raise CommandFailed(added.argv, added.status, added.stdout, added.stderr)

    def compare(self, one: str, other: str) -> list[tuple[str, tuple[str, str]]]:
        """List what differs between two trees that were captured here, with its modes; nothing where one is lost."""
        told = self.git.run("diff-tree", "-r", "-z", "--raw", "--no-renames", one, other, check=False)
        if told.status != 0:
            return []
        fields = os.fsdecode(told.stdout).split("\0")
        pairs = zip(fields[0::2], fields[1::2], strict=False)
        return [(name, (facts[1:7], facts[8:14])) for facts, name in pairs]

    def list_tracked(self, repository: Git, names: list[str]) -> list[str]:
        """Return which of `names` the agent's repository tracks; all of them where it cannot say."""
        wanted = [f":(top,literal){name}" for name in names]
        listed = repository.run("ls-files", "-z", "--cached", "--", *wanted, check=False, limit_seconds=60)
        if listed.status != 0:
            return names
        return [name for name in os.fsdecode(listed.stdout).split("\0") if name]

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
            release_readers(self.user, folder)

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

    def _start_listing_ignored(self, git: Git) -> Running:
        """Start asking which files of an index are ignored by now, byte code among them."""
        byte_code = [f"--exclude={pattern}" for pattern in BYTE_CODE]
        return git.start("ls-files", "-z", "--cached", "--ignored", "--exclude-standard", *byte_code)

    def _follow_ignore_rules(self, repository: Git, of_repository: Running, of_ours: Running) -> None:
        """Take out of the index what is ignored by now, for `add` keeps what it once took; add what is tracked.

        Byte code that is in a cache or beside its source is nobody's work, whoever committed it.
        """
        names = self._read_names(repository, of_repository)
        indexed = self._read_names(self.git, of_ours)
        if names is None or indexed is None:  # nobody knows then what is tracked, as without a commit
            return
        tracked = [name for name in self._without_caches(names) if name.split(b"/")[0] != os.fsencode(self.hidden)]
        gone = set(indexed) - set(tracked)
        if gone:
            self.git.run("update-index", "-z", "--force-remove", "--stdin", stdin=b"".join(n + b"\0" for n in gone))
        if tracked:
            self.git.run(
                "add",
                "--force",
                "--ignore-errors",
                "--pathspec-from-file=-",
                "--pathspec-file-nul",
                stdin=b"\0".join(tracked),
                check=False,
                limit_seconds=600,
            )

    def _without_caches(self, names: list[bytes]) -> list[bytes]:
        paths = [os.fsdecode(name) for name in names]
        if not any(is_byte_code(path) for path in paths):
            return names
        kept = command.call_as(self.user, _leave_caches, self.code_dir, "\0".join(paths))
        return [os.fsencode(path) for path in kept.split("\0") if path]

    def _read_names(self, git: Git, asked: Running) -> list[bytes] | None:
        try:
            listed = git.finish(asked, check=False, let_go=lambda: self._let_go(self.code_dir))
        except CommandFailed:
            return None
        return [name for name in listed.stdout.split(b"\0") if name] if listed.status == 0 else None

    def _remove_stale_lock(self) -> None:
        lock = f"{self.index}.lock"
        if os.path.exists(lock):  # the staging folder is ours alone; a lock is what a kill left behind
            os.unlink(lock)


def _knows(repository: Git, name: str) -> bool:
    asked = repository.run("ls-files", "--error-unmatch", "--", f":(top,literal){name}", check=False, limit_seconds=60)
    return asked.status == 0
