"""The jobs beside a running agent and the rebuild of the ledger, killed with SIGKILL at the Nth line they execute.

A gate dies after some of the calls to the outside: between two of them nothing changes on disk. The nights take
every line, and more pairs, where the recovery is killed too.
"""

import os
from pathlib import Path

import pytest

from agentctl.config.context import Lock
from agentctl.generations import rebuild_ledger
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger.database import Ledger
from agentctl.recovery import requests
from agentctl.runner import jobs
from integration.crash_world import BAD, CrashWorld, ask, one_shot
from integration.world import write
from kit import rows
from kit.acknowledged import rows_of
from kit.exploration import explore_and_record
from kit.manifest import manifest


class Bless(CrashWorld):
    """A trial that ends well: whole vault, snapshot, the line that makes it good, the standby of it."""

    def stage(self):
        self.world.mode("healthy-2", "a change")
        write(self.code, BAD)
        self.launch_id = self.begin().id

    def act(self):
        assert jobs.main(self.name, "bless", "2", self.launch_id) == 0

    def check(self, rows, is_over):
        self.check_untouched()
        good = {g["number"]: g for g in rows["generations"] if g["status"] == "good"}
        assert 1 in good, "I2: the last known good is gone"
        if 2 in good:
            assert good[2]["snapshot"] and good[2]["blessed_at"]
            ask("git", "--git-dir", self.vault, "rev-parse", "--verify", "refs/agentctl/good/2")
        if is_over:
            assert 2 in good and self.slots.standby_note()["generation"] == 2


class Standby(CrashWorld):
    """The standby of a generation that is good by now, and what follows the kill is not the job but a rollback."""

    def stage(self):
        self.world.mode("healthy-2", "a change")
        write(self.code, BAD)
        self.target = manifest(self.slots.standby)
        self.begin()
        with Ledger(self.paths.ledger_path) as ledger:
            jobs.make_good(self.context, ledger, 2, "a test")

    def act(self):
        assert jobs.main(self.name, "standby", "2") == 0

    def recover(self):
        with Ledger(self.paths.ledger_path) as ledger:
            if not rows.select(ledger, "SELECT * FROM requests"):
                requests.submit(ledger, "rollback", "1")
        one_shot(self.name)

    def check(self, rows, is_over):
        version = self.check_live(self.target)
        if is_over:
            assert version == "target"
            assert self.tree_of(self.code) == next(g["tree"] for g in rows["generations"] if g["number"] == 1)


class Rebuild(CrashWorld):
    """The ledger is torn: it is kept aside and rebuilt from the vault."""

    damage = b"SQLite format 3\0" + b"\xff" * 5000

    def stage(self):
        self.world.mode("healthy-2", "a change")
        self.begin()
        with Ledger(self.paths.ledger_path) as ledger:
            self.known = ledger.generations()

    def act(self):
        context = AgentContext.open(self.name)
        with Lock(self.paths.agent_lock_path, "agent").take():
            rebuild_ledger.open_or_rebuild(context, print).close()

    def reset(self):
        super().reset()
        os.unlink(self.paths.ledger_path)
        if self.damage is not None:
            Path(self.paths.ledger_path).write_bytes(self.damage)

    def _check(self, run, is_over):
        self.check_untouched()
        self.check_vault(self.known)
        self.check_snapshots()
        ledger = Path(self.paths.ledger_path)
        content = ledger.read_bytes() if ledger.exists() else None
        broken = [p.read_bytes() for p in Path(self.paths.data_dir).glob("ledger.db.broken-*")]
        assert self.damage in (None, content, *broken), "I4: the broken ledger is not kept"
        if content in (None, self.damage):
            assert not is_over
            return
        now = self.replay.read()
        rows = [tuple(g[k] for k in ("number", "status", "vault_commit", "tree")) for g in rows_of(now, "generations")]
        now.close()
        assert rows == [(g.number, g.status, g.vault_commit, g.tree) for g in self.known]


class RebuildMissing(Rebuild):
    """The ledger is gone: nothing to keep, the vault knows."""

    damage = None


FAMILIES = {  # what: (the family, points of a gate, pairs of it, every which line at night)
    "bless and standby": (Bless, 24, 2, 1),
    "standby, then a rollback": (Standby, 20, 2, 1),
    "rebuild of a torn ledger": (Rebuild, 12, 2, 1),
    "rebuild of a missing ledger": (RebuildMissing, 8, 1, 3),
}


@pytest.mark.every_night
@pytest.mark.parametrize("what", FAMILIES)
def test_killed_anywhere_it_ends_the_same(what):
    explore_and_record(what, *FAMILIES[what])
