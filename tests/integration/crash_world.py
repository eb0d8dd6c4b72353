"""A world at one moment, brought back there again and again, and what must hold in it at every instant.

Everything is asked from outside: file by file, git's own fsck, a copy of the ledger read by SQLite. What a killed run
had acknowledged is replayed: its SQL statements, as far as they had been carried out, must give the ledger on disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from agentctl.core.errors import LaunchRefused
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import incidents, models
from agentctl.ledger.database import Ledger
from agentctl.ledger.models import Launch
from agentctl.recovery import process
from agentctl.runner import launch
from agentctl.state.snapshots import snapshot
from integration.world import World, git, write
from kit import deadline, launches, rows
from kit.acknowledged import Replay
from kit.line_killer import Run, fast_folder
from kit.manifest import describe, manifest, missing

OUTCOMES = ("", "recovered", "halted", "nothing-to-do")
MOVED_BY_US = ("HEAD", "refs/heads/main", "refs/heads/rescue", "logs")  # of `.git`: what they held is checked apart
BAD = {"dirty.py": "not committed\n", "notes.cache": "ignored\n", "sub/deep/x": "untracked\n"}
INODE = re.compile(r'"inode": ?(\d+)')


class CrashWorld:
    """One kind of world to crash in: `stage` makes it, `act` and `recover` run in a child that may be killed."""

    settings: dict = {"probation": {"tries": 9}, "rollback": {"restarts": 9, "attempts": 50, "per_day": 90}}

    def __init__(self) -> None:
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setenv("AGENTCTL_RUNTIME", "direct")
        self.world = World(monkeypatch, self.settings, parent=fast_folder()).adopt()
        self.name, self.paths, self.code = self.world.name, self.world.paths, self.world.code
        self.context = self.world.context
        self.slots, self.vault = self.context.slots, self.context.vault.path
        write(self.code, {".venv/version": "old"})
        write(self.world.state, {"history.jsonl": '{"id": "1", "content": "hello"}\n'})
        self.stage()
        self.tree = manifest(self.code, without=(".git",))
        self.repository = manifest(self.code / ".git")
        self.ignored = self._list_ignored()
        self.snapshots = manifest(self.paths.snapshots_dir)
        self.history = set(self._history_lines())
        self.kept = f"{self.world.folder}.kept"
        os.rename(self.world.folder, self.kept)
        self.scratch = tempfile.mkdtemp(prefix="scratch", dir=self.kept)
        self.replay = Replay(self.paths.ledger_path, self.scratch)
        self._trees: dict[tuple, str] = {}
        self._sound: set[tuple] = set()

    # -- what a family says -----------------------------------------------------------------------------------

    def stage(self) -> None:
        """Bring the world to the moment before."""

    def act(self) -> None:
        raise NotImplementedError

    def recover(self) -> None:
        self.act()

    def check(self, rows: dict[str, list[dict]], is_over: bool) -> None:
        """What more must hold, at the kill and (`is_over`) after the recovery; `rows` is the ledger."""

    # -- again and again --------------------------------------------------------------------------------------

    def reset(self) -> None:
        shutil.rmtree(self.world.folder, ignore_errors=True)
        inodes = copy_tree(self.kept, str(self.world.folder), leave_out=self.scratch)
        self._tell_inodes(inodes)
        self.replay.start()

    def end(self) -> None:
        self.world.end()
        shutil.rmtree(self.kept)

    def at_the_kill(self, run: Run) -> None:
        """I1-I6 at this instant; and then the log is spoilt, for nobody may need it (I8)."""
        self._check(run, is_over=False)
        write(self.paths.data_dir, {"agent.log": "agentctl: incident 1: recovered\n\0 nonsense"})

    def afterwards(self, run: Run) -> None:
        self._check(run, is_over=True)

    def _check(self, run: Run, is_over: bool) -> None:
        rows = self.replay.check(run.sql)
        self.check_vault([models.Generation.of(row) for row in rows["generations"]])
        self.check_nothing_missing()
        self.check_snapshots()
        self.check_standby(rows["generations"])
        self.check_attempts(rows)
        self.check(rows, is_over)

    # -- the ledger -------------------------------------------------------------------------------------------

    def check_attempts(self, rows: dict[str, list[dict]]) -> None:
        """I5, I6: one attempt at most, one outcome; while an intent is open, nothing is launched."""
        opened = [a for a in rows["attempts"] if a["is_open"]]
        assert len(opened) <= 1, f"I5: {opened}"
        assert all(i["outcome"] in OUTCOMES for i in rows["incidents"]), "I5"
        assert len([i for i in rows["incidents"] if not i["outcome"]]) <= 1, f"I5: {rows['incidents']}"
        for intent in opened:
            assert not [n for n in rows["launches"] if n["started_at"] > intent["at"]], "I6"
            with Ledger(self.replay.copy) as ledger, pytest.raises(LaunchRefused):
                launch.begin(self.context, ledger)

    # -- files ------------------------------------------------------------------------------------------------

    def check_vault(self, generations: list[models.Generation]) -> None:
        """I2: every generation the ledger names is whole in the vault, which borrows no object."""
        refs = refs_of(self.vault, "refs/agentctl")
        for generation in generations:
            names = [f"g/{generation.number}"] + [f"good/{generation.number}"] * (generation.status == "good")
            assert all(refs.get(name) == generation.vault_commit for name in names), f"I2: {names} of {refs}"
        seen = (*sorted(manifest(self.vault).items()), *(g.vault_commit for g in generations))
        if seen not in self._sound:  # to the byte the same is as sound as it was
            ask(
                "git",
                "--git-dir",
                self.vault,
                "fsck",
                "--strict",
                "--no-dangling",
                "--no-progress",
                *(g.vault_commit for g in generations),
            )
            self._sound.add(seen)
        assert not os.path.exists(f"{self.vault}/objects/info/alternates"), "I2"

    def check_nothing_missing(self) -> None:
        """I3: the tree of before is in `live` and in what was replaced, and so is its repository."""
        places = self.trees()
        lost = missing(self.tree, *(manifest(p, without=(".git",)) for p in places))
        assert not lost, f"I3: {lost}"
        repositories = [manifest(f"{p}/.git") for p in places] + [
            manifest(p) for p in Path(self.slots.folder).glob("quarantine/*/git-broken*")
        ]
        lost = missing(self.repository, *repositories)
        aside = {(p.name, describe(p)) for p in Path(self.slots.folder).glob("quarantine/*/git-state/*")}
        lost = {
            path: what
            for path, what in lost.items()
            if not path.startswith(MOVED_BY_US) and (path.replace("/", "%"), what) not in aside
        }
        assert not lost, f"I3: .git: {lost}"
        assert self.history <= set(self._history_lines()), "I4: history"

    def trees(self) -> list[Path]:
        """Where a tree of the agent can be at any instant."""
        quarantine = Path(self.slots.folder).glob("quarantine/*/tree")
        return [p for p in (self.code, Path(self.slots.standby), *quarantine) if p.is_dir()]

    def check_live(self, target: dict[str, tuple]) -> str:
        """I1: live is all of the old version, or all of the target and what git ignores; tell which."""
        live = manifest(self.code, without=(".git",))
        if live == self.tree:
            return "old"
        lost = missing(target, live)
        foreign = {path for path in live if path not in target} - self.ignored
        assert not lost and not foreign, f"I1: neither old nor target: lacks {lost}, has {foreign}"
        return "target"

    def check_untouched(self) -> None:
        """I3: not a byte of the agent's has changed."""
        assert manifest(self.code, without=(".git",)) == self.tree
        assert manifest(self.code / ".git") == self.repository

    def check_standby(self, generations: list[dict]) -> None:
        """I1: a standby that counts is that generation's tree, whole."""
        note = json.loads(read(f"{self.slots.folder}/standby.json") or b"{}")
        if not note or not os.path.isdir(self.slots.standby) or os.stat(self.slots.standby).st_ino != note["inode"]:
            return
        wanted = next(g["tree"] for g in generations if g["number"] == note["generation"])
        assert self.tree_of(self.slots.standby) == wanted, "I1: the standby is not what its note says"

    def check_snapshots(self) -> None:
        """I4: snapshots of before are as they were, and one with a final name is whole."""
        root = self.paths.snapshots_dir
        assert not missing(self.snapshots, manifest(root)), "I4: snapshots"
        for number in os.listdir(root):
            assert number.startswith(".") or snapshot.verify(root, number) == [], f"I4: snapshot {number}"

    def tree_of(self, folder) -> str:
        """Return the id that git gives the files of a folder, those it ignores left out."""
        known = tuple(sorted(manifest(folder, without=(".git",)).items()))
        if known not in self._trees:
            self._trees[known] = self._ask_tree_of(folder)
        return self._trees[known]

    def _ask_tree_of(self, folder) -> str:
        index = f"{self.scratch}/index"
        if os.path.exists(index):
            os.unlink(index)
        env = {"GIT_INDEX_FILE": index, "GIT_DIR": self._scratch_repository(), "GIT_WORK_TREE": str(folder)}
        ask("git", "-C", str(folder), "add", "-A", ".", **env)
        return ask("git", "write-tree", **env)

    def _scratch_repository(self) -> str:
        path = f"{self.scratch}/git"
        if not os.path.exists(path):
            ask("git", "init", "-q", "--bare", "--template=", path)
        return path

    def _list_ignored(self) -> set[str]:
        listed = git(self.code, "ls-files", "-z", "--others", "--ignored", "--exclude-standard").split("\0")
        return {part for name in listed if name for part in (name, *map(str, Path(name).parents))}

    def _history_lines(self) -> list[bytes]:
        return [line for line in (read(self.context.history_path) or b"").split(b"\n") if line.endswith(b"}")]

    def _tell_inodes(self, inodes: dict[int, int]) -> None:
        """A copy has other inodes: put them where the old ones were noted."""

        def told(match: re.Match) -> str:
            return f'"inode": {inodes.get(int(match[1]), match[1])}'

        for note in Path(self.slots.folder).glob("standby*.json"):
            note.write_text(INODE.sub(told, note.read_text()))
        db = sqlite3.connect(self.paths.ledger_path, isolation_level=None)
        for table, column in (("meta", "value"), ("steps", "detail")):
            found = db.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%inode%'")
            for rowid, text in found.fetchall():
                db.execute(f"UPDATE {table} SET {column}=? WHERE rowid=?", (INODE.sub(told, text), rowid))
        db.close()

    # -- what happens to the agent ----------------------------------------------------------------------------

    def begin(self) -> Launch:
        """Launch on paper, as the runner does before anything starts."""
        with Ledger(self.paths.ledger_path) as ledger:
            return launch.begin(AgentContext.open(self.name), ledger)

    def fail(self) -> None:
        """A launch that fails at once."""
        begun = self.begin()
        with Ledger(self.paths.ledger_path) as ledger:
            launches.fail(ledger, begun.id)

    def recovered(self) -> None:
        """The launch after a rollback, which beats: the incident ends as recovered, once."""
        begun = self.begin()
        with Ledger(self.paths.ledger_path) as ledger:
            incidents.recover(ledger, begun, launches.see_well(ledger, begun.id))
            ended = rows.select(ledger, "SELECT kind FROM events WHERE kind='recovered'")
            assert len(ended) == 1 and ledger.open_incident() is None, "I5"


def one_shot(name: str) -> None:
    """Run the rollback routine; it must end with a relaunch."""
    status = process.main(name)
    assert status == 0, f"the one-shot ended with {status}"


def read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def refs_of(repository: str, below: str) -> dict[str, str]:
    """Read a repository's refs without git: name below `below` -> object."""
    found = {}
    for line in (read(f"{repository}/packed-refs") or b"").decode().splitlines():
        oid, _, name = line.partition(" ")
        if name.startswith(f"{below}/"):
            found[name[len(below) + 1 :]] = oid
    for path in Path(repository, below).rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            found[str(path.relative_to(f"{repository}/{below}"))] = path.read_text().strip()
    return found


def ask(*argv: str, **env: str) -> str:
    """Run a program that must succeed; return what it says."""
    settings = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **env}
    done = deadline.run(argv, env=settings, capture_output=True)
    assert done.returncode == 0, (argv, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode().strip()


def copy_tree(source: str, target: str, leave_out: str = "") -> dict[int, int]:
    """Copy a folder with modes and times; return which inode became which, for the folders."""
    inodes = {}
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            path, facts = f"{target}/{entry.name}", entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), path)
            elif entry.is_dir():
                if entry.path != leave_out:
                    inodes |= copy_tree(entry.path, path, leave_out)
            else:
                shutil.copyfile(entry.path, path)
                os.chmod(path, facts.st_mode & 0o7777)
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    facts = os.stat(source)
    os.chmod(target, facts.st_mode & 0o7777)
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    inodes[facts.st_ino] = os.stat(target).st_ino
    return inodes
