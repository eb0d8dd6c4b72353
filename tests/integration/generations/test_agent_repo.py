"""The agent's repository as we change it: put on a commit and verified, and work that was in no commit kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError, CommandFailed
from integration.world import git, write


def test_put_on_is_verified(store):
    commit = git(store.code, "rev-parse", "HEAD")
    with pytest.raises((CommandFailed, AgentctlError)):
        store.repository.put_on("main", "1" * 40, {})
    store.repository.put_on("main", commit, {"rescue/i": commit, "rescue/none": ""})
    store.repository.put_on("main", commit, {"rescue/i": commit})
    assert git(store.code, "branch", "--format=%(refname:short)").split() == ["main", "rescue/i"]


def test_a_head_that_is_elsewhere_is_not_believed(store):
    git(store.code, "switch", "-q", "-c", "topic")
    with pytest.raises(AgentctlError, match="HEAD is not main"):
        store.repository.put_on("main", git(store.code, "rev-parse", "HEAD"), {}, is_current=True)


def test_commit_work_keeps_what_was_not_committed(store):
    head = git(store.code, "rev-parse", "HEAD")
    write(
        store.code,
        {
            ".gitattributes": "* text=auto\n",
            "agent.py": "dirty\r\n",
            "new/file": "new\n",
            ".gitignore": "*.log\n",
            "x.log": "ignored",
            os.fsdecode(b"\xff\n"): "odd",
        },
    )
    os.symlink("nowhere", store.code / "link")
    made = store.repository.commit_work(str(store.code), "rescue/i", head, "work\n", store.staging.path)
    assert git(store.code, "rev-parse", "rescue/i", "rescue/i~1").split() == [made, head]
    names = git(store.code, "ls-tree", "-r", "-z", "--name-only", made).split("\0")
    assert set(names) - {""} == {".gitattributes", ".gitignore", "agent.py", "link", "new/file", os.fsdecode(b"\xff\n")}
    assert store.repository.git.run("cat-file", "blob", f"{made}:agent.py").stdout == b"dirty\r\n"
    assert not Path(store.code, ".git/agentctl-rescue-index").exists()
    git(store.code, "fsck", "--strict")


def test_commit_work_after_a_save_that_was_killed(store):
    head = git(store.code, "rev-parse", "HEAD")
    write(store.code, {"dirty.py": "x = 1\n"})
    left = ("agentctl-rescue-index", "agentctl-rescue-index.lock", "refs/heads/rescue/i.lock")
    write(store.code / ".git", dict.fromkeys(left, ""))
    made = store.repository.commit_work(str(store.code), "rescue/i", head, "work\n", store.staging.path)
    assert git(store.code, "rev-parse", "rescue/i") == made
    assert git(store.code, "show", "rescue/i:dirty.py") == "x = 1"


def test_commit_work_of_nothing(store):
    head = git(store.code, "rev-parse", "HEAD")
    assert store.repository.commit_work(str(store.code), "rescue/i", head, "work\n", store.staging.path) == ""
    made = store.repository.commit_work(str(store.code), "rescue/i", "", "work\n", store.staging.path)
    assert git(store.code, "rev-parse", f"{made}^{{tree}}") == git(store.code, "rev-parse", f"{head}^{{tree}}")


def test_an_index_of_its_own_where_none_was_prepared(store):
    write(store.code, {".git/index": b"junk"})
    store.repository.take_index("/nonexistent")
    assert git(store.code, "status", "--porcelain") == ""
