"""Names of refs that git would take for another: the branch is meant, always, by its full name."""

from __future__ import annotations

import json

import pytest

from agentctl.generations import worktree
from agentctl.generations.agent_repo import Repository, check_adoptable
from integration.world import git, make_repository

# What makes a name mean something else, as commands of git; `old` is the first commit of two.
ODD = {
    "nothing odd": [],
    "a tag called HEAD": [("tag", "HEAD", "old")],
    "a tag object called HEAD": [("tag", "-a", "-m", "x", "HEAD", "old")],
    "a branch called HEAD": [("update-ref", "refs/heads/HEAD", "old")],
    "a remote's branch called HEAD": [("update-ref", "refs/remotes/HEAD", "old")],
    "tag and branch called HEAD": [("tag", "HEAD", "old"), ("update-ref", "refs/heads/HEAD", "old")],
    "a tag called main": [("tag", "main", "old")],
    "a tag called heads/main": [("tag", "heads/main", "old")],
    "a tag called refs/heads/main": [("tag", "refs/heads/main", "old")],
    "a branch called heads/main": [("branch", "heads/main", "old")],
    "a branch called refs/heads/main": [("branch", "refs/heads/main", "old")],
    "a ref called main": [("update-ref", "refs/main", "old")],
    "a remote called main": [("update-ref", "refs/remotes/main/HEAD", "old")],
    "twins by case": [("branch", "Main", "old"), ("branch", "MAIN", "old"), ("tag", "Feature/X", "old")],
    "a tag called as the change": [("tag", "feature/x", "old")],
    "a branch called as a commit": [("branch", "OLD", "old")],
    "all of it packed": [
        ("tag", "HEAD", "old"),
        ("tag", "main", "old"),
        ("branch", "Main", "old"),
        ("pack-refs", "--all"),
    ],
}


@pytest.fixture(params=ODD, ids=[name.replace(" ", "-") for name in ODD])
def repository(tmp_path, request):
    code = make_repository(tmp_path / "code", {"a.txt": "1\n"})
    old = git(code, "rev-parse", "HEAD")
    git(code, "commit", "-q", "--allow-empty", "-m", "second")
    new = git(code, "rev-parse", "HEAD")
    for words in ODD[request.param]:
        git(code, *(old if word == "old" else old[:7] if word == "OLD" else word for word in words))
    return Repository(str(code), None), new


def test_head_is_told_right(repository):
    repository, new = repository
    tree = git(repository.code_dir, "rev-parse", f"{new}^{{tree}}")
    assert repository.head() == (new, "main")
    commit, told, branch = repository.look()
    assert (commit, branch) == (new, "main")
    assert told in (tree, ""), "unknown, or right"
    assert repository.survey()[:2] == (new, "main")
    assert check_adoptable(repository.code_dir, "main", None) == (new, "main")
    assert check_adoptable(repository.code_dir, "", None) == (new, "main")


def test_what_is_put_on_a_commit_is_the_branch(repository):
    repository, new = repository
    before = dict(reversed(line.split(" ")) for line in _refs(repository))
    old = git(repository.code_dir, "rev-parse", f"{new}^")
    repository.put_on("main", old, {"rescue/1": new})
    after = dict(reversed(line.split(" ")) for line in _refs(repository))
    assert after == {**before, "refs/heads/main": old, "refs/heads/rescue/1": new}
    assert git(repository.code_dir, "symbolic-ref", "HEAD") == "refs/heads/main"


def test_a_change_departs_from_the_branch(repository, tmp_path):
    repository, new = repository
    folder = str(tmp_path / "changes" / "feature" / "x")
    made = json.loads(worktree.start(repository.code_dir, "feature/x", "main", folder))
    assert made == {"base": new, "branch_was_there": False}
    assert git(folder, "symbolic-ref", "HEAD") == "refs/heads/feature/x"
    assert git(folder, "rev-parse", "HEAD") == new
    git(folder, "commit", "-q", "--allow-empty", "-m", "on it")
    seen = json.loads(worktree.look(repository.code_dir, "feature/x", "main", folder))
    assert (seen["ahead"], seen["behind"], seen["main"], seen["live_branch"]) == (1, 0, new, "main")
    assert (seen["live_head"], seen["dirty"]) == (new, [])
    again = json.loads(worktree.start(repository.code_dir, "feature/x", "main", folder))
    assert again == {"base": new, "branch_was_there": True}
    assert worktree.remove_worktree(repository.code_dir, folder) == ""
    assert json.loads(worktree.start(repository.code_dir, "feature/x", "main", folder))["base"] == new
    assert git(folder, "rev-parse", "HEAD") == seen["head"]


def test_a_head_that_is_on_no_branch_has_none(tmp_path):
    code = make_repository(tmp_path / "code", {"a.txt": "1\n"})
    git(code, "update-ref", "refs/odd/main", "HEAD")
    git(code, "symbolic-ref", "HEAD", "refs/odd/main")
    repository = Repository(str(code), None)
    commit = git(code, "rev-parse", "refs/heads/main")
    assert repository.head() == (commit, "")
    assert (repository.look()[0], repository.look()[2]) == (commit, "")
    assert repository.survey()[:2] == (commit, "")


def _refs(repository) -> list[str]:
    return git(repository.code_dir, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
