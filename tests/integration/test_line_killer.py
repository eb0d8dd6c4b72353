"""Every story that writes, killed with SIGKILL at the Nth line it executes, then run again: nothing lost, nothing half.

N spreads over the whole run (AGENTCTL_NIGHTLY=1 takes every line, and more pairs, where the recovery is killed too).
"""

import json
import os
import time
from pathlib import Path

import pytest

from agentctl import jobs, launch, rebuild, requests, rollback, runner
from agentctl.ledger import Ledger
from agentctl.station import Lock, Station, find_places
from integration.crash_world import CrashWorld, ask, rows_of
from integration.world import git, write
from kit.exploration import explore
from kit.manifest import manifest
from kit.survival import survived

IS_NIGHTLY = bool(os.environ.get("AGENTCTL_NIGHTLY"))
BAD = {"dirty.py": "not committed\n", "notes.cache": "ignored\n", "sub/deep/x": "untracked\n"}


def one_shot(name: str) -> None:
    """Run the rollback routine; it must end with a relaunch."""
    status = rollback.main(name)
    assert status == 0, f"the one-shot ended with {status}"


def launch_as_the_runner(name: str) -> None:
    """What the runner does before the agent starts."""
    station = Station.open(name, lenient=True)
    runner.mark(station.places)
    with Lock(station.places.agent_lock_path, "agent").take(), rebuild.open_or_rebuild(station, print) as ledger:
        runner._begin(station, ledger)
    runner.unmark(station.places)


def launch_as_systemd(name: str) -> None:
    """The one-shot and the runner in turn, until a launch begins."""
    for _ in range(4):
        one_shot(name)
        try:
            return launch_as_the_runner(name)
        except launch.LaunchRefused as refused:
            runner.unmark(find_places(name))
            print(refused)
    raise AssertionError("no launch in four turns")


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
        with Ledger(self.places.ledger_path) as ledger:
            requests.submit(ledger, "rollback", "1", "a test")
        os.unlink(f"{self.slots.folder}/standby.json")

    def check_done(self, moves):
        assert [(m["rung"], m["target"], m["is_open"]) for m in moves] == [("by hand", 1, 0)]
        assert "a test" in (self.world.state / "BRIEF.md").read_text()
        self.recovered()


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
        with Ledger(self.places.ledger_path) as ledger:
            last = ledger.last_launch()
            ledger.update("launches", {"id": last["id"]}, end="stopped", ended_at=time.time())
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
            assert begun.generation["number"] == 2


class Launch(CrashWorld):
    """The launch of a tree that no generation knows: guard, capture, snapshot, one try spent."""

    def stage(self):
        self.begin()
        with Ledger(self.places.ledger_path) as ledger:
            last = ledger.last_launch()
            ledger.update("launches", {"id": last["id"]}, end="stopped", ended_at=time.time())
        self.world.mode("healthy-2", "a change")
        write(self.code, BAD)
        write(self.world.state, {"config/plan.json": "a new plan", "more": "more"})

    def reset(self):
        super().reset()
        os.makedirs(self.places.runtime_dir, exist_ok=True)
        runner.mark(self.places)  # the first thing that a runner does

    def act(self):
        launch_as_the_runner(self.name)

    def recover(self):
        os.environ["MONITOR_UNIT"] = f"{self.name}.service"
        launch_as_systemd(self.name)

    def check(self, rows, is_over):
        self.check_untouched()
        fresh = [g for g in rows["generations"] if g["number"] > 1]
        of_fresh = [n for n in rows["launches"] if n["generation"] == 2 and n["end"] not in ("refused",)]
        assert [g["number"] for g in fresh] in ([], [2]), "captured twice"
        for generation in fresh:
            assert generation["tree"] == self.wanted_tree()
            assert generation["tries_left"] == 9 - len([n for n in of_fresh if n["trigger"] != "cannot-launch"])
        assert len([n for n in rows["launches"] if not n["end"]]) <= 1
        if is_over:
            assert len(fresh) == 1 and rows["launches"] and of_fresh[-1]["snapshot"]
            assert [n["generation"] for n in rows["launches"] if not n["end"]] == [2]
            left = f"{self.places.snapshots_dir}/{rows['generations'][0]['snapshot']}/tree/config/plan.json"
            assert Path(left).read_text() == "a new plan", "the good one does not own the state that it left behind"

    def wanted_tree(self) -> str:
        if not hasattr(self, "_wanted"):
            self._wanted = self.tree_of(self.code)
        return self._wanted


class LaunchAfterReboot(Launch):
    """The machine went down in mid-write: the history is torn, the task is gone, both are mended before the launch."""

    def stage(self):
        super().stage()
        write(self.world.state, {"history.jsonl": "".join(
            f'{{"id": "{n}", "role": "user", "content": "message {n}"}}\n' for n in range(1, 9)),
            "current_task.md": "# Current Task\ngo on\n\n## Pending Actions\n- [ ] more\n"})  # fmt: skip
        with Ledger(self.places.ledger_path) as ledger:
            launch.take_snapshot(self.station)
            last = ledger.last_launch()
            ledger.update("launches", {"id": last["id"]}, end="", ended_at=None, boot_id="another boot")
        write(self.world.state, {"history.jsonl": '{"id": "1", "role": "user", "content": "message 1"}\n'
                                 '{"id": "9", "role": "user", "content": "message 9"}\n{"id": "10", "ro'})  # fmt: skip
        (self.world.state / "current_task.md").unlink()

    def check(self, rows, is_over):
        super().check(rows, is_over)
        if is_over:
            ids = [json.loads(line)["id"] for line in self._history_lines()]
            assert sorted(ids, key=int) == [str(n) for n in range(1, 10)]
            assert "go on" in (self.world.state / "current_task.md").read_text()
            kept = [p for p in Path(self.places.incidents_dir).rglob("history.jsonl.damaged*")]
            assert any(b'{"id": "10", "ro' in p.read_bytes() for p in kept)


class Capture(CrashWorld):
    """The capture alone: what the tree is, hashed beside the agent's repository."""

    def stage(self):
        self.world.mode("healthy-2", "a change")
        write(self.code, {**BAD, **{f"many/{n}": str(n) for n in range(20)}})

    def act(self):
        station = Station.open(self.name)
        commit, tree, branch = station.repository.look()
        capture = station.staging.capture(station.repository.git, commit, branch, commit_tree=tree)
        write(self.places.data_dir, {"captured": capture.tree})

    def check(self, rows, is_over):
        self.check_untouched()
        if is_over:
            assert Path(self.places.data_dir, "captured").read_text() == self.tree_of(self.code)


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


class BlessThenRollback(Bless):
    """The same, and what follows the kill is not the job again but a rollback to the generation before."""

    def recover(self):
        with Ledger(self.places.ledger_path) as ledger:
            if not ledger.all("SELECT * FROM requests"):
                requests.submit(ledger, "rollback", "1")
        one_shot(self.name)

    def stage(self):
        self.target = manifest(self.slots.standby)
        super().stage()

    def check(self, rows, is_over):
        self.check_live(self.target)
        if is_over:
            assert self.check_live(self.target) == "target"
            assert self.tree_of(self.code) == next(g["tree"] for g in rows["generations"] if g["number"] == 1)


class SaveWork(CrashWorld):
    """What was not committed goes onto the rescue branch, beside the running agent."""

    settings = {"probation": {"tries": 1}}

    def stage(self):
        self.world.mode("crash", "a bad change")
        write(self.code, BAD)
        self.fail()
        one_shot(self.name)
        self.begin()
        with Ledger(self.places.ledger_path) as ledger:
            self.incident = ledger.open_incident()["id"]
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


class Rebuild(CrashWorld):
    """The ledger is torn: it is kept aside and rebuilt from the vault."""

    damage = b"SQLite format 3\0" + b"\xff" * 5000

    def stage(self):
        self.world.mode("healthy-2", "a change")
        self.begin()
        with Ledger(self.places.ledger_path) as ledger:
            self.known = ledger.generations()

    def act(self):
        station = Station.open(self.name)
        with Lock(self.places.agent_lock_path, "agent").take():
            rebuild.open_or_rebuild(station, print).close()

    def reset(self):
        super().reset()
        os.unlink(self.places.ledger_path)
        if self.damage is not None:
            Path(self.places.ledger_path).write_bytes(self.damage)

    def _check(self, run, is_over):
        self.check_untouched()
        self.check_vault(self.known)
        self.check_snapshots()
        ledger = Path(self.places.ledger_path)
        content = ledger.read_bytes() if ledger.exists() else None
        broken = [p.read_bytes() for p in Path(self.places.data_dir).glob("ledger.db.broken-*")]
        assert self.damage in (None, content, *broken), "I4: the broken ledger is not kept"
        if content in (None, self.damage):
            assert not is_over
            return
        now = self._copy_of_ledger()
        rows = [tuple(g[k] for k in ("number", "status", "vault_commit", "tree")) for g in rows_of(now, "generations")]
        now.close()
        assert rows == [tuple(g[k] for k in ("number", "status", "vault_commit", "tree")) for g in self.known]


class RebuildMissing(Rebuild):
    """The ledger is gone: nothing to keep, the vault knows."""

    damage = None


FAMILIES = {  # what: (the family, points of a CI run, pairs of it)
    "rollback": (Rollback, 40, 8),
    "rollback by hand, without a standby": (RollbackByHand, 20, 4),
    "undo": (Undo, 24, 6),
    "launch of a new candidate": (Launch, 30, 6),
    "launch after a reboot, with mending": (LaunchAfterReboot, 20, 4),
    "capture": (Capture, 16, 2),
    "bless and standby": (Bless, 30, 6),
    "bless and standby, then a rollback": (BlessThenRollback, 24, 4),
    "save-work": (SaveWork, 20, 4),
    "rebuild of a torn ledger": (Rebuild, 20, 4),
    "rebuild of a missing ledger": (RebuildMissing, 10, 2),
}


@pytest.mark.parametrize("what", FAMILIES)
def test_killed_at_any_line_it_ends_the_same(what):
    family, points, pairs = FAMILIES[what]
    began = time.monotonic()
    found = explore(family, points=0 if IS_NIGHTLY else points, pairs=pairs * (25 if IS_NIGHTLY else 1))
    assert found.points >= points // 2
    survived("SIGKILL at a line", what, found.points - found.pairs)
    survived("SIGKILL at a line, and again in the recovery", what, found.pairs)
    print(f"line killer: {what}: {found.points - found.pairs} points and {found.pairs} pairs "
          f"of {found.lines} lines in {time.monotonic() - began:.0f}s")
