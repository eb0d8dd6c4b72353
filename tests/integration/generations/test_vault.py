"""The vault and its staging on hostile trees: what goes in is exact, what comes out is exact, nothing runs."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError, CommandFailed
from agentctl.generations.agent_repo import Repository
from agentctl.generations.git import pipe_pack
from agentctl.generations.tree_capture import CapturedTree, Staging
from agentctl.generations.vault import Vault, create_bare
from integration.world import git, make_repository, write
from kit.manifest import manifest


class Store:
    """An agent's repository with a vault and a staging of ours beside it."""

    def __init__(self, folder: Path, files: dict | None = None) -> None:
        self.folder = folder
        self.code = make_repository(folder / "code", files or {"agent.py": "print(1)\n"})
        self.vault = Vault(str(folder / "vault.git"))
        self.vault.create()
        create_bare(str(folder / "staging.git"))
        self.staging = Staging(str(folder / "staging.git"), str(self.code), None)
        self.repository = Repository(str(self.code), None)
        self.count = 0

    def capture(self) -> CapturedTree:
        commit, branch = self.repository.head()
        return self.staging.capture(self.repository.git, commit, branch)

    def keep(self, capture: CapturedTree | None = None) -> str:
        """Bring the tree into the vault; return the vault's commit of it."""
        self.count += 1
        return self.vault.add_generation(
            self.count,
            capture or self.capture(),
            self.staging,
            self.repository.git,
            f"generation {self.count}\n\n{{}}\n",
        )

    def laid_out(self, revision: str) -> Path:
        folder = self.folder / f"out{self.count}"
        folder.mkdir()
        self.vault.lay_out(revision, str(folder))
        return folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def contents(folder: Path) -> dict:
    """The files as git knows them: content, exec bit, links; no folders of their own."""
    found = manifest(folder, without=(".git",))
    return {
        name: (what[0], bool(what[1] & 0o100), what[2]) if what[0] == "file" else what
        for name, what in found.items()
        if what[0] != "folder"
    }


def test_a_clean_tree_is_the_commit_s_own(store):
    capture = store.capture()
    assert capture.is_clean and capture.problems == []
    assert capture.commit == git(store.code, "rev-parse", "HEAD")
    assert capture.tree == git(store.code, "rev-parse", "HEAD^{tree}")
    assert capture.branch == "main"


def test_everything_that_is_not_ignored_comes_back_byte_for_byte(store):
    code = store.code
    write(
        code,
        {
            "crlf.txt": "one\r\ntwo\n",
            ".gitattributes": "* text=auto eol=crlf\n*.id ident\n*.utf filter=lower\n",
            "a.id": "$Id$\n",
            "empty": "",
            "binary": bytes(range(256)),
            "deep/er/file": "x",
            "tracked.bin": b"\r\n\0\r\n",
            ".gitignore": "ignored/\n*.log\n",
            "kept.log": "tracked though ignored\n",
            "b.utf": "ABC\n",
        },
    )
    git(code, "add", "-A")
    git(code, "add", "-f", "kept.log")
    git(code, "commit", "-q", "-m", "more")
    write(
        code,
        {
            "agent.py": "dirty\r\n",
            "untracked/a b": "new\n",
            "ignored/x": "x",
            "y.log": "y",
            "kept.log": "changed though ignored\r\n",
        },
    )
    os.unlink(code / "empty")
    os.chmod(code / "binary", 0o755)
    os.symlink("../nowhere", code / "dangling")
    os.symlink("deep", code / "to a folder")
    odd = os.fsdecode(b'caf\xe9 \xff\n"quoted"\t name')
    write(code, {odd: "odd\n", "-rf": "dash\n", ":(top)x": "magic\n", os.fsdecode(b"d\xff/\n/f"): "deep odd\n"})
    out = store.laid_out(store.keep())
    expected = {name: what for name, what in contents(code).items() if name not in ("ignored/x", "y.log")}
    assert contents(out) == expected
    assert odd in expected and "kept.log" in expected and "empty" not in expected


def test_the_same_tree_has_the_same_name_and_another_has_another(store):
    one = store.capture().tree
    write(store.code, {"new": "x"})
    two = store.capture().tree
    os.unlink(store.code / "new")
    assert store.capture().tree == one != two


def test_nothing_of_the_agent_s_is_run(store):
    code, marker = store.code, store.folder / "ran"
    run = f"touch {marker}; cat"
    for key in (
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "core.fsmonitor",
        "diff.external",
        "core.pager",
        "gpg.program",
        "core.sshCommand",
        "uploadpack.packObjectsHook",
        "core.editor",
    ):
        git(code, "config", key, run)
    git(code, "config", "filter.evil.required", "true")
    git(code, "config", "core.hooksPath", str(code / "hooks"))
    for name in ("pre-commit", "post-checkout", "post-index-change", "reference-transaction", "post-commit"):
        for folder in ("hooks", ".git/hooks"):
            write(code, {f"{folder}/{name}": f"#!/bin/sh\ntouch {marker}\n"})
            os.chmod(code / folder / name, 0o755)
    write(code, {".gitattributes": "* filter=evil diff=evil merge=evil\n", "agent.py": "changed\n"})
    commit = store.capture().commit
    for act in (
        store.keep,
        lambda: store.vault.keep_branches(store.repository.git),
        store.repository.survey,
        lambda: store.laid_out("refs/agentctl/g/1"),
        lambda: store.staging.read_ignored(store.staging.ask_ignored(str(code))),
        lambda: store.repository.put_on("main", commit, {"rescue/x": commit}),
        lambda: store.repository.take_index("/nonexistent"),
        lambda: store.repository.commit_work(str(code), "rescue/y", commit, "work\n", store.staging.path),
    ):
        act()
        assert not marker.exists(), act
    assert git(code, "show", "rescue/y:agent.py") == "changed"


def forge(code: Path, of: str, content: bytes) -> str:
    """Put other content under the name of the object `of`."""
    oid = git(code, "rev-parse", of)
    path = code / ".git/objects" / oid[:2] / oid[2:]
    os.chmod(path, 0o644)
    path.write_bytes(zlib.compress(b"blob %d\0" % len(content) + content))
    return oid


def test_a_forged_object_does_not_get_into_the_vault(store):
    oid = forge(store.code, "HEAD:agent.py", b"print('evil')\n")
    capture = store.capture()
    made = store.keep(capture)
    assert (store.laid_out(made) / "agent.py").read_text() == "print(1)\n"
    assert store.vault.git.run("cat-file", "blob", oid).stdout == b"print(1)\n"
    assert store.vault.check([made]) == ""
    with pytest.raises(CommandFailed):
        store.vault.git.run("cat-file", "blob", git(store.code, "hash-object", "--stdin", input=b"print('evil')\n"))


def test_a_forged_object_of_a_dirty_tree_does_not_either(store):
    forge(store.code, "HEAD:agent.py", b"print('evil')\n")
    write(store.code, {"more.txt": "dirty\n"})
    made = store.keep()
    assert contents(store.laid_out(made)) == contents(store.code)
    assert store.vault.check([made]) == ""


def test_a_repository_that_lost_objects_still_gives_its_tree(store):
    for path in (store.code / ".git/objects").glob("??/*"):
        path.unlink()
    capture = store.capture()
    made = store.keep(capture)
    assert contents(store.laid_out(made)) == contents(store.code)
    assert store.vault.refs("refs/agentctl/commit/") == {}


@pytest.mark.parametrize("head", ["junk", "ref: refs/heads/none\n", "0" * 40 + "\n", ""])
def test_a_head_that_says_nothing(store, head):
    write(store.code, {".git/HEAD": head})
    capture = store.capture()
    assert capture.commit == ""
    assert contents(store.laid_out(store.keep(capture))) == contents(store.code)


def test_without_a_git_folder_the_tree_is_captured_too(store):
    os.rename(store.code / ".git", store.folder / "gone")
    capture = store.capture()
    assert contents(store.laid_out(store.keep(capture))) == contents(store.code)


def test_replaced_and_grafted_objects_are_seen_as_they_are(store):
    first = git(store.code, "rev-parse", "HEAD")
    write(store.code, {"agent.py": "print(2)\n"})
    git(store.code, "commit", "-q", "-am", "second")
    git(store.code, "replace", "HEAD", first)
    assert store.capture().is_clean
    assert (store.laid_out(store.keep()) / "agent.py").read_text() == "print(2)\n"


def test_a_stale_lock_of_ours_is_no_obstacle(store):
    write(store.staging.path, {"agentctl-index.lock": ""})
    write(store.code, {"new": "x"})
    assert contents(store.laid_out(store.keep())) == contents(store.code)


def test_a_tree_that_changes_its_kinds(store):
    store.capture()
    os.unlink(store.code / "agent.py")
    write(store.code, {"agent.py/inner": "now a folder\n"})
    assert contents(store.laid_out(store.keep())) == contents(store.code)


def test_laying_out_something_the_vault_lacks(store):
    (store.folder / "x").mkdir()
    with pytest.raises(AgentctlError):
        store.vault.lay_out("1" * 40, str(store.folder / "x"))


def test_a_vault_with_a_rotten_object_says_so(store):
    write(store.code, {"big": os.urandom(5000)})
    made = store.keep()
    assert store.vault.check([made]) == ""
    for pack in Path(store.vault.path, "objects/pack").glob("*.pack"):
        os.chmod(pack, 0o644)
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 0xFF
        pack.write_bytes(data)
    assert store.vault.check([made])


def test_branches_and_tags_are_kept_also_when_they_are_gone(store):
    git(store.code, "branch", "idea")
    git(store.code, "tag", "-a", "v1", "-m", "one")
    store.vault.keep_branches(store.repository.git)
    before = store.vault.refs("refs/agentctl/kept/")
    assert set(before) == {f"refs/agentctl/kept/{n}" for n in ("heads/main", "heads/idea", "tags/v1")}
    git(store.code, "branch", "-D", "idea")
    store.vault.keep_branches(store.repository.git)
    assert store.vault.refs("refs/agentctl/kept/") == before


def test_a_branch_that_became_a_folder_of_branches_is_kept(store):
    git(store.code, "branch", "topic", git(store.code, "commit-tree", "HEAD^{tree}", "-m", "only here"))
    only = git(store.code, "rev-parse", "topic")
    store.vault.keep_branches(store.repository.git)
    git(store.code, "branch", "-D", "topic")
    git(store.code, "branch", "topic/a")
    write(store.code, {"agent.py": "print(3)\n"})
    git(store.code, "commit", "-q", "-am", "third")
    store.vault.keep_branches(store.repository.git)
    assert store.vault.refs("refs/agentctl/kept/heads/main").popitem()[1] == git(store.code, "rev-parse", "main")
    assert only in store.vault.refs("refs/agentctl/replaced/").values()


def test_what_git_ignores_is_listed(store):
    write(
        store.code,
        {
            ".gitignore": "*.log\ncache/\n",
            ".git/info/exclude": "mine\n",
            "x.log": "",
            "cache/a": "",
            "mine": "",
            os.fsdecode(b"\xff\n.log"): "",
            "seen": "",
        },
    )
    store.capture()
    assert sorted(store.staging.read_ignored(store.staging.ask_ignored(str(store.code)))) == sorted(
        ["cache/", "mine", "x.log", os.fsdecode(b"\xff\n.log")]
    )


@pytest.mark.parametrize("hinder", [
    lambda path: path.mkdir(), lambda path: path.symlink_to("/proc/self/mem"),
], ids=["a folder", "unreadable"])  # fmt: skip
def test_a_list_of_ignored_files_that_git_cannot_read_does_not_freeze_the_capture(store, hinder):
    before = store.capture()
    exclude = store.code / ".git/info/exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.unlink(missing_ok=True)
    hinder(exclude)
    write(store.code, {"agent.py": "print(2)\n", "new.py": "3\n"})
    after = store.capture()
    assert after.tree != before.tree
    assert contents(store.laid_out(store.keep(after))) == contents(store.code)


def test_the_lock_of_a_killed_git_does_not_close_the_vault(store):
    commit = store.keep()
    for name in ("g/1", "commit/1", "good/1"):
        lock = Path(store.vault.path, "refs/agentctl", f"{name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text("")
    store.vault.update({"refs/agentctl/g/1": commit, "refs/agentctl/good/1": commit})
    assert store.vault.refs("refs/agentctl/good/") == {"refs/agentctl/good/1": commit}
    assert not list(Path(store.vault.path).rglob("*.lock"))


def put_fifo(store, revision):
    """Put a FIFO in the place of a loose object."""
    oid = git(store.code, "rev-parse", revision)
    path = store.code / ".git/objects" / oid[:2] / oid[2:]
    path.unlink()
    os.mkfifo(path)


def test_git_is_not_let_wait_at_an_object_that_is_no_file(store):
    """For ten minutes, once; the tree can be had without that object."""
    put_fifo(store, "HEAD^{tree}")
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="waits at what is no file"):
        store.repository.git.has_object("HEAD^{tree}:agent.py")
    with pytest.raises(CommandFailed, match="waits at what is no file"):
        pipe_pack(store.repository.git, [git(store.code, "rev-parse", "HEAD")], [], store.vault.git)
    assert store.repository.look() == ("", "", "")
    before = time.monotonic()
    with pytest.raises(CommandFailed, match="as before"):  # it is known by now
        store.repository.git.run("cat-file", "-p", "HEAD^{tree}")
    assert time.monotonic() - before < 1
    assert contents(store.laid_out(store.keep())) == contents(store.code)
    assert time.monotonic() - begun < 30


def test_git_is_not_let_wait_where_the_copy_goes(store):
    """A commit comes in from the vault beside an object that is no file: neither side of the copy waits on."""
    commit = store.keep()
    put_fifo(store, "HEAD:agent.py")
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match="waits at what is no file"):
        store.repository.fetch_from(store.vault.git, [commit])
    assert time.monotonic() - begun < 10
    assert (store.vault.git.standstills, store.repository.git.standstills) == (0, 1)  # the vault is not to blame


@pytest.mark.parametrize("name", [".gitattributes", "lib/.gitattributes", ".gitignore"])
def test_a_fifo_in_the_tree_does_not_hold_up_a_copy_of_commits(store, name):
    write(store.code, {"lib/x": "1\n"})
    git(store.code, "add", "-A")
    git(store.code, "commit", "-q", "-m", "more")
    os.mkfifo(store.code / name)
    begun = time.monotonic()
    commit = store.keep()
    store.vault.keep_branches(store.repository.git)
    assert store.vault.refs("refs/agentctl/commit/") == {"refs/agentctl/commit/1": git(store.code, "rev-parse", "HEAD")}
    assert (store.laid_out(commit) / "lib/x").read_text() == "1\n"
    assert time.monotonic() - begun < 10


def test_a_fifo_for_a_branch_of_a_repository_inside_does_not_hold_up_the_capture(store):
    make_repository(store.code / "inner", {"x": "1\n"})
    git(store.code / "inner", "switch", "-q", "-c", "topic")
    (store.code / "inner/.git/refs/heads/topic").unlink()
    os.mkfifo(store.code / "inner/.git/refs/heads/topic")
    begun = time.monotonic()
    assert (store.laid_out(store.keep()) / "agent.py").exists()
    assert time.monotonic() - begun < 20


def test_a_recording_that_meets_one_fifo_after_the_other_gets_on(store):
    """It is looked at ever more rarely, and waits longer at the second than a git may that nobody lets go."""
    for name in ("a", "b", "c"):
        write(store.code, {f"{name}/x": "1\n"})
        os.mkfifo(store.code / name / ".gitattributes")
    assert (store.laid_out(store.keep()) / "c/x").read_text() == "1\n"
