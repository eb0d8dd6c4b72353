"""The vault: a bare repository of ours that holds every generation's commit and tree, and the lock beside it.

The agent never writes here. Objects come in as checked packs only, so a forged or rotten object stays outside.
Refs tell enough to rebuild a lost ledger: `refs/agentctl/g/N` is the captured tree as one commit whose message
carries the facts, `refs/agentctl/commit/N` the agent's own commit, `refs/agentctl/good/N`, `condemned/N`, `golden`.
"""

from __future__ import annotations

import fcntl
import os
import time

from ..core import durable, fast_json
from ..core.errors import AgentctlError, CommandFailed, LockHeld, TooNew
from ..core.identity import Identity
from ..host import command, procfs
from ..ledger.models import Generation
from . import git_folder
from .git import Git, pipe_pack, share_boundary
from .tree_capture import CapturedTree, Staging

VERSION = 1  # of what the refs, and the messages of the commits, mean
LOCK_WAIT_SECONDS = 5.0
# Highest precedence over any .gitattributes in the tree: bytes go in and come out as they are.
BYTES_AS_THEY_ARE = "* -text -eol -ident -filter -working-tree-encoding\n"
PRUNED = "refs/agentctl/pruned"
OF_A_GENERATION = ("g", "commit", "good", "condemned")


class Vault:
    """The bare repository at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.git = Git(path)
        self._version_path = f"{path}/agentctl-version"

    @property
    def exists(self) -> bool:
        """Tell whether there is a vault."""
        return os.path.exists(f"{self.path}/HEAD")

    def create(self) -> None:
        """Make an empty vault; do nothing where one is."""
        create_bare(self.path)
        if durable.read(self._version_path) is None:
            durable.write(self._version_path, f"{VERSION}\n".encode())

    def check_version(self) -> None:
        """Raise TooNew if a newer agentctl has written it; one of 0.1.0 does not say, and is of version 1."""
        said = (durable.read(self._version_path) or b"").strip()
        if said.isdigit() and int(said) > VERSION:
            raise TooNew(f"vault {self.path}", int(said), VERSION)

    def add_generation(self, number: int, capture: CapturedTree, staging: Staging, repository: Git, facts: str) -> str:
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
        try:
            haves = self._copy(repository, [commit], known[-4:])
            self.git.run("rev-list", "--objects", "--quiet", commit, "--not", *haves)
        except CommandFailed:
            return False
        return True

    def _copy(self, repository: Git, wants: list[str], known: list[str]) -> list[str]:
        """Bring objects in, without what the `known` ones reach; return those of them that are there, too.

        Raise CommandFailed, at once where git would come to an object that is no file, and wait.
        """
        waiting = command.call_as(repository.user, git_folder.find_waiting_object, repository.git_dir)
        if waiting:
            raise CommandFailed(["git", "pack-objects"], 1, b"", f"{waiting} is no file".encode())
        share_boundary(repository, self.git)
        haves = [oid for oid in dict.fromkeys(known) if repository.has_object(f"{oid}^{{}}")]
        pipe_pack(repository, list(dict.fromkeys(wants)), haves, self.git)
        return haves

    def take(self, commit: str, repository: Git) -> None:
        """Bring a commit in without a name for it; raise AgentctlError if the repository has it not whole."""
        with self.writing():
            if not self._take_commit(commit, repository, list(self.refs("refs/agentctl/commit/").values())):
                raise AgentctlError(
                    f"commit {commit[:12]} is not whole in the agent's repository",
                    "'git fsck --full' there tells what is missing",
                )

    def keep_branches(self, repository: Git) -> None:
        """Keep a copy of the agent's branches and tags, for the day its own repository is gone."""
        with self.writing():
            self._keep_branches(repository)

    def _keep_branches(self, repository: Git) -> None:
        listed = repository.run("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
        wanted = {
            f"refs/agentctl/kept/{ref[5:]}": oid
            for oid, ref in (line.split(" ", 1) for line in listed.text.splitlines())
        }
        have = self.refs("refs/agentctl/kept/")
        news = {ref: oid for ref, oid in wanted.items() if have.get(ref) != oid}
        if not news:
            return
        known = list(dict.fromkeys(have.values()))
        try:
            self._copy(repository, list(news.values()), known[-50:])
        except CommandFailed:  # one that is damaged does not keep out the others
            news = {ref: oid for ref, oid in news.items() if self._take_commit(oid, repository, known)}
        self._make_way(news, {ref: oid for ref, oid in have.items() if ref not in wanted})
        try:
            self._set_refs(news)
        except CommandFailed:  # a forged object came over under the name that is its own
            self._set_refs({ref: oid for ref, oid in news.items() if self.git.has_object(oid)})

    def _make_way(self, news: dict[str, str], gone: dict[str, str]) -> None:
        """A branch `a` that is gone stands in the way of a new `a/b`; what it held stays, under another name."""
        blocking = {
            ref: oid
            for ref, oid in gone.items()
            if any(n.startswith(f"{ref}/") or ref.startswith(f"{n}/") for n in news)
        }
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
        while any("update-ref" in procfs.words(pid) for pid in procfs.with_variable("GIT_DIR", self.path)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        left = [f"{top}/{n}" for top, _, names in os.walk(f"{self.path}/refs") for n in names if n.endswith(".lock")]
        for path in (*left, f"{self.path}/packed-refs.lock", f"{self.path}/packed-refs.new"):
            if os.path.exists(path):
                os.unlink(path)

    def writing(self, *, alone: bool = False) -> Writing:
        """Hold the vault while objects and their refs come in; `alone` keeps every other writer out."""
        self.check_version()
        return Writing(f"{self.path}.lock", alone)

    def pruned(self) -> list[Generation]:
        """Return the ledger's lines of generations that were pruned: which trees are bad must not be forgotten."""
        if not self.refs(PRUNED):
            return []
        lines = self.git.run("cat-file", "blob", f"{PRUNED}:generations").text.splitlines()
        known = [fast_json.loads(line) for line in lines]
        return [Generation.of(facts) for facts in known if isinstance(facts, dict)]

    def prune(self, rows: list[Generation]) -> None:
        """Let go of generations, and remember their lines; in one transaction."""
        with self.writing():
            known = {row.number: row for row in self.pruned()} | {row.number: row for row in rows}
            text = "".join(fast_json.dumps(known[number].to_dict()) + "\n" for number in sorted(known))
            blob = self.git.run("hash-object", "-w", "--stdin", stdin=text.encode()).text
            tree = self.git.run("mktree", stdin=f"100644 blob {blob}\tgenerations\n".encode()).text
            made = self.git.run("commit-tree", tree, stdin=b"generations that were pruned\n").text
            have = self.refs("refs/agentctl/")
            names = [f"refs/agentctl/{kind}/{row.number}" for row in rows for kind in OF_A_GENERATION]
            self._set_refs({PRUNED: made, **{name: None for name in names if name in have}})

    def own_commit(self, generation: Generation) -> str:
        """Return the agent's own commit of a generation, '' where it was not whole in the agent's repository."""
        if not generation.commit_id:
            return ""
        words = ("rev-parse", "--verify", "--quiet", f"refs/agentctl/commit/{generation.number}")
        asked = self.git.run(*words, check=False)
        if asked.status not in (0, 1):  # it was hindered, and did not say that there is none
            asked = self.git.run(*words, check=False)
        return asked.text if asked.status == 0 else ""

    def links(self, revision: str) -> dict[str, str]:
        """Return what a tree only names, by path: the commits of submodules, and of repositories inside it."""
        listed = os.fsdecode(self.git.run("ls-tree", "-r", "-z", revision, limit_seconds=60).stdout)
        lines = [line.partition("\t") for line in listed.split("\0") if line.startswith("160000 ")]
        return {path: facts.split(" ")[2] for facts, _, path in lines}

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
    if user is not None and not user.is_us:
        os.chown(f"{path}/info", user.uid, user.gid)


# -- vault lock ------------------------------------------------------------------------------------
# The lock beside the vault. Writers share it, so that they never wait for each other.


WAIT_SECONDS = 60.0  # it is held alone for the milliseconds of an exchange


class Writing:
    """The vault's lock: writers share it; who puts another vault in its place has it alone."""

    def __init__(self, path: str, alone: bool) -> None:
        self.path, self.how = path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH

    def __enter__(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, self.how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._fd)
                    raise LockHeld(f"somebody holds {self.path}", "look for a stopped 'agentctl prune'") from None
                time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
