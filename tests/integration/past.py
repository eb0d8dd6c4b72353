"""An agent with a past: rollbacks with quarantined trees of every kind of content, and what pruning must not lose."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time

from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import incidents
from agentctl.ledger.database import Ledger
from agentctl.recovery import process, requests
from agentctl.retention.archive import bring_back
from agentctl.runner import launch
from agentctl.state.snapshots import snapshot
from integration.world import World, git, write
from kit import deadline, launches
from kit.line_killer import fast_folder
from kit.manifest import manifest

DAY = 86400.0
CLI = "import sys; from agentctl.cli.main import main; sys.exit(main())"


class Past:
    """A world whose candidates failed `failures` times; `age(days)` makes all of it old."""

    def __init__(self, monkeypatch, failures: int = 3, retention: dict | None = None) -> None:
        monkeypatch.setenv("AGENTCTL_RUNTIME", "direct")
        self.world = World(
            monkeypatch,
            {"probation": {"tries": 1}, "retention": {"newest": 1, **(retention or {})}},
            parent=fast_folder(),
        )
        self.world.adopt()
        self.trees: dict[str, dict] = {}
        for number in range(failures):
            self.fail(number)

    @property
    def context(self) -> AgentContext:
        return AgentContext.open(self.world.name)

    def fail(self, number: int) -> str:
        """Launch a bad candidate, let it fail, roll back, relaunch; return the incident's id."""
        world = self.world
        world.mode(f"bad {number}", f"bad {number}")
        write(world.code, {"dirty.py": f"dirty {number}\n", "big.bin": os.urandom(20000), ".venv/lib": b"v" * 5000})
        fill(world.code, number)
        before = manifest(world.code, without=(".git",))
        with world.ledger() as ledger:
            begun = launch.begin(self.context, ledger)
            folder = self.context.launch_dir(begun.id)
            write(folder, {"pane.txt": "it broke\n", "evidence.json": "{}"})
            launches.fail(ledger, begun.id)
        write(world.state, {"config/plan.json": f"plan of bad {number}"})
        assert world.rollback_once() == process.EXIT_RELAUNCH, world.log
        incident = world.incidents()[-1]["id"]
        self.trees[incident] = before
        self.relaunch()
        # A condemned tree whose ignored file is in the way of the next: it stays in quarantine alone.
        write(
            world.quarantine({"id": incident}) / "tree", {"only.cache": f"last copy {number}", ".venv/lib": b"v" * 5000}
        )
        self.trees[incident]["only.cache"] = manifest(world.quarantine({"id": incident}) / "tree")["only.cache"]
        return incident

    def relaunch(self) -> None:
        """What a relaunched agent's first heartbeat does to the records."""
        with self.world.ledger() as ledger:
            begun = launch.begin(self.context, ledger)
            incidents.recover(ledger, begun, launches.see_well(ledger, begun.id))
            launches.stop(ledger, begun.id)

    def age(self, days: float) -> Past:
        """Make every kept thing that much older."""
        context, old = self.context, time.time() - days * DAY
        folders = [
            f"{context.slots.folder}/quarantine",
            context.paths.snapshots_dir,
            context.paths.incidents_dir,
            f"{context.paths.incidents_dir}/launches",
        ]
        for folder in filter(os.path.isdir, folders):
            by_age = sorted(os.listdir(folder), key=lambda name: os.stat(f"{folder}/{name}").st_mtime_ns)
            for rank, name in enumerate(by_age):
                os.utime(f"{folder}/{name}", (old + rank, old + rank))
        with self.world.ledger() as ledger:
            # By hand: a writer says when a generation is made, and none that it was made long ago.
            ledger.db.execute("UPDATE generations SET created_at = ? + number", (old,))
        return self

    def status(self) -> dict:
        return json.loads(self.cli("status", "--json", expect=3).stdout)

    def prune(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess:
        return self.cli("prune", *words, expect=expect)

    def cli(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess:
        done = deadline.run(
            [sys.executable, "-c", CLI, "--name", self.world.name, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == expect, (done.stdout[-2000:], done.stderr[-4000:])
        return done

    # -- what must hold, whatever was pruned ------------------------------------------------------------------

    def quarantined(self) -> set[str]:
        return set(os.listdir(f"{self.context.slots.folder}/quarantine"))

    def check_vault(self) -> None:
        """I2: what there is to go back to is whole."""
        context = self.context
        with self.world.ledger() as ledger:
            rows = ledger.generations()
            must = [g.vault_commit for g in rows if g.vault_commit]
            assert ledger.last_known_good().vault_commit in must
        assert context.vault.check(must) == ""
        for commit in must:
            assert context.vault.git.run("rev-list", "--objects", "--quiet", commit).status == 0

    def check_snapshots(self) -> None:
        context = self.context
        ids = snapshot.list_ids(context.paths.snapshots_dir)
        assert ids
        for id in ids:
            assert snapshot.verify(context.paths.snapshots_dir, id) == []
        with self.world.ledger() as ledger:
            assert all(g.snapshot in ids for g in ledger.generations() if g.snapshot and g.vault_commit)

    def check_trees(self) -> None:
        """I3: each tree of before is, whole, in quarantine and live or in an archive (but for what can be rebuilt)."""
        live = manifest(self.world.code, without=(".git",))
        refs = self.context.vault.refs("refs/agentctl/archive/quarantine/")
        for incident, before in self.trees.items():
            folder = self.world.quarantine({"id": incident}) / "tree"
            if folder.exists():
                after = manifest(folder)
            elif f"refs/agentctl/archive/quarantine/{incident}" not in refs:
                after = live  # undone
            else:
                target = self.world.folder / f"back-{incident}"
                bring_back(self.context.vault, f"refs/agentctl/archive/quarantine/{incident}", str(target))
                after = manifest(target / "tree")
                shutil.rmtree(target)
            lost = {
                path: what
                for path, what in before.items()
                if what not in (after.get(path), live.get(path))
                and what[0] not in ("socket", "folder")
                and not path.startswith(".venv")
                and "__pycache__" not in path
                and path != "sparse"
            }  # where its holes are is for the file system to say
            assert not lost, (incident, lost)

    def end(self) -> None:
        self.world.end()


def fill(code, number: int) -> None:
    """Everything odd that a tree can hold."""
    write(code, {"__pycache__/x.pyc": "byte code", "new\nline": "n", "sub/.gitkeep": ""})
    write(code, {"nested/.git/config": "[core]\n", "nested/file": f"in a nested repository {number}"})
    with open(os.fsencode(code) + b"/bad\xff\xfename", "wb") as file:
        file.write(b"no unicode")
    if not os.path.lexists(code / "pipe"):
        os.mkfifo(code / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(code)
        if not os.path.lexists("talk"):
            listener.bind("talk")
        os.chdir(here)
    os.path.lexists(code / "link") or os.symlink("no/where", code / "link")
    with open(code / "sparse", "wb") as file:
        file.truncate(32 << 20)


__all__ = ["DAY", "Ledger", "Past", "git", "requests"]
