"""The branch work of a change, as the agent's user does it: what is begun, seen, merged, and left behind."""

import json
import os

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations import worktree
from integration.world import git, make_repository, write

CHANGE = "feature/x"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What is set for git in here is for a process of its own."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def code(tmp_path):
    return make_repository(tmp_path / "code", {"agent.py": "print(1)\n", ".gitignore": "*.log\n"})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "trees/x"


def start(code, folder, name=CHANGE, source="main"):
    return json.loads(worktree.start(str(code), name, source, str(folder)))


def look(code, folder, name=CHANGE):
    return json.loads(worktree.look(str(code), name, "main", str(folder)))


def commit(folder, text="print(2)\n"):
    write(folder, {"agent.py": text})
    git(folder, "commit", "-q", "-am", "more")
    return git(folder, "rev-parse", "HEAD")


def test_a_start_makes_the_branch_its_worktree_and_the_tag_of_where_it_left(code, folder):
    base = git(code, "rev-parse", "main")
    assert start(code, folder) == {"base": base, "branch_was_there": False}
    assert git(folder, "symbolic-ref", "HEAD") == f"refs/heads/{CHANGE}"
    assert git(code, "rev-parse", f"before/{CHANGE}") == base
    assert git(code, "symbolic-ref", "HEAD") == "refs/heads/main"


def test_a_branch_that_is_there_is_taken_up_from_where_it_left(code, folder):
    base = git(code, "rev-parse", "main")
    start(code, folder)
    head = commit(folder)
    assert worktree.remove_worktree(str(code), str(folder)) == ""
    commit(code, "print(3)\n")
    assert start(code, folder) == {"base": base, "branch_was_there": True}
    assert git(folder, "rev-parse", "HEAD") == head and git(code, "rev-parse", f"before/{CHANGE}") == base


@pytest.mark.parametrize("source", ["none", "--upload-pack=x", "HEAD^{tree}", ""])
def test_from_what_is_no_commit_nothing_is_begun(code, folder, source):
    with pytest.raises(AgentctlError, match="there is no branch or commit"):
        start(code, folder, source=source)
    assert git(code, "branch", "--format=%(refname:short)") == "main" and not folder.exists()


def test_what_is_in_the_way_stays(code, folder, tmp_path):
    write(folder, {"mine": "x"})
    with pytest.raises(AgentctlError, match="something is there"):
        start(code, folder)
    git(code, "worktree", "add", "-q", "-b", CHANGE, str(tmp_path / "elsewhere"))
    with pytest.raises(AgentctlError, match=r"is checked out at .*elsewhere already"):
        start(code, folder)
    assert (folder / "mine").read_text() == "x"


def test_what_is_seen_of_a_change(code, folder):
    start(code, folder)
    head = commit(folder)
    commit(code, "print(3)\n")
    write(folder, {"new.py": "x", "a.log": "ignored", "odd\nname": "y"})
    found = look(code, folder)
    assert (found["head"], found["ahead"], found["behind"]) == (head, 1, 1)
    assert found["tree"] == git(code, "rev-parse", f"{CHANGE}^{{tree}}")
    assert found["main"] == found["live_head"] == git(code, "rev-parse", "main") and found["live_branch"] == "main"
    assert (found["has_worktree"], sorted(found["dirty"]), found["live_dirty"]) == (True, ["new.py", "odd\nname"], [])


def test_a_branch_that_is_not_there_yet_has_no_head(code, folder):
    found = look(code, folder)
    assert (found["head"], found["tree"], found["ahead"], found["has_worktree"]) == ("", "", 0, False)


def test_a_worktree_with_another_branch_is_told(code, folder):
    start(code, folder)
    git(folder, "switch", "-q", "-c", "other")
    with pytest.raises(AgentctlError, match=f"has 'other' checked out, not '{CHANGE}'"):
        look(code, folder)
    git(folder, "switch", "-q", "--detach")
    with pytest.raises(AgentctlError, match="has 'no branch' checked out"):
        look(code, folder)


def test_the_files_of_a_change_are_those_since_it_left(code, folder):
    start(code, folder)
    write(folder, {"odd\nname": "1", "agent.py": "print(2)\n"})
    git(folder, "add", "-A")
    git(folder, "rm", "-q", ".gitignore")
    git(folder, "commit", "-q", "-m", "more")
    write(code, {"of_main.py": "x"})
    git(code, "add", "-A")
    git(code, "commit", "-q", "-m", "meanwhile")
    assert sorted(json.loads(worktree.changed_files(str(folder), "main"))) == ["agent.py", "odd\nname"]
    text = worktree.diff(str(code), CHANGE, "main", "--patch")
    assert "+print(2)" in text and "of_main" not in text
    with pytest.raises(AgentctlError, match="the branch feature/none is gone"):
        worktree.diff(str(code), "feature/none", "main", "--patch")


def test_a_merge_has_both_as_parents_the_tree_of_the_branch_and_moves_nothing(code, folder):
    start(code, folder)
    head, main = commit(folder), git(code, "rev-parse", "main")
    made = worktree.merge_commit(str(code), head, main, "a merge")
    assert git(code, "rev-parse", f"{made}^1", f"{made}^2").split() == [main, head]
    assert git(code, "rev-parse", f"{made}^{{tree}}") == git(code, "rev-parse", f"{head}^{{tree}}")
    assert git(code, "rev-parse", "main", CHANGE).split() == [main, head]


def test_a_worktree_with_something_of_its_own_stays(code, folder):
    start(code, folder)
    write(folder, {"new.py": "x"})
    assert "new.py" in worktree.remove_worktree(str(code), str(folder)) or (folder / "new.py").exists()
    assert (folder / "new.py").read_text() == "x"
    os.unlink(folder / "new.py")
    assert worktree.remove_worktree(str(code), str(folder)) == "" and not folder.exists()
    assert worktree.remove_worktree(str(code), str(folder)) == "", "it is gone already"


def test_variables_of_a_hook_that_called_us_name_no_other_repository(code, folder, tmp_path, monkeypatch):
    other = make_repository(tmp_path / "other", {"x": "1"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    found = look(code, folder)
    assert "GIT_DIR" not in os.environ and found["live_head"] == git(code, "rev-parse", "main")


def test_what_is_ignored_does_not_show(code):
    assert worktree.is_ignored(str(code), "a.log") and not worktree.is_ignored(str(code), "a.py")


def test_what_is_no_repository_is_told(tmp_path):
    with pytest.raises(AgentctlError, match="is not a git repository"):
        worktree.is_ignored(str(tmp_path), "x")
