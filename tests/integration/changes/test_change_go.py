"""`agentctl change go`: all that is still to do in one command, which stops at what only somebody else can do."""

from __future__ import annotations

import pytest

from integration.changing import making
from integration.world import git, write


@pytest.fixture
def make(monkeypatch):
    yield from making(monkeypatch)


def test_from_a_commit_to_a_blessed_generation(make):
    world = make()
    world.start()
    world.until_beating(1)
    world.begin(files={"note.txt": "new\n"})
    told = world.ctl("change", "go", "feature/x", "--note", "I read it", "--wait").stdout
    steps = [line for line in told.splitlines() if line in ("check:", "try:", "review:", "promote:")]
    assert steps == ["check:", "try:", "review:", "promote:"] and "feature/x is blessed: generation 2" in told
    assert (world.code / "note.txt").exists() and world.incidents() == []
    assert "Reviewed: I read it" in git(world.code, "log", "-1", "--format=%b", "main")


def test_what_is_on_record_is_not_done_again(make):
    world = make()
    world.make_ready()
    before = world.all("SELECT checked, tried, reviewed FROM changes")
    assert world.ask("change", "go")["did"] == ["promote"]
    assert world.all("SELECT checked, tried, reviewed FROM changes") == before


def test_without_a_review_by_policy_none_is_recorded(make):
    world = make({"change": {"review": "none"}})
    world.begin(files={"note.txt": "new\n"})
    assert world.ask("change", "go")["did"] == ["check", "try", "promote"]
    assert world.all("SELECT reviewed FROM changes") == [{"reviewed": "{}"}]


def test_it_stops_where_a_person_has_to_approve(make):
    world = make({"change": {"review": "human"}})
    world.begin(files={"note.txt": "new\n"})
    told = world.refuses("change", "go")
    assert "stops before approve: nobody but the agent has approved" in told
    assert f"agentctl change approve feature/x --name {world.name}, by a person" in told
    assert git(world.code, "rev-parse", "main") == world.first
    world.ctl("change", "approve")
    assert world.ask("change", "go")["did"] == ["promote"]


def test_it_stops_at_the_first_thing_that_fails_and_goes_on_there(make):
    world = make()
    folder = world.begin(files={"note.py": "def broken(:\n"})
    assert "the check failed at syntax" in world.refuses("change", "go")
    world.commit_in(folder, {"note.py": "x = 1\n", "behaviour.py": "MODE = 'crash'\n"})
    assert "the trial of 'feature/x' failed" in world.refuses("change", "go")
    world.commit_in(folder, {"behaviour.py": "MODE = 'healthy'\n"})
    world.ctl("change", "check")
    world.ctl("change", "try")
    world.ctl("change", "review", "--reject", "--note", "it eats memory")
    told = world.refuses("change", "go")
    assert "stops before review: the review failed: it eats memory" in told
    assert git(world.code, "rev-parse", "main") == world.first


@pytest.mark.parametrize(("spoil", "why", "command"), [
    (lambda world, _: write(world.code, {"behaviour.py": "MODE = 'healthy'  #\n"}), "in no commit: behaviour.py",
     "git -C {code} stash -u"),
    (lambda world, _: git(world.code, "switch", "-q", "-c", "aside"), "is on branch aside, not on main",
     "git -C {code} switch main"),
    (lambda world, _: halt(world), "the agent is halted: it fell down", "agentctl resume --name {name}"),
    (lambda world, _: world.commit({"other.txt": "meanwhile\n"}), "main has 1 commit that it does not have",
     "git -C {folder} merge main"),
], ids=["dirty", "other branch", "halted", "main moved"])  # fmt: skip
def test_what_promote_would_refuse_is_said_at_the_start_of_the_work(make, spoil, why, command):
    """And not when everything else is done; what promote says then are the same words."""
    world = make()
    folder = world.begin(files={"note.txt": "new\n"})
    spoil(world, folder)
    line = command.format(code=world.code, folder=folder, name=world.name)
    checked = world.ctl("change", "check").stdout
    assert f"promote will refuse: {why}" in " ".join(checked.split()) or why in checked, checked
    assert line in checked, checked
    if "main has" not in why:  # a new one departs from what main is
        started = world.ctl("change", "start", "feature/y").stdout
        assert why in started and line in started, started
        world.ctl("change", "abandon", "feature/y")
    world.pass_on()
    assert why in world.refuses("change", "promote")
    assert line in world.ctl("change", "list").stdout and why in world.change()["next"]
    assert why in world.refuses("change", "go")


def halt(world):
    with world.ledger() as ledger:
        ledger.set_meta("halted", "it fell down")


def test_the_commit_command_that_is_printed_commits(make):
    world = make()
    told = world.ctl("change", "start", "feature/x").stdout
    folder = world.folder / ".code.agentctl/changes/feature/x"
    command = next(line.strip() for line in told.splitlines() if " commit " in line)
    write(folder, {"fresh file.txt": "new\n"})
    assert command in world.ctl("change", "list").stdout
    env = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
    world.shell(command, env)
    assert git(folder, "status", "--porcelain") == "" and world.change()["next"].startswith("check:")


# -- what became of it ------------------------------------------------------------------------------


def merge_by_hand(world, name="feature/x"):
    git(world.code, "merge", "-q", "--no-ff", "-m", "by hand", name)
    world.ctl("restart", "--no-wait")


def test_a_commit_that_is_in_a_blessed_generation_is_blessed(make):
    """However it came there: nobody promotes it a second time."""
    world = make()
    world.start()
    world.until_beating(1)
    world.begin(files={"note.txt": "new\n"})
    merge_by_hand(world)
    world.until(lambda: world.status_of(2) == "good", "the blessing")
    row = world.change()
    assert (row["state"], row["is_open"], row["generation"]) == ("blessed", False, 2)
    assert "no open change" in world.ctl("change", "list").stdout
    fresh = world.begin("feature/fresh")  # has nothing of its own yet, so nothing became of it
    assert world.change("feature/fresh")["state"] == "open"
    again = world.ask("change", "start", "feature/x")  # it is opened again, and is about what comes now
    assert again["worktree"] != str(fresh) and world.change()["state"] == "open"


def test_a_commit_whose_generation_is_condemned_is_rolled_back(make):
    world = make()
    world.start()
    world.until_beating(1)
    folder = world.begin(files={"behaviour.py": "MODE = 'crash'\n"})
    merge_by_hand(world)
    world.until_outcome("recovered")
    row = world.change()
    assert (row["state"], row["is_open"]) == ("rolled back", True)
    assert row["reason"].startswith("generation 2 is condemned: ")
    assert "generation 2 is condemned" in world.ctl("change", "list").stdout
    world.commit_in(folder, {"behaviour.py": "MODE = 'healthy'  # mended\n"})
    assert world.change()["state"] == "open"


def test_a_good_change_that_was_rolled_back_by_hand_says_so_until_that_is_undone(make):
    world = make()
    world.start()
    world.until_beating(1)
    world.make_ready()
    world.ctl("change", "promote", "--wait")
    assert world.change()["state"] == "blessed"
    told = world.ctl("rollback", "1", "--yes").stdout
    assert "recovered: generation 2 -> 1" in told
    row = world.change()
    assert (row["state"], row["is_open"], row["next"]) == ("rolled back", True, "promote: nothing is missing")
    assert "generation 2 was good, and incident" in row["reason"] and "went back to 1" in row["reason"]
    undone = world.ask("rollback", "undo", "--yes")
    assert (undone["from"], undone["to"], undone["held"]) == (1, 2, True)
    world.until(lambda: world.change()["state"] == "blessed", "the end of its second trial")


def test_an_undo_that_does_not_hold_says_so(make):
    world = make({"probation": {"duration": "10m", "tries": 1}})
    world.start()
    world.until_beating(1)
    world.commit({"behaviour.py": "MODE = 'crash-later'\n"})
    world.ctl("restart", "--no-wait")
    world.until_outcome("recovered")
    assert "which is condemned" in world.refuses("rollback", "undo", "--yes")
    told = world.refuses("rollback", "undo", "--yes", "--force")
    assert "generation 1 -> 2 did not hold: it was rolled back to generation 1" in told
