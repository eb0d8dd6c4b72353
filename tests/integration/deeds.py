"""Things done to a world that can be broken off and done again: a rollback, a launch, a blessing, a snapshot.

Each knows how the world was before, what must hold at any instant, and what must hold when it is done.
"""

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

from agentctl.core.errors import EXIT_REFUSED
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger.database import Ledger
from agentctl.runner import launch
from agentctl.state import agent_state
from agentctl.state.snapshots import manifest as snapshot_manifest
from agentctl.state.snapshots import snapshot
from integration.world import SOURCE, World, git, write
from kit import deadline, launches
from kit.manifest import manifest, missing
from kit.syscall_injection import Fault, Ran, run

ENTRY = f"{SOURCE}/agentctl/entry.py"
PLAIN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from agentctl.runner import launch; from agentctl.state import agent_state as state
from agentctl.core.errors import in_words
from agentctl.generations.agent_context import AgentContext
context = AgentContext.open(sys.argv[2], lenient=True)
try:
    with context.ledger() as ledger:
        %s
except Exception as error:
    print(in_words(error), flush=True)
    os._exit(getattr(error, "exit_code", 1))
"""
HISTORY = '{"id": "1", "content": "hello"}\n'


class Deed:
    """Something done to a world that can be brought back to the moment before."""

    argv: list[str]

    def __init__(self, monkeypatch) -> None:
        self.world = World(monkeypatch, {"probation": {"tries": 1, "duration": "0s"}}).adopt()
        self.world.settings = {}
        write(self.world.code, {".venv/version": "old"})
        write(self.world.state, {"history.jsonl": HISTORY, "config/more.db": "x" * 5000, "memory/a": "A"})
        self.prepare()
        self.before = manifest(self.world.code, without=(".git",))
        self.state_before = manifest(self.world.state)
        self.snapshots_before = snapshot.list_ids(self.world.paths.snapshots_dir)
        self.kept = f"{self.world.folder}.kept"
        deadline.run(["cp", "-a", self.world.folder, self.kept], check=True)

    def reset(self) -> None:
        """Bring the world back; a copied standby has another inode than its note says."""
        shutil.rmtree(self.world.folder)
        deadline.run(["cp", "-a", self.kept, self.world.folder], check=True)
        slots = self.world.context.slots
        note = Path(slots.folder, "standby.json")
        note.write_text(json.dumps({**json.loads(note.read_text()), "inode": os.stat(slots.standby).st_ino}))

    def do(self, fault: Fault | None = None) -> Ran:
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "AGENTCTL_RUNTIME": "direct", **self.world.environment}
        ran = run([sys.executable, "-I", "-S", *self.argv], env, below=self.world.folder, fault=fault)
        self.said = ran.said
        return ran

    # -- to be said by each ---------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring the world to the moment before."""

    def check_at_the_fault(self) -> None:
        """I1, I2, I4, with whatever a kill left."""
        self.check_live()
        self.check_good_is_whole()
        self.check_snapshots()
        ledger = sqlite3.connect(self.world.paths.ledger_path)
        assert ledger.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        ledger.close()

    def is_answered_by(self, again: Ran) -> bool:
        """Tell whether an end other than success is the right one."""
        return False

    def check_live(self) -> None:
        assert not missing(self.before, manifest(self.world.code, without=(".git",)))

    def check_after(self) -> None:
        """That it was done, once and whole."""
        self.check_at_the_fault()
        assert git(self.world.code, "fsck", "--strict") == ""

    # -- parts ----------------------------------------------------------------------------------------------

    def check_good_is_whole(self) -> None:
        vault = self.world.context.vault
        good = vault.refs("refs/agentctl/good/")
        assert good and vault.check(list(good.values())) == ""

    def check_snapshots(self) -> None:
        root = self.world.paths.snapshots_dir
        ids = snapshot.list_ids(root)
        assert set(self.snapshots_before) <= set(ids)
        assert [problem for i in ids for problem in snapshot.verify(root, i)] == []

    def fail(self) -> None:
        """Have the last generation's launch end badly."""
        with Ledger(self.world.paths.ledger_path) as ledger:
            begun = launch.begin(AgentContext.open(self.world.name), ledger)
            launches.fail(ledger, begun.id)


class Rollback(Deed):
    """The one-shot, its candidate having failed for good, with work that is committed, dirty, untracked, ignored."""

    def prepare(self) -> None:
        self.argv = [ENTRY, "rollback", self.world.name]
        self.world.mode("crash", "a bad change")
        write(self.world.code, {"dirty.py": "not committed\n", "notes.cache": "ignored\n", "sub/deep/x": "untracked\n"})
        self.fail()
        write(self.world.state, {"config/plan.json": "what the bad version wrote"})

    def check_live(self) -> None:
        code = self.world.code
        behaviour = (code / "behaviour.py").read_text()
        assert behaviour in ("MODE = 'crash'\n", "MODE = 'healthy'\n")
        assert (code / "dirty.py").exists() == ("crash" in behaviour)
        assert (code / "agent.py").exists()

    def check_after(self) -> None:
        super().check_after()
        world = self.world
        assert git(world.code, "rev-parse", "HEAD", "main").split() == [world.first] * 2
        assert git(world.code, "status", "--porcelain") == ""
        assert (world.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
        (incident,) = world.incidents()
        moves = world.all("SELECT * FROM attempts WHERE rung<>'restart'")
        assert [(m["rung"], m["target"], m["is_open"]) for m in moves] == [("last known good", 1, 0)]
        old = manifest(world.quarantine(incident) / "tree")
        assert not missing(self.before, old, manifest(world.code, without=(".git",)))
        assert (world.state / "config/plan.json").read_text() == "the good plan"
        assert (world.state / "history.jsonl").read_text() == HISTORY
        assert "exit status 1" in (world.state / "BRIEF.md").read_text()
        branch = json.loads(world.one("SELECT detail FROM steps WHERE name='repository'")["detail"])["rescue_branch"]
        assert "a bad change" in git(world.code, "log", "--format=%s", branch).split("\n")[:2]


class Begin(Deed):
    """Everything before a start: capture, generation, snapshot, one try spent."""

    def prepare(self) -> None:
        self.argv = ["-c", PLAIN % "launch.begin(context, ledger)", SOURCE, self.world.name]
        self.world.mode("better", "a change")
        write(self.world.code, {"dirty.py": "not committed\n", "sub/deep/x": "untracked\n"})

    def is_answered_by(self, again: Ran) -> bool:
        return again.status == EXIT_REFUSED and "cut off" in again.said  # the launch was on record already

    def check_after(self) -> None:
        super().check_after()
        world = self.world
        (row,) = world.all("SELECT * FROM launches")
        generation = world.one("SELECT * FROM generations WHERE number=?", row["generation"])
        assert (generation["number"], generation["status"], generation["tries_left"]) == (2, "candidate", 0)
        is_left_out = not row["snapshot"] and "launching without a snapshot: " in self.said  # and said so
        assert is_left_out or snapshot.verify(world.paths.snapshots_dir, row["snapshot"]) == []
        vault = world.context.vault
        assert vault.check([generation["vault_commit"]]) == ""
        listed = vault.git.run("ls-tree", "-r", "--name-only", generation["vault_commit"]).text.split()
        tracked = {n for n in self.before if not n.startswith((".venv", "__")) and self.before[n][0] == "file"}
        assert set(listed) == tracked
        assert manifest(world.state) == self.state_before


class Bless(Deed):
    """The end of a trial: checks, fsck, snapshot, the good ref, the ledger's line, a new standby."""

    def prepare(self) -> None:
        self.world.mode("better", "a change")
        with Ledger(self.world.paths.ledger_path) as ledger:
            begun = launch.begin(AgentContext.open(self.world.name), ledger)
        self.argv = [ENTRY, "job", self.world.name, "bless", "2", begun.id]

    def check_after(self) -> None:
        super().check_after()
        world = self.world
        row = world.one("SELECT * FROM generations WHERE number=2")
        assert row["status"] == "good" and snapshot.verify(world.paths.snapshots_dir, row["snapshot"]) == []
        slots = world.context.slots
        assert slots.standby_note()["generation"] == 2
        laid = manifest(slots.standby)
        assert not missing({n: w for n, w in self.before.items() if not n.startswith("__pycache__")}, laid)


class Snapshot(Deed):
    """A snapshot of the state, the second one: most of it is linked."""

    def prepare(self) -> None:
        self.argv = ["-c", PLAIN % "print('took', state.take_snapshot(context))", SOURCE, self.world.name]
        database = sqlite3.connect(self.world.state / "agent.db")
        database.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);")
        database.close()
        write(self.world.state, {f"many/{n}": str(n) for n in range(40)})
        agent_state.take_snapshot(self.world.context)
        write(self.world.state, {"many/3": "changed", "new": "new"})

    def check_after(self) -> None:
        super().check_after()
        newest = snapshot.list_ids(self.world.paths.snapshots_dir)[-1]
        assert newest not in self.snapshots_before
        skipped = dict(line.split(": ", 1) for line in self.manifest_of(newest).about["skipped"])
        left_out = {name for name, why in skipped.items() if why == "Input/output error"}  # nobody could have read it
        for name in {"many/3", "new", "history.jsonl", "memory/a"} - left_out:
            copy = snapshot.read_file(self.world.paths.snapshots_dir, newest, name)
            assert copy == (self.world.state / name).read_bytes()

    def manifest_of(self, id: str):
        """What a snapshot says of itself, also of what it could not read."""
        return snapshot_manifest.load(f"{self.world.paths.snapshots_dir}/{id}")
