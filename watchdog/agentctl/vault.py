"""The vault: a bare repository of ours that holds every generation's commit and tree.

The agent never writes here. Objects come in as checked packs only, so a forged or rotten object stays outside.
Refs tell enough to rebuild a lost ledger: `refs/agentctl/g/N` is the captured tree as one commit whose message
carries the facts, `refs/agentctl/commit/N` the agent's own commit, `refs/agentctl/good/N`, `condemned/N`, `golden`.
"""

from __future__ import annotations

import os
import time

from . import durable, process
from . import lean_json as json
from .command import CommandFailed, Identity, Result, Running
from .errors import AgentctlError
from .git import Git, pipe_pack
from .vault_lock import Writing

LOCK_WAIT_SECONDS = 5.0
# What git says when the fault is not in the file it reads.
HINDERED = (b"insert into database", b"Input/output error", b"No space left", b"Out of diskspace", b"quota exceeded",
            b"Read-only file system", b"Too many open files")  # fmt: skip
# Highest precedence over any .gitattributes in the tree: bytes go in and come out as they are.
BYTES_AS_THEY_ARE = "* -text -eol -ident -filter -working-tree-encoding\n"
PRUNED = "refs/agentctl/pruned"
OF_A_GENERATION = ("g", "commit", "good", "condemned")


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


class Vault:
    """The bare repository at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.git = Git(path)

    @property
    def exists(self) -> bool:
        return os.path.exists(f"{self.path}/HEAD")

    def create(self) -> None:
        """Make an empty vault; do nothing where one is."""
        create_bare(self.path)

    def add_generation(self, number: int, capture: Capture, staging: Staging, repository: Git, facts: str) -> str:
        """Bring the captured tree and the agent's commit in; return the vault's commit of that tree.

        The agent's history is taken where its object store can still give it; the tree always is.
        """
        with self.writing():
            return self._add_generation(number, capture, staging, repository, facts)

    def _add_generation(self, number, capture, staging, repository, facts) -> str:
        known = list(self.refs("refs/agentctl/commit/").values())
        has_commit = self._take_commit(capture.commit, repository, known)
        if not (has_commit and capture.is_clean):
            pipe_pack(staging.git, [capture.tree], [], self.git)
        parents = ["-p", capture.commit] if has_commit else []
        made = self.git.run("commit-tree", capture.tree, *parents, stdin=facts.encode()).text
        updates = {f"refs/agentctl/g/{number}": made}
        if has_commit:
            updates[f"refs/agentctl/commit/{number}"] = capture.commit
        self._set_refs(updates)
        return made

    def _take_commit(self, commit: str, repository: Git, known: list[str]) -> bool:
        if not commit:
            return False
        if commit in known:
            return True
        haves = [k for k in dict.fromkeys(known[-4:]) if repository.has_object(f"{k}^{{commit}}")]
        try:
            pipe_pack(repository, [commit], haves, self.git)
            self.git.run("rev-list", "--objects", "--quiet", commit, "--not", *haves)
        except CommandFailed:
            return False
        return True

    def keep_branches(self, repository: Git) -> None:
        """Keep a copy of the agent's branches and tags, for the day its own repository is gone."""
        with self.writing():
            self._keep_branches(repository)

    def _keep_branches(self, repository: Git) -> None:
        listed = repository.run("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
        wanted = {f"refs/agentctl/kept/{ref[5:]}": oid for oid, ref in
                  (line.split(" ", 1) for line in listed.text.splitlines())}
        have = self.refs("refs/agentctl/kept/")
        news = {ref: oid for ref, oid in wanted.items() if have.get(ref) != oid}
        if not news:
            return
        known = [oid for oid in dict.fromkeys(have.values()) if repository.has_object(oid)]
        pipe_pack(repository, list(dict.fromkeys(news.values())), known[-50:], self.git)
        self._make_way(news, {ref: oid for ref, oid in have.items() if ref not in wanted})
        self._set_refs(news)

    def _make_way(self, news: dict[str, str], gone: dict[str, str]) -> None:
        """A branch `a` that is gone stands in the way of a new `a/b`; what it held stays, under another name."""
        blocking = {ref: oid for ref, oid in gone.items()
                    if any(n.startswith(f"{ref}/") or ref.startswith(f"{n}/") for n in news)}
        self._set_refs({f"refs/agentctl/replaced/{oid}": oid for oid in blocking.values()})
        self._set_refs(dict.fromkeys(blocking))

    def refs(self, prefix: str) -> dict[str, str]:
        """Return the refs below `prefix`, by name."""
        listed = self.git.run("for-each-ref", "--format=%(refname) %(objectname)", prefix).text
        return dict(line.split(" ", 1) for line in listed.splitlines())

    def update(self, refs: dict[str, str | None]) -> None:
        """Set (or, with None, delete) refs in one transaction."""
        with self.writing():
            self._set_refs(refs)

    def _set_refs(self, refs: dict[str, str | None]) -> None:
        lines = [f"update {ref} {oid}" if oid else f"delete {ref}" for ref, oid in refs.items()]
        if not lines:
            return
        stdin = ("\n".join(lines) + "\n").encode()
        try:
            self.git.run("update-ref", "--stdin", stdin=stdin)
        except CommandFailed as error:
            if b"File exists" not in error.stderr:
                raise
            self._remove_stale_locks()
            self.git.run("update-ref", "--stdin", stdin=stdin)

    def _remove_stale_locks(self) -> None:
        """Remove what a killed git left, when none is at work: or nothing could be written here ever again."""
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while any("update-ref" in process.words(pid) for pid in process.with_variable("GIT_DIR", self.path)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        left = [f"{top}/{n}" for top, _, names in os.walk(f"{self.path}/refs") for n in names if n.endswith(".lock")]
        for path in (*left, f"{self.path}/packed-refs.lock", f"{self.path}/packed-refs.new"):
            if os.path.exists(path):
                os.unlink(path)

    def writing(self, *, alone: bool = False) -> Writing:
        """Hold the vault while objects and their refs come in; `alone` keeps every other writer out."""
        return Writing(f"{self.path}.lock", alone)

    def pruned(self) -> list[dict]:
        """Return the ledger's lines of generations that were pruned: which trees are bad must not be forgotten."""
        if not self.refs(PRUNED):
            return []
        lines = self.git.run("cat-file", "blob", f"{PRUNED}:generations").text.splitlines()
        return [json.loads(line) for line in lines]

    def prune(self, rows: list[dict]) -> None:
        """Let go of generations, and remember their lines; in one transaction."""
        with self.writing():
            known = {row["number"]: row for row in self.pruned()} | {row["number"]: row for row in rows}
            text = "".join(json.dumps(known[number]) + "\n" for number in sorted(known))
            blob = self.git.run("hash-object", "-w", "--stdin", stdin=text.encode()).text
            tree = self.git.run("mktree", stdin=f"100644 blob {blob}\tgenerations\n".encode()).text
            made = self.git.run("commit-tree", tree, stdin=b"generations that were pruned\n").text
            have = self.refs("refs/agentctl/")
            names = [f"refs/agentctl/{kind}/{row['number']}" for row in rows for kind in OF_A_GENERATION]
            self._set_refs({PRUNED: made, **{name: None for name in names if name in have}})

    def message(self, revision: str) -> str:
        """Return a commit's message."""
        return self.git.run("log", "-1", "--format=%B", revision).text

    def lay_out(self, revision: str, folder: str) -> None:
        """Write the tree of `revision` into the empty `folder`, byte for byte.

        Raise AgentctlError if the folder does not hold exactly that tree afterwards.
        """
        index = f"{folder}.index"
        for leftover in (index, f"{index}.lock"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        git = Git(self.path, work_tree=folder, index=index, fsync=False)
        git.run("read-tree", revision, limit_seconds=600)
        git.run("checkout-index", "--all", "--force", "-u", "--quiet", limit_seconds=3600)
        differing = git.run("diff-files", "--name-only", "-z", check=False, limit_seconds=600)
        os.unlink(index)
        names = [n for n in differing.stdout.decode("utf-8", "replace").split("\0") if n]
        missing = [n for n in names if not os.path.isdir(f"{folder}/{n}")]  # a submodule's folder stays empty
        if differing.status != 0 or missing:
            raise AgentctlError(f"laying out {revision} in {folder}: not exact: {missing[:5] or differing.stderr}")

    def write_index(self, commit: str, folder: str, index: str) -> None:
        """Write the index that git makes for `commit` checked out at `folder`, with fresh stat data."""
        for leftover in (index, f"{index}.lock"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        git = Git(self.path, work_tree=folder, index=index, fsync=False)
        git.run("read-tree", commit, limit_seconds=600)
        git.run("update-index", "-q", "--refresh", check=False, limit_seconds=600)

    def check(self, revisions: list[str]) -> str:
        """Return '' if everything the revisions reach is whole, else what fsck says."""
        result = self.git.run("fsck", "--strict", "--no-dangling", *revisions, check=False, limit_seconds=3600)
        return "" if result.status == 0 else (result.stderr or result.stdout).decode("utf-8", "replace")


class Staging:
    """A scratch repository of the agent's user: hashes the work tree without trusting the agent's `.git`."""

    def __init__(self, path: str, code_dir: str, user: Identity | None, hidden: str = "") -> None:
        self.path, self.code_dir, self.user = path, code_dir, user
        self.hidden = hidden  # a folder of ours in the work tree, '' if there is none
        self.everything = ["--", ".", *([f":(top,exclude){hidden}"] if hidden else [])]
        self.index = f"{path}/agentctl-index"
        exclude = f"{code_dir}/.git/info/exclude"
        self.config = {"core.excludesFile": exclude, "core.autocrlf": "false", "core.untrackedCache": "keep"}
        self.git = Git(path, work_tree=code_dir, index=self.index, user=user, config=self.config,
                       fsync=False)

    def capture(self, repository: Git, commit: str, branch: str, commit_tree: str = "") -> Capture:
        """Record the work tree as it is: tracked, dirty and untracked files, not what git ignores.

        `commit_tree` is the commit's tree where the caller knows it already.
        """
        problems: list[str] = []
        tracked = repository.start("ls-files", "-z", "--cached", "--ignored", "--exclude-standard")
        added = self._add_all()
        if added.status != 0:
            problems.append(added.stderr.decode("utf-8", "replace").strip()[-1000:])
        self._add_tracked_but_ignored(tracked)
        tree = self.git.run("write-tree").text
        if not commit_tree:
            shown = repository.run("rev-parse", "--verify", "--quiet", f"{commit or 'HEAD'}^{{tree}}", check=False)
            commit_tree = shown.text if shown.status == 0 else ""
        return Capture(tree, commit, commit_tree, branch, problems)

    def _add_all(self) -> Result:
        """Add what can be read; raise CommandFailed if what could be read could not be kept.

        A file that nobody may read stays out of every capture. One that was left out because the disk was full would
        be missing from the generation that is being tried, and nobody would know. What the agent's own list of
        ignored files does to git must not hinder it: the last try goes without.
        """
        bare = Git(self.path, work_tree=self.code_dir, index=self.index, user=self.user,
                   config={**self.config, "core.excludesFile": "/dev/null"}, fsync=False)
        for git in (self.git, self.git, bare):
            self._remove_stale_lock()
            added = git.run("add", "--all", "--ignore-errors", *self.everything, check=False, limit_seconds=3600)
            if added.status in (0, 1) and not any(said in added.stderr for said in HINDERED):
                return added
        raise CommandFailed(added.argv, added.status, added.stdout, added.stderr)

    def ask_ignored(self, folder: str) -> Running:
        """Start asking what git ignores in `folder`, judged by the last capture's index."""
        homes = (f"{folder}/.git", f"{self.code_dir}/.git")  # carried over already, after an interruption
        exclude = next((f"{home}/info/exclude" for home in homes if os.path.exists(home)), "/dev/null")
        git = Git(self.path, work_tree=folder, index=self.index, user=self.user,
                  config={"core.excludesFile": exclude})
        return git.start("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")

    def read_ignored(self, asked: Running) -> list[str]:
        """Return the names that git ignores (folders end in '/')."""
        listed = asked.finish(limit_seconds=600)
        names = [n for n in listed.stdout.decode("utf-8", "surrogateescape").split("\0") if n]
        return [n for n in names if not self.hidden or n.split("/")[0] != self.hidden]

    def _add_tracked_but_ignored(self, asked: Running) -> None:
        listed = asked.finish(limit_seconds=300, check=False)
        names = [n for n in listed.stdout.split(b"\0") if n and n.split(b"/")[0] != os.fsencode(self.hidden)]
        if listed.status == 0 and names:
            self.git.run("add", "--force", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul",
                         stdin=b"\0".join(names), check=False, limit_seconds=600)

    def _remove_stale_lock(self) -> None:
        lock = f"{self.index}.lock"
        if os.path.exists(lock):  # the staging folder is ours alone; a lock is what a kill left behind
            os.unlink(lock)


def create_bare(path: str, user: Identity | None = None) -> None:
    """Make a bare repository with bytes-as-they-are attributes; do nothing where a whole one is."""
    if os.path.exists(f"{path}/info/attributes"):
        return
    os.makedirs(path, mode=0o700, exist_ok=True)
    if user is not None and not user.is_us:
        os.chown(path, user.uid, user.gid)
    git = Git(path, user=user)
    git.run("init", "--bare", "--quiet", "--initial-branch=none", "--template=", path)
    os.makedirs(f"{path}/info", exist_ok=True)
    durable.sync_filesystem(path)  # git does not sync what `init` makes; without the attributes it changes bytes
    durable.write(f"{path}/info/attributes", BYTES_AS_THEY_ARE.encode())
