"""A whole agent whose code folder cannot be exchanged: adopted, rolled back, undone, cut off, rescued; nothing lost.

The ways it cannot be: it is a mount point, a bind mount, in the lower layer of an overlay, or the slots are on another
file system. All mounts are of this process alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentctl.changes import adopt
from agentctl.core.errors import EXIT_NO_STORAGE, AgentctlError, LaunchRefused
from agentctl.generations.agent_context import AgentContext
from agentctl.recovery import requests
from agentctl.runner import launch
from integration.world import SOURCE, World, git, write
from kit import deadline, launches, mounts
from kit.manifest import manifest, missing
from kit.survival import survived

KINDS = ("mount", "bind", "overlay", "other")
PHASES = {"out": "_take_out", "in": "_put_in"}
CUT_ROLLBACK = """
import os, signal, sys
phase, left, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
from agentctl.recovery import process as rollback
from agentctl.generations import move_tree as moving
ours = ("move_tree.py", "move_entries.py")
depth = [0]
def trace(frame, event, _):
    global left
    if frame.f_code.co_name == phase and event == "call":
        depth[0] = 1
    if not frame.f_code.co_filename.endswith(ours):
        return None
    if event == "line" and depth[0]:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
os._exit(rollback.main(name))
"""
RESCUE = "import os, sys; from agentctl import rescue; os._exit(rescue.main(sys.argv[1]))"


class Odd(World):
    """A world whose code folder cannot be exchanged."""

    def __init__(self, monkeypatch, kind: str) -> None:
        settings = {"probation": {"tries": 1}}
        if kind == "other":
            settings["agent"] = {"slots": "beside"}
        super().__init__(monkeypatch, settings)
        fast = self.folder / "fast"  # what counts is the order of the calls, not the disk
        self.kind, self.mounted = kind, [self.code, fast, self.folder / "r"]
        for place in self.mounted[1:]:
            mounts.tmpfs(place)
        source = fast / "source"
        shutil.move(self.code, source)
        if kind == "overlay":
            self._lay_over(source)
        elif kind == "bind":
            self.code.mkdir()
            mounts.mount("--bind", source, self.code)
        else:
            if kind == "other":
                self.mounted.append(self.folder / ".code.agentctl")
                mounts.tmpfs(self.mounted[-1], "64m", "711")
            mounts.tmpfs(self.code)
            shutil.copytree(source, self.code, symlinks=True, dirs_exist_ok=True)
        self.adopt()
        write(self.code, {".venv/version": "old"})
        write(self.state, {"history.jsonl": '{"id": "1", "content": "hello"}\n'})

    def _lay_over(self, source: Path) -> None:
        place, lower = self.folder / "layered", source.parent / "lower"
        lower.mkdir()
        source.rename(lower / "code")
        mounts.overlay(lower, place)
        self.code, self.mounted = place / "code", [place, f"{place}.upper", *self.mounted[1:]]

    def fail(self) -> None:
        """Have a bad candidate, with work that is not committed, end for good."""
        self.bad = self.mode("crash", "a bad change")
        write(
            self.code,
            {
                "dirty.py": "not committed\n",
                "notes.cache": "ignored\n",
                "sub/deep/x": "untracked\n",
                "deep.cache/more/y": "ignored\n",
            },
        )
        opened = AgentContext.open(self.name)
        with self.ledger() as ledger:
            begun = launch.begin(opened, ledger)
            launches.fail(ledger, begun.id)
        write(self.state, {"config/plan.json": "what the bad version wrote"})
        self.before = self.tree(self.code)

    def tree(self, path) -> dict:
        return manifest(path, without=(".git", ".agentctl"))

    def run(self, code: str, *words) -> subprocess.CompletedProcess:
        env = {**os.environ, "PYTHONPATH": SOURCE, "AGENTCTL_RUNTIME": "direct"}
        return deadline.run(
            [sys.executable, "-c", code, *map(str, words)], env=env, capture_output=True, text=True, timeout=300
        )

    def check_rolled_back(self) -> dict:
        assert git(self.code, "rev-parse", "HEAD", "main").split() == [self.first] * 2
        assert git(self.code, "status", "--porcelain") == ""
        assert (self.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
        incident = self.incidents()[-1]
        self.check_nothing_is_missing(self.quarantine(incident) / "tree")
        assert (self.code / "notes.cache").read_text() == "ignored\n"  # carried over
        assert (self.code / "deep.cache/more/y").read_text() == "ignored\n"
        assert not (self.code / "dirty.py").exists()
        assert (self.state / "config/plan.json").read_text() == "the good plan"
        assert git(self.code, "log", "-1", "--format=%s", f"rescue/{incident['id']}") == "a bad change"
        assert [m["is_open"] for m in self.all("SELECT * FROM attempts WHERE rung<>'restart'")] == [0]
        return incident

    def check_nothing_is_missing(self, quarantine) -> None:
        assert not missing(self.before, manifest(quarantine), self.tree(self.code))

    def check_refused(self) -> None:
        """I6: nothing is launched while the agent's path is no version."""
        with self.ledger() as ledger, pytest.raises(LaunchRefused):
            launch.begin(AgentContext.open(self.name), ledger)

    def end(self) -> None:
        super().end()
        mounts.release(*self.mounted)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def odd(request, monkeypatch):
    mounts.need_mounts()
    made = Odd(monkeypatch, request.param)
    yield made
    made.end()


def all_kinds(test):
    return pytest.mark.parametrize("odd", KINDS, indirect=True)(test)


def only(*kinds):
    return pytest.mark.parametrize("odd", kinds, indirect=True)


@all_kinds
def test_a_whole_rollback_and_its_undo(odd):
    odd.fail()
    assert odd.rollback_once() == 0, odd.log
    odd.check_rolled_back()
    with odd.ledger() as ledger:
        opened = AgentContext.open(odd.name)
        begun = launch.begin(opened, ledger)
        assert begun.generation.number == 1
        launches.see_well(ledger, begun.id)
        launches.stop(ledger, begun.id)
        requests.submit(ledger, "undo", "")
    good = odd.tree(odd.code)
    assert odd.rollback_once() == 0, odd.log
    assert git(odd.code, "rev-parse", "HEAD") == odd.bad
    assert not missing({n: w for n, w in odd.before.items() if n != ".venv"}, odd.tree(odd.code))
    assert not missing(good, manifest(odd.quarantine(odd.incidents()[-1]) / "tree"), odd.tree(odd.code))


@only("mount", "overlay")
def test_a_real_agent_is_rolled_back(odd):
    odd.start()
    odd.until_beating(1)
    odd.stop()
    odd.mode("crash")
    odd.start()
    odd.until_outcome("recovered")
    assert (odd.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert odd.stop() == 0
    assert git(odd.code, "status", "--porcelain") == ""


@pytest.mark.parametrize("phase", PHASES)
@all_kinds
def test_a_cut_in_each_phase_is_gone_on_with(odd, phase):
    odd.fail()
    for line in (20, 60):
        cut = odd.run(CUT_ROLLBACK, PHASES[phase], line, odd.name)
        assert cut.returncode == -signal.SIGKILL, (line, cut.stdout, cut.stderr)
        assert odd.context.slots.is_moving
        odd.check_refused()
    assert odd.rollback_once() == 0, odd.log
    odd.check_rolled_back()
    survived("SIGKILL at a line", f"the recovery process while it moves entries ({odd.kind})", 2)


@pytest.mark.parametrize("phase", PHASES)
@only("mount", "other")
def test_a_lost_ledger_in_the_middle_of_a_move(odd, phase):
    odd.fail()
    assert odd.run(CUT_ROLLBACK, PHASES[phase], 30, odd.name).returncode == -signal.SIGKILL
    for suffix in ("", "-wal", "-shm"):
        Path(odd.paths.ledger_path + suffix).unlink(missing_ok=True)
    odd.rollback_once()
    assert not odd.context.slots.is_moving
    assert (odd.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    odd.check_nothing_is_missing(next((Path(odd.context.slots.folder) / "quarantine").glob("*/tree")))


@pytest.mark.parametrize("phase", [None, *PHASES])
@only("mount", "overlay")
def test_the_rescue_copes(odd, phase):
    """The one-shot is broken: the rescue finishes the move, or makes one of its own."""
    odd.fail()
    if phase:
        assert odd.run(CUT_ROLLBACK, PHASES[phase], 40, odd.name).returncode == -signal.SIGKILL
    done = odd.run(RESCUE, odd.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not odd.context.slots.is_moving
    assert (odd.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert (odd.code / ".git/HEAD").exists() and not (odd.code / "dirty.py").exists()
    odd.check_nothing_is_missing(next((Path(odd.context.slots.folder) / "quarantine").glob("*/tree")))
    odd.start()
    odd.until_beating(1)
    assert odd.stop() == 0


@only("other")
def test_a_full_disk_in_the_middle_of_the_copy(odd):
    odd.fail()
    write(odd.code, {"big.bin": os.urandom(2_000_000), "zz-last": "x"})
    odd.before = odd.tree(odd.code)
    room = odd.mounted[-1]
    used = sum(f.stat().st_size for f in Path(room).rglob("*") if f.is_file())
    mounts.mount("-o", f"remount,size={used // 1024 + 1024}k", room)
    assert odd.rollback_once() == EXIT_NO_STORAGE, odd.log
    assert odd.tree(odd.code) == odd.before  # nothing is removed before everything is copied
    odd.check_refused()
    mounts.mount("-o", "remount,size=64m", room)
    assert odd.rollback_once() == 0, odd.log
    odd.check_rolled_back()
    survived("disk full", "the copies of a switch between file systems", 1)


@only("mount")
def test_nothing_is_launched_or_moved_while_nothing_is_mounted(odd):
    odd.fail()
    mounts.release(odd.code)
    with odd.ledger() as ledger, pytest.raises(AgentctlError, match="nothing is mounted"):
        launch.begin(AgentContext.open(odd.name), ledger)
    assert odd.rollback_once() == 1
    done = odd.run(RESCUE, odd.name)
    assert done.returncode == 1 and "nothing is mounted" in done.stdout
    assert os.listdir(odd.code) == []


@only("mount")
def test_the_slots_are_hidden_and_come_back(odd):
    """git does not see them; an agent that removes them costs no more than the vault can give back."""
    assert git(odd.code, "status", "--porcelain") == ""
    assert (odd.code / ".agentctl/standby").is_dir()
    git(odd.code, "clean", "-qfd")
    assert odd.context.slots.standby_note()["generation"] == 1
    (odd.code / ".git/info/exclude").unlink()
    shutil.rmtree(odd.code / ".agentctl")
    elsewhere = odd.folder / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, {"standby/precious": "x", "standby.partial/precious": "x"})
    os.symlink(elsewhere, odd.code / ".agentctl")
    kept = manifest(elsewhere)
    odd.fail()
    assert odd.rollback_once() == 0, odd.log
    assert manifest(elsewhere) == kept
    assert (odd.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert git(odd.code, "status", "--porcelain") == ""


@only("mount", "other")
def test_everything_in_the_mount_is_gone(odd):
    """rm -rf of all that is in it, our slots too: the vault gives the code back."""
    odd.start()
    odd.until_beating(1)
    odd.stop()
    for path in odd.code.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    odd.start()
    odd.until_outcome("recovered")
    assert odd.stop() == 0
    assert (odd.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert "lacks what git could not take" not in odd.log  # our own folder is no loss
    assert "rescue" not in odd.log
    assert git(odd.code, "rev-parse", "HEAD", "main").split() == [odd.first] * 2
    assert git(odd.code, "status", "--porcelain") == ""


@only("mount", "bind", "other")
def test_what_init_says_and_where_the_slots_go(odd):
    inside = odd.kind != "other"
    assert odd.context.slots.is_inside == inside
    assert any("mount point" in line for line in adopt.note(odd.context)) == inside
    assert odd.context.config.agent.slots == ("mounted" if inside else "beside")


def test_a_folder_whose_parent_cannot_be_written_has_its_slots_inside(tmp_path):
    mounts.need_mounts()
    (tmp_path / "parent/code").mkdir(parents=True)
    assert adopt.choose_slots(str(tmp_path / "parent/code")) == "beside"
    mounts.mount("--bind", tmp_path / "parent", tmp_path / "parent")
    mounts.mount("-o", "remount,bind,ro", tmp_path / "parent")
    assert adopt.choose_slots(str(tmp_path / "parent/code")) == "inside"
    mounts.release(tmp_path / "parent")
