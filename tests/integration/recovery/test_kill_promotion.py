"""A promotion, killed with SIGKILL at the Nth line it executes, then run again: main is before or after, never between.

A gate dies after some of the calls to the outside. The nights take every line, and more pairs.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from agentctl.changes import promote
from agentctl.generations import lifecycle, worktree
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import change_records
from agentctl.ledger.change_records import Author
from agentctl.ledger.database import Ledger
from agentctl.recovery import process
from integration.crash_world import CrashWorld, ask
from integration.world import git, write
from kit import launches
from kit.exploration import explore_and_record
from kit.manifest import manifest

NAME = "feature/x"
ANN = Author("ann", is_agent=False)


class Prepare(CrashWorld):
    """What happens while the agent runs: candidate into the vault, its tree laid out, the request written down."""

    settings = {**CrashWorld.settings, "change": {"review": "none", "lint": []}}

    def stage(self):
        folder = self.world.folder / "worktree"
        git(self.code, "worktree", "add", "-q", "-b", NAME, str(folder))
        write(folder, {"note.txt": "new\n", "behaviour.py": "MODE = 'healthy'  # new\n"})
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", "a change")
        self.first, self.head = git(self.code, "rev-parse", "main", NAME).split()
        self.merge = worktree.merge_commit(str(self.code), self.head, self.first, "Merge feature/x")
        begun = self.begin()
        done = {"commit": self.head, "tree": git(self.code, "rev-parse", f"{NAME}^{{tree}}")}
        with Ledger(self.paths.ledger_path) as ledger:
            launches.stop(ledger, begun.id)
            for request in (
                {"verb": "start", "base": self.first, "worktree": str(folder), "about": "a note"},
                {"verb": "check", "facts": {**done, "ok": True}}, {"verb": "try", "facts": {**done, "ok": True}},
                {"verb": "promote", **done, "main": self.first, "merge": self.merge, "confirm_seconds": 600,
                 "on_failure": "freeze"},
            ):  # fmt: skip
                change_records.handle(self.context, ledger, {**request, "name": NAME}, ANN)

    @property
    def slot(self):
        return lifecycle.candidate_slot(self.context)

    def act(self):
        context = AgentContext.open(self.name)
        with context.ledger() as ledger:
            assert promote.prepare(context, ledger, NAME) == ""

    def trees(self):
        slot = Path(self.slot.standby)
        return [*super().trees(), *([slot] if slot.is_dir() else [])]

    def check(self, rows, is_over):
        self.check_untouched()
        (change,) = rows["changes"]
        assert len(rows["generations"]) <= 2 and change["status"] == "promoting"
        if rows["requests"]:
            (request,) = rows["requests"]
            assert (request["verb"], request["target"], change["generation"]) == ("promote", "2", 2)
            assert self.slot.standby_note()["generation"] == 2
            assert self.tree_of(self.slot.standby) == rows["generations"][1]["tree"]
            assert rows["generations"][1]["on_failure"] == "freeze"
        if is_over:
            assert len(rows["requests"]) == 1 and rows["generations"][1]["commit_id"] == self.merge


class Promote(Prepare):
    """The one-shot that puts it in place."""

    def stage(self):
        super().stage()
        context = AgentContext.open(self.name)
        with context.ledger() as ledger:
            assert promote.prepare(context, ledger, NAME) == ""
        self.target = manifest(self.slot.standby)

    def act(self):
        assert process.main(self.name) == 0

    def check(self, rows, is_over):
        version = self.check_live(self.target)
        moves = [a for a in rows["attempts"] if a["rung"] == "promote"]  # a second run may restart what was not begun
        assert len(moves) <= 1, f"I5: {moves}"
        assert version == "old" or moves, "I6: moved without an intent"
        is_done = bool(moves) and not moves[0]["is_open"]
        assert not is_done or version == "target", "I6: closed before it was done"
        if (self.code / ".git").is_dir():  # else it is on its way from the old tree
            main = git(self.code, "rev-parse", "main")
            assert main == (self.merge if is_done else main) and main in (self.first, self.merge)
        if is_over:
            assert [(m["target"], m["is_open"]) for m in moves] == [(2, 0)]
            self.check_done(rows)

    def check_done(self, rows):
        assert git(self.code, "rev-parse", "HEAD", "main", "v2").split() == [self.merge] * 3
        assert git(self.code, "status", "--porcelain") == "" and git(self.code, "rev-parse", NAME) == self.head
        ask("git", "-C", str(self.code), "fsck", "--strict", "--no-dangling")
        assert (self.code / ".venv/version").exists()
        (change,) = rows["changes"]
        assert change["status"] == "promoted" and rows["generations"][1]["confirm_by"] > time.time()
        begun = self.begin()
        assert begun.generation.number == 2 and begun.snapshot


class PromoteAfterMainMoved(Prepare):
    """Somebody commits on main after the request: it is given up, and nothing has moved."""

    def stage(self):
        super().stage()
        context = AgentContext.open(self.name)
        with context.ledger() as ledger:
            assert promote.prepare(context, ledger, NAME) == ""
        self.moved = self.world.commit({"other.txt": "meanwhile\n"})

    def act(self):
        assert process.main(self.name) == 0

    def check(self, rows, is_over):
        self.check_untouched()
        if is_over:
            (change,) = rows["changes"]
            assert change["status"] == "open" and "main has moved" in change["reason"]
            assert not [a for a in rows["attempts"] if a["is_open"]]
            assert git(self.code, "rev-parse", "main") == self.moved


FAMILIES = {  # what: (the family, points of a gate, pairs of it, every which line at night)
    "promote: made ready beside the agent": (Prepare, 6, 1, 3),
    "promote: put in place": (Promote, 12, 2, 1),
    "promote: main has moved": (PromoteAfterMainMoved, 40, 0, 3),
}


@pytest.mark.every_night
@pytest.mark.parametrize("what", FAMILIES)
def test_killed_anywhere_it_ends_the_same(what):
    explore_and_record(what, *FAMILIES[what])
