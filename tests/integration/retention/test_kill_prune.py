"""A prune, killed with SIGKILL before its Nth line, then run again: nothing lost, nothing half, nothing left over.

N spreads over the whole run; the nights take many more.
"""

from __future__ import annotations

import os
import shutil

import pytest

from agentctl.retention import prune
from integration.past import Past
from kit import deadline, effort
from kit.line_killer import killed_at, run
from kit.survival import survived

POINTS = effort.points(2, 300)
OURS = (
    "/prune.py",
    "/archive.py",
    "/vault_compaction.py",
    "/vault.py",
    "/database.py",
    "/durable.py",
    "/context.py",
)


class Aged(Past):
    """A past that is over every budget; `reset` brings it back to that."""

    def __init__(self, monkeypatch) -> None:
        super().__init__(monkeypatch, 2)
        self.age(400)
        self.kept = f"{self.world.folder}.kept"
        deadline.run(["cp", "-a", self.world.folder, self.kept], check=True)

    def reset(self) -> None:
        shutil.rmtree(self.world.folder)
        deadline.run(["cp", "-a", self.kept, self.world.folder], check=True)
        slots = self.context.slots
        note = f"{slots.folder}/standby.json"
        if os.path.exists(note) and os.path.exists(slots.standby):
            with open(note) as file:
                text = file.read()
            old = text.split('"inode": ')[1].split(",")[0].rstrip("}")
            with open(note, "w") as file:
                file.write(text.replace(old, str(os.stat(slots.standby).st_ino)))

    def act(self) -> None:
        context = self.context
        with context.ledger() as ledger, prune.alone(context):
            prune.refuse_in_the_way(context, ledger)
            plan = prune.make_plan(context, ledger, 4e9)
            prune.carry_out(context, ledger, plan, lambda _: None)

    def check(self) -> None:
        self.check_vault()
        self.check_snapshots()
        self.check_trees()

    def check_done(self) -> None:
        self.check()
        (_, newest) = self.trees
        assert self.quarantined() == {newest}
        data = self.world.paths.data_dir
        left = [n for n in os.listdir(data) if "fresh" in n or "pruned" in n]
        left += [n for n in os.listdir(self.context.paths.snapshots_dir) if n.startswith(".")]
        assert not left and not os.path.exists(f"{self.context.slots.folder}/pruned")
        assert [n for n in os.listdir(self.context.vault.path) if "crash" in n] == []
        assert "refs/agentctl/g/2" not in self.context.vault.refs("refs/agentctl/g/")

    def end(self) -> None:
        super().end()
        shutil.rmtree(self.kept)


@pytest.fixture
def aged(monkeypatch):
    made = Aged(monkeypatch)
    yield made
    made.end()


@pytest.mark.every_night
def test_killed_at_any_line_it_is_simply_done_again(aged):
    lines = run(aged.act, 0, is_ours).lines
    aged.check_done()
    tried = 0
    for line in effort.some_lines(lines, POINTS, "prune"):
        aged.reset()
        if not killed_at(line, aged.act, is_ours):
            break
        aged.check()
        run(aged.act, None)
        aged.check_done()
        tried += 1
    assert tried >= POINTS // 2
    survived("SIGKILL at a line", "agentctl prune", tried)


def is_ours(path: str) -> bool:
    return path.endswith(OURS) and "agentctl" in path
