"""A change from its start to its end without promotion: branches, worktrees, records; and every wrong request."""

from __future__ import annotations

import os
import shutil

import pytest

from integration.changing import making
from integration.world import git, write
from kit.manifest import manifest

TASK = "# Current Task\nwork\n\n## Pending Actions\n- [x] begin\n"


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def test_a_start_makes_branch_worktree_tag_snapshot_and_note(make):
    world = make()
    write(world.state, {"current_task.md": TASK})
    before = manifest(world.code, without=(".git",))
    row = world.ask("change", "start", "feature/x", "--about", "count faster")
    folder = world.folder / ".code.agentctl/changes/feature/x"
    assert row["worktree"] == str(folder) and row["base"] == world.first
    assert git(folder, "symbolic-ref", "--short", "HEAD") == "feature/x"
    assert git(world.code, "rev-parse", "before/feature/x") == world.first
    assert (world.paths.snapshots_dir + "/" + row["snapshot"]) and os.path.isdir(
        f"{world.paths.snapshots_dir}/{row['snapshot']}"
    )
    assert "- [ ] change feature/x: count faster\n" in (world.state / "current_task.md").read_text()
    assert manifest(world.code, without=(".git",)) == before
    assert git(world.code, "status", "--porcelain") == ""
    assert git(world.code, "symbolic-ref", "--short", "HEAD") == "main"
    assert world.change()["state"] == "open" and world.change()["next"].startswith("commit: there is nothing")
    assert "count faster" in world.ctl("change", "list").stdout


def test_a_start_leaves_no_task_where_there_is_none(make):
    world = make()
    assert world.ask("change", "start", "feature/x")["task"] == "there is no current task"
    assert not (world.state / "current_task.md").exists()


def test_the_difference_is_against_the_departure(make):
    world = make()
    folder = world.begin(files={"new.py": "x = 1\n"})
    world.commit({"other.txt": "on main\n"})
    patch = world.ctl("change", "diff", cwd=folder).stdout
    assert "+x = 1" in patch and "other.txt" not in patch
    assert "new.py" in world.ctl("change", "diff", "feature/x", "--stat").stdout
    assert world.ask("change", "diff", "feature/x")["diff"] == patch


def test_abandoned_is_the_worktree_not_the_branch(make):
    world = make()
    write(world.state, {"current_task.md": TASK})
    folder = world.begin(files={"new.py": "x = 1\n"})
    head = git(folder, "rev-parse", "HEAD")
    world.ctl("change", "abandon", "feature/x", "--reason", "it was a bad idea")
    assert not folder.exists() and git(world.code, "rev-parse", "feature/x") == head
    row = world.change()
    assert (row["state"], row["reason"]) == ("abandoned", "it was a bad idea")
    assert "- [x] change feature/x" in (world.state / "current_task.md").read_text()
    assert world.ask("change", "list") == []
    again = world.ask("change", "start", "feature/x")
    assert again["branch_was_there"] and (folder / "new.py").exists()
    assert world.change()["state"] == "open"


def test_what_is_in_no_commit_keeps_the_worktree(make):
    world = make()
    folder = world.begin()
    write(folder, {"draft.py": "x = 1\n"})
    assert "its worktree stays" in world.ctl("change", "abandon").stdout
    assert (folder / "draft.py").exists()


def test_two_at_once(make):
    world = make()
    one, other = world.begin("feature/one", {"a.py": "a = 1\n"}), world.begin("hotfix/other", {"b.py": "b = 1\n"})
    assert {row["name"] for row in world.ask("change", "list")} == {"feature/one", "hotfix/other"}
    assert not (one / "b.py").exists() and not (other / "a.py").exists()
    assert "which change?" in world.refuses("change", "diff")
    assert "b.py" in world.ctl("change", "diff", "--stat", cwd=other).stdout


def test_a_worktree_that_was_deleted_comes_back(make):
    world = make()
    folder = world.begin(files={"new.py": "x = 1\n"})
    shutil.rmtree(folder)
    assert world.change()["next"].startswith("start: its worktree")
    world.ctl("change", "start", "feature/x")
    assert (folder / "new.py").read_text() == "x = 1\n"


# --- wrong requests


def test_names_that_no_change_may_have(make):
    world = make({"change": {"prefixes": ["idea/"]}})
    assert "idea/NAME" in world.refuses("change", "start", "feature/x", status=2)
    world.ctl("change", "start", "idea/x")


def test_a_branch_that_is_not_known(make):
    world = make()
    assert "no branch or commit 'nope'" in world.refuses("change", "start", "feature/x", "--from", "nope")
    assert git(world.code, "branch", "--list", "feature/*") == ""
    assert world.ask("change", "list", "--all") == []
    assert "no change 'feature/y'" in world.refuses("change", "diff", "feature/y")
    assert "there is no open change" in world.refuses("change", "diff")


def test_a_branch_that_is_checked_out_elsewhere(make):
    world = make()
    git(world.code, "worktree", "add", "-q", "-b", "feature/x", str(world.folder / "mine"))
    told = world.refuses("change", "start", "feature/x")
    assert f"checked out at {world.folder}/mine" in told
    assert world.ask("change", "list", "--all") == []


def test_started_twice(make):
    world = make()
    folder = world.begin()
    assert str(folder) in world.refuses("change", "start", "feature/x")


def test_something_in_the_way_of_the_worktree(make):
    world = make()
    write(world.folder, {".code.agentctl/changes/feature/x/mine.txt": "mine"})
    assert "something is there" in world.refuses("change", "start", "feature/x")
    assert (world.folder / ".code.agentctl/changes/feature/x/mine.txt").read_text() == "mine"


def test_a_worktree_with_another_branch(make):
    world = make()
    folder = world.begin(files={"new.py": "x = 1\n"})
    git(folder, "switch", "-q", "-c", "aside")
    assert "has 'aside' checked out" in world.change()["next"]


def test_a_damaged_task_is_no_hindrance(make):
    world = make()
    write(world.state, {"current_task.md": b"\0\0"})
    assert "damaged" in world.ask("change", "start", "feature/x")["task"]
    assert (world.state / "current_task.md").read_bytes() == b"\0\0"
