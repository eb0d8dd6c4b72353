"""The agent's repository after a rollback: healthy and on the good commit, whatever it was before."""

from __future__ import annotations

import os
import time

import pytest

from agentctl.ledger import models, writers
from agentctl.runner import jobs, launch
from integration.world import World, git, make_repository, write
from kit.manifest import manifest


@pytest.fixture
def world(monkeypatch):
    """An agent on a bad commit, with another branch, a stash and a tag; the vault has its branches."""
    world = World(monkeypatch)
    git(world.code, "branch", "idea", git(world.code, "commit-tree", "HEAD^{tree}", "-m", "an idea"))
    git(world.code, "tag", "v1")
    world.adopt()
    write(world.code, {"behaviour.py": "stashed\n"})
    git(world.code, "stash", "-q")
    world.bad = world.mode("crash")
    yield world
    world.end()


def roll_back(world: World) -> dict:
    """Fail the present tree and run the one-shot; return the incident."""
    with world.ledger() as ledger:
        generation = launch.identify(world.context, ledger)
        writers.add_no_launch(
            ledger,
            launch.new_id(),
            generation.number,
            at=time.time(),
            boot_id=launch.boot_id(),
            end=models.REFUSED,
            trigger="refused",
            reason="told to",
        )
    assert world.rollback_once() == 0, world.log
    return world.incidents()[-1]


def assert_healthy(world: World) -> None:
    code = world.code
    assert git(code, "rev-parse", "HEAD", "main").split() == [world.first, world.first], world.log
    assert git(code, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(code, "status", "--porcelain") == ""
    assert "MERGE_HEAD" not in os.listdir(code / ".git")
    git(code, "fsck", "--strict")
    write(code, {"after.txt": "x"})  # it takes work again
    git(code, "add", "-A")
    git(code, "commit", "-q", "-m", "after")


def locks(world):
    names = ("index", "HEAD", "config", "packed-refs", "refs/heads/main", "refs/heads/a/b")
    write(world.code / ".git", {f"{name}.lock": "" for name in names})


def merge_in_progress(world):
    git(world.code, "branch", "other", world.first)
    git(world.code, "switch", "-q", "other")
    world.commit({"behaviour.py": "MODE = 'conflict'\n"})
    git(world.code, "switch", "-q", "main")
    with pytest.raises(AssertionError):
        git(world.code, "merge", "-q", "other")
    assert (world.code / ".git/MERGE_HEAD").exists()


def rebase_in_progress(world):
    git(world.code, "switch", "-q", "-c", "other", world.first)
    world.commit({"behaviour.py": "MODE = 'conflict'\n"})
    with pytest.raises(AssertionError):
        git(world.code, "rebase", "-q", "main")


def detached_head(world):
    git(world.code, "switch", "-q", "--detach")


def on_another_branch(world):
    git(world.code, "switch", "-q", "-c", "topic")


def main_is_gone(world):
    git(world.code, "switch", "-q", "-c", "topic")
    git(world.code, "branch", "-D", "main")


def index_is_junk(world):
    write(world.code, {".git/index": b"junk"})


def a_branch_called_rescue(world):
    git(world.code, "branch", "rescue")


def head_is_junk(world):
    write(world.code, {".git/HEAD": "junk"})


def head_is_gone(world):
    os.unlink(world.code / ".git/HEAD")


MENDED = [head_is_junk, head_is_gone, locks, merge_in_progress, rebase_in_progress, detached_head, on_another_branch,
          main_is_gone, index_is_junk, a_branch_called_rescue]  # fmt: skip


@pytest.mark.parametrize("harm", MENDED)
def test_a_repository_that_can_be_mended_is(world, harm):
    inode = os.stat(world.code / ".git").st_ino
    head = world.bad
    harm(world)
    if harm not in (head_is_junk, head_is_gone):
        head = git(world.code, "rev-parse", "HEAD")
    incident = roll_back(world)
    assert os.stat(world.code / ".git").st_ino == inode, "it was remade"
    assert_healthy(world)
    assert git(world.code, "show", "stash@{0}:behaviour.py") == "stashed"
    assert git(world.code, "log", "-1", "--format=%s", "idea") == "an idea"
    rescue = [line for line in git(world.code, "branch", "--list", f"rescue*{incident['id']}").split() if line]
    assert [git(world.code, "rev-parse", name) for name in rescue] == [head]
    if harm is locks:
        kept = {path.name for path in (world.quarantine(incident) / "git-state").iterdir()}
        assert kept >= {"index.lock", "refs%heads%main.lock", "refs%heads%a%b.lock"}
    assert f"`{rescue[0]}`" in (world.state / "BRIEF.md").read_text()
    assert rescue == [f"rescue-{incident['id']}" if harm is a_branch_called_rescue else f"rescue/{incident['id']}"]


def git_is_gone(world):
    os.rename(world.code / ".git", world.folder / "taken away")


def git_is_a_file(world):
    os.rename(world.code / ".git", world.folder / "elsewhere")
    write(world.code, {".git": f"gitdir: {world.folder}/elsewhere\n"})


def git_is_junk(world):
    git_is_gone(world)
    write(world.code, {".git": b"\0junk"})


def config_is_junk(world):
    write(world.code, {".git/config": "[core\n=\n"})


def refs_are_a_file(world):
    git_is_gone(world)
    make_repository(world.folder / "other", {"x": "y"})
    os.rename(world.folder / "other/.git", world.code / ".git")
    os.rename(world.code / ".git/refs", world.code / ".git/no-refs")
    write(world.code, {".git/refs": "a file"})


def an_empty_folder(world):
    git_is_gone(world)
    (world.code / ".git").mkdir()


REMADE = [git_is_gone, git_is_a_file, git_is_junk, config_is_junk, refs_are_a_file,
          an_empty_folder]  # fmt: skip


@pytest.mark.parametrize("harm", REMADE)
def test_a_repository_that_cannot_be_mended_is_made_anew_from_the_vault(world, harm):
    harm(world)
    before = manifest(world.code / ".git") if (world.code / ".git").is_dir() else None
    incident = roll_back(world)
    assert (world.code / ".git").is_dir()
    assert_healthy(world)
    assert git(world.code, "log", "-1", "--format=%s", "idea") == "an idea"
    assert git(world.code, "show", f"rescue/{incident['id']}:behaviour.py") == "MODE = 'crash'"
    broken = world.quarantine(incident) / "git-broken"
    assert broken.exists() == (harm is not git_is_gone)
    if before:
        kept = manifest(broken)
        assert {name for name in before if kept.get(name) != before[name]} - {"."} == set()


@pytest.mark.parametrize("names", [["rescue"], ["main/x"], ["rescue", "main/x"]])
def test_names_in_the_way_do_not_stop_a_remake(world, names):
    git(world.code, "switch", "-q", "--detach")
    git(world.code, "branch", "-D", "main")
    for name in names:
        git(world.code, "branch", name)
    world.context.vault.keep_branches(world.context.repository.git)
    git_is_gone(world)
    roll_back(world)
    assert_healthy(world)
    kept = git(world.code, "branch", "--format=%(refname:short)").split()
    assert len([name for name in kept if name != "main"]) >= 2 + len(names) - 1


def test_a_name_below_main_does_not_stop_a_rollback(world):
    git(world.code, "switch", "-q", "-c", "topic")
    git(world.code, "branch", "-D", "main")
    git(world.code, "branch", "main/x")
    roll_back(world)
    assert_healthy(world)


def test_a_submodule_comes_back_with_its_files(monkeypatch):
    world = World(monkeypatch)
    try:
        inner = make_repository(world.folder / "inner", {"inner.txt": "one\n"})
        git(world.code, "submodule", "--quiet", "add", str(inner), "sub")
        world.first = world.commit({}, "with a submodule")
        world.adopt()
        write(world.code, {"sub/inner.txt": "two\n"})
        git(world.code / "sub", "commit", "-q", "-am", "two")
        world.mode("crash")
        incident = roll_back(world)
        with world.ledger() as ledger:
            assert jobs.save_work(world.context, ledger, incident["id"]) == 0
        assert (world.code / "sub/inner.txt").read_text() == "one\n"
        assert git(world.code / "sub", "status", "--porcelain") == ""
        assert git(world.code / "sub", "log", "-1", "--format=%s", f"rescue/{incident['id']}") == "two"
        assert_healthy(world)
    finally:
        world.end()


def test_what_was_staged_and_no_more_is_kept(world):
    write(world.code, {"agent.py": "staged, then changed back\n"})
    git(world.code, "add", "agent.py")
    git(world.code, "checkout", "-q", "HEAD", "--", "behaviour.py")
    staged = (world.code / ".git/index").read_bytes()
    incident = roll_back(world)
    assert_healthy(world)
    assert (world.quarantine(incident) / "git-state/index").read_bytes() == staged
