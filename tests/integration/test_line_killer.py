"""The one-shot, killed with SIGKILL at the Nth line it executes, then run again: nothing lost, nothing half.

N spreads over the whole run (AGENTCTL_NIGHTLY=1 takes every line). At the kill the live tree is one complete
version; after the second run the rollback is done, once, and every byte of before is in live or quarantine.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from agentctl import launch, station
from agentctl.ledger import Ledger
from integration.world import SOURCE, World, git, manifest, write

POINTS = 48
KILLED_ROLLBACK = """
import os, signal, sys
left, name = int(sys.argv[1]), sys.argv[2]
from agentctl import rollback
home = os.path.dirname(rollback.__file__)
count = 0
def trace(frame, event, _):
    global count
    if not frame.f_code.co_filename.startswith(home):
        return None
    if event == "line":
        count += 1
        if count == left:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
status = rollback.main(name)
sys.settrace(None)
print(count, flush=True)
os._exit(status)
"""


class Condemned:
    """A world at the moment its candidate has failed for good; `reset` brings it back there."""

    def __init__(self, monkeypatch) -> None:
        self.world = World(monkeypatch, {"probation": {"tries": 1}}).adopt()
        write(self.world.code, {".venv/version": "old"})
        write(self.world.state, {"history.jsonl": '{"id": "1", "content": "hello"}\n'})
        self.world.mode("crash", "a bad change")
        write(self.world.code, {"dirty.py": "not committed\n", "notes.cache": "ignored\n", "sub/deep/x": "untracked\n"})
        self._fail()
        write(self.world.state, {"config/plan.json": "what the bad version wrote"})
        self.before = manifest(self.world.code, without=(".git",))
        self.kept = f"{self.world.folder}.kept"
        subprocess.run(["cp", "-a", self.world.folder, self.kept], check=True)

    def _fail(self) -> None:
        opened = station.Station.open(self.world.name)
        with Ledger(self.world.places.ledger_path) as ledger:
            begun = launch.begin(opened, ledger)
            ledger.update("launches", {"id": begun.id}, end="failed", trigger="crash", reason="exit status 1",
                          exit_status=1, ended_at=time.time())

    def reset(self) -> None:
        shutil.rmtree(self.world.folder)
        subprocess.run(["cp", "-a", self.kept, self.world.folder], check=True)
        note = self.world.station.slots.folder + "/standby.json"
        with open(note) as file:
            text = file.read()
        old = text.split('"inode": ')[1].split(",")[0].rstrip("}")
        with open(note, "w") as file:
            file.write(text.replace(old, str(os.stat(self.world.station.slots.standby).st_ino)))

    def run(self, line: int) -> subprocess.CompletedProcess:
        env = {**os.environ, "PYTHONPATH": SOURCE, "AGENTCTL_RUNTIME": "direct"}
        return subprocess.run([sys.executable, "-c", KILLED_ROLLBACK, str(line), self.world.name], env=env,
                              capture_output=True, text=True, timeout=120)

    def check_at_the_kill(self) -> None:
        """I1, I2: the agent's path is one complete version, the last known good can be read."""
        behaviour = (self.world.code / "behaviour.py").read_text()
        assert behaviour in ("MODE = 'crash'\n", "MODE = 'healthy'\n")
        assert (self.world.code / "dirty.py").exists() == ("crash" in behaviour)
        assert (self.world.code / "agent.py").exists()

    def check_afterwards(self) -> None:
        world = self.world
        assert git(world.code, "rev-parse", "HEAD", "main").split() == [world.first] * 2
        assert git(world.code, "status", "--porcelain") == ""
        assert (world.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
        (incident,) = world.incidents()
        moves = world.all("SELECT * FROM attempts WHERE rung<>'restart'")
        assert [(m["rung"], m["target"], m["is_open"]) for m in moves] == [("last known good", 1, 0)]
        self._check_nothing_is_missing(world.quarantine(incident) / "tree")
        assert (world.state / "config/plan.json").read_text() == "the good plan"
        assert (world.state / "history.jsonl").read_text() == '{"id": "1", "content": "hello"}\n'
        assert "exit status 1" in (world.state / "BRIEF.md").read_text()
        assert git(world.code, "log", "-1", "--format=%s", f"rescue/{incident['id']}") == "a bad change"

    def _check_nothing_is_missing(self, quarantine) -> None:
        """I3: every entry of the tree before the fault is, as it was, in quarantine or in live."""
        old, live = manifest(quarantine), manifest(self.world.code, without=(".git",))
        missing = [n for n, what in self.before.items() if old.get(n) != what and live.get(n) != what]
        assert not missing


@pytest.fixture(scope="module")
def condemned():
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Condemned(monkeypatch)
        yield made
        made.world.end()
        shutil.rmtree(made.kept)


def test_killed_at_any_line_it_ends_the_same(condemned):
    condemned.reset()
    whole = condemned.run(0)
    assert whole.returncode == 0, whole.stderr[-2000:]
    condemned.check_afterwards()
    lines = int(whole.stdout.splitlines()[-1])
    stride = 1 if os.environ.get("AGENTCTL_NIGHTLY") else max(1, lines // POINTS)
    tried = 0
    for line in range(1, lines, stride):
        condemned.reset()
        killed = condemned.run(line)
        if killed.returncode == 0:  # no two runs have quite as many lines; this one was over before
            break
        assert killed.returncode == -signal.SIGKILL, (line, killed.stderr[-2000:])
        condemned.check_at_the_kill()
        again = condemned.run(0)
        assert again.returncode == 0, (line, again.stdout[-2000:], again.stderr[-2000:])
        try:
            condemned.check_afterwards()
        except AssertionError as error:
            raise AssertionError(f"killed at line {line} of {lines}: {error}") from error
        tried += 1
    assert tried >= POINTS // 2
    print(f"line killer: {tried} points of {lines} lines")
