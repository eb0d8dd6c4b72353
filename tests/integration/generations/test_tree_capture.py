"""The tree as it is, captured: what is in it is in the vault byte for byte, and nothing of the agent's is run."""

from __future__ import annotations

import os
import time

import pytest

from integration.vault_store import contents
from integration.world import git, make_repository, write


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


# --- what is no part of a version


def names_of(store, capture) -> set[str]:
    return set(git(store.staging.path, "ls-tree", "-r", "--name-only", capture.tree).splitlines())


def test_what_is_ignored_by_now_is_no_part_of_a_version_though_the_index_had_it(store):
    write(store.code, {"state.json": "1", "kept.json": "1", "sub/state.json": "1"})
    assert {"state.json", "sub/state.json"} <= names_of(store, store.capture())
    git(store.code, "add", "kept.json")
    write(store.code, {".gitignore": "state.json\nkept.json\n"})
    before = store.capture()
    assert names_of(store, before) == {"agent.py", ".gitignore", "kept.json"}  # tracked files are, ignored or not
    write(store.code, {"state.json": "2"})
    assert store.capture().tree == before.tree
    write(store.code, {"kept.json": "2"})
    assert store.capture().tree != before.tree


def test_byte_code_is_no_part_of_a_version_whoever_committed_it(store):
    write(store.code, {"__pycache__/agent.pyc": "1", "sub/old.py": "", "sub/old.pyc": "1", "sub/alone.pyc": "1"})
    assert names_of(store, store.capture()) == {"agent.py", "sub/old.py"}
    git(store.code, "add", "-A")
    git(store.code, "commit", "-qm", "with byte code")
    before = store.capture()
    assert names_of(store, before) == {"agent.py", "sub/old.py", "sub/alone.pyc"}  # a program without its source is one
    write(store.code, {"__pycache__/agent.pyc": "2", "sub/old.pyc": "2"})
    assert store.capture().tree == before.tree


def test_byte_code_that_an_older_capture_took_is_let_go(store):
    write(store.code, {"__pycache__/agent.pyc": "1"})
    store.staging.git.run("add", "--force", "--all", ".", ":(exclude,top).git")  # as 0.1.0 did where nothing ignored it
    assert names_of(store, store.capture()) == {"agent.py"}


def test_where_the_repository_cannot_be_asked_what_was_taken_stays(store, monkeypatch):
    write(store.code, {"state.json": "1", ".gitignore": ""})
    store.capture()
    write(store.code, {".gitignore": "state.json\n"})
    (store.code / ".git/index").write_bytes(b"no index")
    assert "state.json" in names_of(store, store.capture())
