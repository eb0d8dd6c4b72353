"""What comes before a launch, killed with SIGKILL at the Nth line it executes, then done again as systemd would.

A gate dies after some of the calls to the outside: between two of them nothing changes on disk. The nights take
every line, and more pairs, where the recovery is killed too.
"""

import json
import os
from pathlib import Path

import pytest

from agentctl.config.context import Lock, find_paths
from agentctl.core.errors import LaunchRefused
from agentctl.generations import rebuild_ledger
from agentctl.generations.agent_context import AgentContext
from agentctl.host.journald import open_journal
from agentctl.ledger.database import Ledger
from agentctl.runner import runner
from agentctl.state import agent_state
from integration.crash_world import BAD, CrashWorld, one_shot
from integration.world import write
from kit import launches
from kit.exploration import explore_and_record


def launch_as_the_runner(name: str) -> None:
    """What the runner does before the agent starts."""
    context = AgentContext.open(name, lenient=True)
    runner.mark(context.paths)
    with Lock(context.paths.agent_lock_path, "agent").take(), rebuild_ledger.open_or_rebuild(context, print) as ledger:
        runner._begin(context, ledger, open_journal(f"{name}-runner", context.paths))
    runner.unmark(context.paths)


def launch_as_systemd(name: str) -> None:
    """The one-shot and the runner in turn, until a launch begins."""
    for _ in range(4):
        one_shot(name)
        try:
            return launch_as_the_runner(name)
        except LaunchRefused as refused:
            runner.unmark(find_paths(name))
            print(refused)
    raise AssertionError("no launch in four turns")


class Launch(CrashWorld):
    """The launch of a tree that no generation knows: guard, capture, snapshot, one try spent."""

    is_left_clean = True  # the good generation before it was stopped, and owns the state that it left

    def stage(self):
        self.begin()
        with Ledger(self.paths.ledger_path) as ledger:
            last = ledger.last_launch()
            launches.stop(ledger, last.id)
        self.world.mode("healthy-2", "a change")
        write(self.code, BAD)
        write(self.world.state, {"config/plan.json": "a new plan", "more": "more"})

    def reset(self):
        super().reset()
        os.makedirs(self.paths.runtime_dir, exist_ok=True)
        runner.mark(self.paths)  # the first thing that a runner does

    def act(self):
        launch_as_the_runner(self.name)

    def recover(self):
        os.environ["MONITOR_UNIT"] = f"{self.name}.service"
        launch_as_systemd(self.name)

    def check(self, rows, is_over):
        self.check_untouched()
        fresh = [g for g in rows["generations"] if g["number"] > 1]
        of_fresh = [n for n in rows["launches"] if n["generation"] == 2 and n["end"] != "refused"]
        assert [g["number"] for g in fresh] in ([], [2]), "captured twice"
        for generation in fresh:
            assert generation["tree"] == self.wanted_tree()
            assert generation["tries_left"] == 9 - len([n for n in of_fresh if n["trigger"] != "cannot-launch"])
        assert len([n for n in rows["launches"] if not n["end"]]) <= 1
        if is_over:
            assert len(fresh) == 1 and rows["launches"] and of_fresh[-1]["snapshot"]
            assert [n["generation"] for n in rows["launches"] if not n["end"]] == [2]
            if not self.is_left_clean:
                return
            left = f"{self.paths.snapshots_dir}/{rows['generations'][0]['snapshot']}/tree/config/plan.json"
            assert Path(left).read_text() == "a new plan", "the good one does not own the state that it left behind"

    def wanted_tree(self) -> str:
        if not hasattr(self, "_wanted"):
            self._wanted = self.tree_of(self.code)
        return self._wanted


class LaunchAfterReboot(Launch):
    """The machine went down in mid-write: the history is torn, the task is gone, both are mended before the launch."""

    is_left_clean = False

    def stage(self):
        super().stage()
        write(self.world.state, {"history.jsonl": "".join(
            f'{{"id": "{n}", "role": "user", "content": "message {n}"}}\n' for n in range(1, 9)),
            "current_task.md": "# Current Task\ngo on\n\n## Pending Actions\n- [ ] more\n"})  # fmt: skip
        with Ledger(self.paths.ledger_path) as ledger:
            agent_state.take_snapshot(self.context)
            launches.cut_off(ledger, ledger.last_launch().id)
        write(self.world.state, {"history.jsonl": '{"id": "1", "role": "user", "content": "message 1"}\n'
                                 '{"id": "9", "role": "user", "content": "message 9"}\n{"id": "10", "ro'})  # fmt: skip
        (self.world.state / "current_task.md").unlink()

    def check(self, rows, is_over):
        super().check(rows, is_over)
        if is_over:
            ids = [json.loads(line)["id"] for line in self._history_lines()]
            assert sorted(ids, key=int) == [str(n) for n in range(1, 10)]
            assert "go on" in (self.world.state / "current_task.md").read_text()
            kept = list(Path(self.paths.incidents_dir).rglob("history.jsonl.damaged*"))
            assert any(b'{"id": "10", "ro' in p.read_bytes() for p in kept)


class Capture(CrashWorld):
    """The capture alone: what the tree is, hashed beside the agent's repository."""

    def stage(self):
        self.world.mode("healthy-2", "a change")
        write(self.code, {**BAD, **{f"many/{n}": str(n) for n in range(20)}})

    def act(self):
        context = AgentContext.open(self.name)
        commit, tree, branch = context.repository.look()
        capture = context.staging.capture(context.repository.git, commit, branch, commit_tree=tree)
        write(self.paths.data_dir, {"captured": capture.tree})

    def check(self, rows, is_over):
        self.check_untouched()
        if is_over:
            assert Path(self.paths.data_dir, "captured").read_text() == self.tree_of(self.code)


FAMILIES = {  # what: (the family, points of a gate, pairs of it, every which line at night)
    "launch of a new candidate": (Launch, 24, 2, 1),
    "launch after a reboot, with mending": (LaunchAfterReboot, 24, 2, 3),
    "capture": (Capture, 6, 1, 1),
}


@pytest.mark.every_night
@pytest.mark.parametrize("what", FAMILIES)
def test_killed_anywhere_it_ends_the_same(what):
    explore_and_record(what, *FAMILIES[what])
