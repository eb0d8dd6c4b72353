"""What moves code, killed with SIGKILL at the Nth line it executes, then run again: nothing lost, nothing half.

A gate dies after some of the calls to the outside: between two of them nothing changes on disk. The nights take
every line, and more pairs, where the recovery is killed too.
"""

import os

import pytest

from agentctl.generations.tree_capture import Staging
from agentctl.host import command
from agentctl.ledger.database import Ledger
from agentctl.recovery import requests
from agentctl.runner import jobs
from integration.crash_world import BAD, CrashWorld, ask, one_shot
from integration.world import git, write
from kit import launches
from kit.exploration import explore_and_record
from kit.manifest import manifest


class Rollback(CrashWorld):
    """The one-shot, all steps, after the last try of a candidate."""

    settings = {"probation": {"tries": 1}}

    def stage(self):
        self.target = manifest(self.slots.standby)
        self.first = self.world.first
        self.world.mode("crash", "a bad change")
        git(self.code, "branch", "feature/kept")
        write(self.code, BAD)
        git(self.code, "add", "dirty.py")
        self.fail()
        write(self.code / ".git", {"MERGE_HEAD": f"{self.world.head()}\n", "index.lock": ""})
        write(self.world.state, {"config/plan.json": "what the bad version wrote"})

    def act(self):
        one_shot(self.name)

    def check(self, rows, is_over):
        moves = [a for a in rows["attempts"] if a["rung"] != "restart"]
        assert len(moves) <= 1, f"I5: {moves}"
        is_open = any(m["is_open"] for m in moves)
        version = self.check_live(self.target)
        plan = (self.world.state / "config/plan.json").read_text()
        assert plan in ("what the bad version wrote", "the good plan")
        is_moved = version == "target" or plan == "the good plan"
        assert not is_moved or moves, "I6: moved without an intent"
        assert is_open or not moves or (version, plan) == ("target", "the good plan"), "I6: closed before it was done"
        if is_over:
            self.check_done(moves)

    def check_done(self, moves):
        assert [(m["rung"], m["target"], m["is_open"]) for m in moves] == [("last known good", 1, 0)]
        heads = ask("git", "-C", str(self.code), "rev-parse", "HEAD", "main", "feature/kept").split()
        assert heads[:2] == [self.first] * 2 and heads[2] != self.first
        assert git(self.code, "status", "--porcelain") == ""
        ask("git", "-C", str(self.code), "fsck", "--strict", "--no-dangling")
        incident = moves[0]["incident"]
        assert "exit status 1" in (self.world.state / "BRIEF.md").read_text()
        assert git(self.code, "log", "-1", "--format=%s", f"rescue/{incident}") == "a bad change"
        assert not (self.code / ".git/MERGE_HEAD").exists()
        assert (self.code / "notes.cache").exists() and not (self.code / "dirty.py").exists()
        self.recovered()


class RollbackByHand(Rollback):
    """A rollback that a human asks for, to a generation whose standby does not stand; golden is further down."""

    def stage(self):
        super().stage()
        with Ledger(self.paths.ledger_path) as ledger:
            requests.submit(ledger, "rollback", "1", "a test")
        os.unlink(f"{self.slots.folder}/standby.json")

    def check_done(self, moves):
        assert [(m["rung"], m["target"], m["is_open"]) for m in moves] == [("by hand", 1, 0)]
        assert "a test" in (self.world.state / "BRIEF.md").read_text()
        self.recovered()


class Restart(CrashWorld):
    """The one-shot where tries are left: the code stays, the task that was not saved is mended."""

    def stage(self):
        self.world.mode("crash", "a bad change")
        write(self.world.state, {"history.jsonl": '{"id": "1", "role": "user", "content": "go on"}\n'})
        self.fail()

    def act(self):
        one_shot(self.name)

    def check(self, rows, is_over):
        self.check_untouched()
        assert {(a["rung"], a["target"], a["is_open"]) for a in rows["attempts"]} <= {("restart", 2, 0)}
        if is_over:
            assert rows["attempts"] and "go on" in (self.world.state / "current_task.md").read_text()
            assert self.begin().generation.number == 2


class Undo(CrashWorld):
    """A rollback taken back: the condemned tree returns from quarantine."""

    settings = {"probation": {"tries": 1}}

    def stage(self):
        self.world.mode("crash", "a bad change")
        write(self.code, BAD)
        self.target = manifest(self.code, without=(".git",))
        self.bad = self.world.head()
        self.fail()
        one_shot(self.name)
        self.recovered()
        with Ledger(self.paths.ledger_path) as ledger:
            launches.stop(ledger, ledger.last_launch().id)
            requests.submit(ledger, "undo")

    def act(self):
        one_shot(self.name)

    def check(self, rows, is_over):
        moves = [a for a in rows["attempts"] if a["rung"] == "undo"]
        assert len(moves) <= 1, f"I5: {moves}"
        live = manifest(self.code, without=(".git",))
        is_old = live == self.tree
        carried = {path for path in self.target if path in self.ignored}
        lost = {path for path, what in self.target.items() if live.get(path) != what} - carried
        assert is_old or not lost, f"I1: neither old nor target: lacks {lost}"
        assert is_old or moves, "I6: moved without an intent"
        if is_over:
            assert [m["is_open"] for m in moves] == [0] and not is_old
            assert git(self.code, "rev-parse", "HEAD", "main").split() == [self.bad] * 2
            assert "dirty.py" in git(self.code, "status", "--porcelain")
            begun = self.begin()
            assert begun.generation.number == 2


class SaveWork(CrashWorld):
    """What was not committed goes onto the rescue branch, beside the running agent."""

    settings = {"probation": {"tries": 1}}

    def stage(self):
        self.world.mode("crash", "a bad change")
        write(self.code, BAD)
        self.fail()
        one_shot(self.name)
        self.begin()
        with Ledger(self.paths.ledger_path) as ledger:
            self.incident = ledger.open_incident().id
        self.head = self.world.head()

    def act(self):
        assert jobs.main(self.name, "save-work", self.incident) == 0

    def check(self, rows, is_over):
        assert manifest(self.code, without=(".git",)) == self.tree
        assert ask("git", "-C", str(self.code), "rev-parse", "HEAD", "main").split() == [self.head] * 2
        ask("git", "-C", str(self.code), "fsck", "--strict", "--no-dangling")
        if is_over:
            listed = git(self.code, "ls-tree", "-r", "--name-only", f"rescue/{self.incident}").splitlines()
            assert {"dirty.py", "sub/deep/x"} <= set(listed) and "notes.cache" not in listed


FAMILIES = {  # what: (the family, points of a gate, pairs of it, every which line at night)
    "rollback": (Rollback, 60, 4, 1),
    "rollback by hand, without a standby": (RollbackByHand, 20, 2, 3),
    "restart": (Restart, 16, 2, 1),
    "undo": (Undo, 40, 3, 1),
    "save-work": (SaveWork, 12, 2, 1),
}


@pytest.mark.every_night
@pytest.mark.parametrize("what", FAMILIES)
def test_killed_anywhere_it_ends_the_same(what):
    explore_and_record(what, *FAMILIES[what])


def test_what_git_ignores_is_asked_again_where_it_failed(monkeypatch):
    """It may look while `.git` moves away under it."""
    ask_git, asked = Staging.ask_ignored, []

    def fail_at_first(self, folder):
        asked.append(folder)
        return ask_git(self, folder) if asked[1:] else command.start(["/bin/false"], env={})

    monkeypatch.setattr(Staging, "ask_ignored", fail_at_first)
    family = Rollback()
    try:
        family.reset()
        one_shot(family.name)
        assert (family.code / "notes.cache").exists()
        assert asked[0] == str(family.code) and asked[1].endswith("/tree") and not asked[2:]
    finally:
        family.end()
