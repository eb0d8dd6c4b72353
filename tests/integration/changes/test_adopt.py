"""Adopting a repository: bad input is refused in words, and a refusal leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentctl.changes import adopt
from agentctl.core.errors import AgentctlError
from agentctl.core.paths import USER, AgentPaths
from agentctl.generations import lifecycle
from agentctl.generations.vault import Vault
from integration.world import git, make_repository, write
from kit.manifest import manifest

COMMAND = ["/bin/sh", "run.sh"]
FILES = {"run.sh": "sleep 1\n", ".gitignore": "cache/\n", "cache/x": "ignored\n"}


class Yard:
    """A temporary folder with a repository in it, and the place where agentctl would keep its things."""

    def __init__(self, folder: Path, branch: str = "main") -> None:
        self.folder, self.root = folder, folder / "root"
        self.code = make_repository(folder / "code", FILES, branch)
        write(self.code, {"run.sh": "dirty\n", "untracked": "x"})
        os.symlink("nowhere", self.code / "link")

    def paths(self, name: str = "agent") -> AgentPaths:
        return AgentPaths(name, USER, {"AGENTCTL_ROOT": str(self.root)}, os.getuid())

    def adopt(self, code=None, command=COMMAND, name: str = "agent", **more):
        return adopt.adopt(self.paths(name), str(code or self.code), list(command), **more)


@pytest.fixture
def yard(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTCTL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("AGENTCTL_SCOPE", USER)
    return Yard(tmp_path)


def no_folder(yard):
    return {"code": yard.folder / "nowhere"}, "no such folder"


def a_file(yard):
    return {"code": yard.code / "run.sh"}, "no such folder"


def without_git(yard):
    write(yard.folder, {"plain/run.sh": "x"})
    return {"code": yard.folder / "plain"}, "not a git repository"


def a_folder_below_a_repository(yard):
    write(yard.code, {"sub/run.sh": "x"})
    return {"code": yard.code / "sub"}, "not a git repository"


def without_commits(yard):
    write(yard.folder, {"young/run.sh": "x"})
    git(yard.folder / "young", "init", "-q", "-b", "main")
    return {"code": yard.folder / "young"}, "no commit"


def broken_head(yard):
    write(yard.code, {".git/HEAD": "junk"})
    return {}, "no commit"


def a_bare_repository(yard):
    git(yard.folder, "clone", "-q", "--bare", str(yard.code), "bare.git")
    return {"code": yard.folder / "bare.git"}, "not a git repository"


def a_linked_worktree(yard):
    git(yard.code, "worktree", "add", "-q", "-b", "side", str(yard.folder / "linked"))
    return {"code": yard.folder / "linked"}, "linked worktree"


def missing_branch(yard):
    git(yard.code, "branch", "idea")
    return {"branch": "nope"}, "there is no branch 'nope'"


def on_another_branch(yard):
    git(yard.code, "branch", "idea")
    return {"branch": "idea"}, "it is on 'main', not on 'idea'"


def detached(yard):
    git(yard.code, "switch", "-q", "--detach")
    return {}, "HEAD is detached"


def detached_with_branch(yard):
    git(yard.code, "switch", "-q", "--detach")
    return {"branch": "main"}, "detached HEAD"


def a_branch_like_an_option(yard):
    return {"branch": "--all"}, "no branch '--all'"


def no_command(yard):
    return {"command": []}, "no command"


def missing_program(yard):
    return {"command": ["no-such-program-anywhere"]}, "not found in PATH"


def missing_script(yard):
    return {"command": ["./missing.sh"]}, "'./missing.sh' is not found in"


def empty_program(yard):
    return {"command": [""]}, "not found"


def state_is_a_file(yard):
    write(yard.folder, {"state": "a file"})
    return {"state_dir": str(yard.folder / "state")}, "is a file"


def state_below_a_file(yard):
    write(yard.folder, {"state": "a file"})
    return {"state_dir": str(yard.folder / "state/deeper")}, "state"


def state_is_a_dangling_link(yard):
    os.symlink("nowhere", yard.folder / "state")
    return {"state_dir": str(yard.folder / "state")}, "is a file"


def state_holds_the_code(yard):
    return {"state_dir": str(yard.folder)}, "state.dir"


def state_is_the_code(yard):
    return {"state_dir": str(yard.code)}, "state.dir"


def wrong_settings(yard):
    return {"settings": {"heartbeat": {"timeout": "often"}, "probation": {"tries": 0}}}, "2 mistakes"


def a_bad_name(yard):
    return {"name": "Not A Name"}, "agent.name"


BAD = [no_folder, a_file, without_git, a_folder_below_a_repository, without_commits, broken_head, a_bare_repository,
       a_linked_worktree,
       missing_branch, on_another_branch, detached, detached_with_branch, a_branch_like_an_option, no_command,
       missing_program, missing_script, empty_program, state_is_a_file, state_below_a_file, state_is_a_dangling_link,
       state_holds_the_code, state_is_the_code, wrong_settings, a_bad_name]  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_leaves_nothing_behind(yard, case):
    words, expected = case(yard)
    before = manifest(yard.folder)
    with pytest.raises(AgentctlError) as caught:
        yard.adopt(**words)
    assert expected in caught.value.message
    assert caught.value.hint
    assert manifest(yard.folder) == before


def test_a_second_adoption_of_the_same_name(yard):
    yard.adopt()
    other = make_repository(yard.folder / "other", FILES)
    before = manifest(yard.folder)
    for code in (yard.code, other):
        with pytest.raises(AgentctlError, match="already") as caught:
            yard.adopt(code=code)
        assert "--name" in caught.value.hint
        assert manifest(yard.folder) == before


def test_two_agents_on_one_repository(yard):
    yard.adopt()
    os.symlink(yard.code, yard.folder / "alias")
    before = manifest(yard.folder)
    for code in (yard.code, f"{yard.code}/", yard.folder / "alias"):
        with pytest.raises(AgentctlError, match="adopted already"):
            yard.adopt(code=code, name="other")
        assert manifest(yard.folder) == before


@pytest.mark.parametrize("part", ["prepare_standby", "take_snapshot", "add_generation", "keep_branches"])
def test_a_failure_in_the_middle_leaves_nothing_behind(yard, monkeypatch, part):
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    owner = {
        "take_snapshot": adopt.agent_state,
        "keep_branches": Vault,
    }.get(part, lifecycle)
    monkeypatch.setattr(owner, part, fail)
    before = manifest(yard.folder)
    with pytest.raises(OSError, match="No space"):
        yard.adopt()
    assert manifest(yard.folder) == before
    monkeypatch.undo()
    monkeypatch.setenv("AGENTCTL_ROOT", str(yard.root))
    monkeypatch.setenv("AGENTCTL_SCOPE", USER)
    yard.adopt()  # and nothing is in the way of the next try


def test_state_that_was_there_survives_a_failure(yard, monkeypatch):
    write(yard.folder, {"state/history.jsonl": "{}\n"})
    monkeypatch.setattr(lifecycle, "prepare_standby", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        yard.adopt(state_dir=str(yard.folder / "state"))
    assert (yard.folder / "state/history.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("branch", ["main", "master", "release/v1"])
def test_an_adoption_touches_no_file_of_the_repository(tmp_path, monkeypatch, branch):
    monkeypatch.setenv("AGENTCTL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("AGENTCTL_SCOPE", USER)
    yard = Yard(tmp_path, branch)
    before = manifest(yard.code)
    context = yard.adopt()
    assert manifest(yard.code) == before
    assert context.config.agent.branch == branch
    with context.ledger() as ledger:
        (row,) = ledger.generations()
        assert (row.number, row.status, row.branch) == (1, "good", branch)
        assert row.commit_id == git(yard.code, "rev-parse", "HEAD") and row.snapshot
    assert context.vault.check([row.vault_commit]) == ""
    assert context.slots.standby_note()["generation"] == 1
    standby = manifest(context.slots.standby)
    assert {
        name: what for name, what in manifest(yard.code, without=(".git", "cache")).items() if name != "cache"
    } == standby


def test_what_is_named_in_words_for_people(yard):
    context = yard.adopt()
    assert "adopted" in adopt.note(context)[0] and str(yard.code) in adopt.note(context)[0]
