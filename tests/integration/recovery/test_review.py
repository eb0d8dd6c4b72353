"""Defects that a review found, each by the way it showed: real processes, real repositories."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentctl import rescue
from agentctl.config.context import Lock
from agentctl.core.identity import Identity
from agentctl.generations import lifecycle
from agentctl.ledger import models, writers
from agentctl.recovery import requests
from agentctl.runner import launch_off_record, runner
from agentctl.runner.launch_result import LaunchResult
from agentctl.state.snapshots import snapshot
from integration.world import SOURCE, World, git, write
from kit import deadline, launches
from kit.manifest import manifest

ONE_TRY = {"probation": {"tries": 1}}
QUICK_TRIAL = {"probation": {"duration": "0s", "heartbeats": 2}}
RUNNER = "import os, sys\nfrom agentctl.runner import runner\nos._exit(runner.main(sys.argv[1]))"


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(settings=None, **more):
        worlds.append(World(monkeypatch, settings, **more))
        return worlds[-1].adopt()

    yield build
    for world in worlds:
        world.end()


def run_runner(world: World) -> int:
    """Run the runner alone, as systemd would; return its exit status."""
    env = {**os.environ, "PYTHONPATH": SOURCE, "AGENTCTL_RUNTIME": "direct"}
    with open(world.folder / "log", "ab") as log:
        return deadline.run(
            [sys.executable, "-c", RUNNER, world.name], env=env, stdout=log, stderr=log, timeout=300
        ).returncode


def run_rescue(world: World, monkeypatch) -> int:
    """Run the rescue, with a `systemctl` that only says yes; return its exit status."""
    tools = world.folder / "tools"
    write(tools, {"systemctl": "#!/bin/sh\nexit 0\n"})
    os.chmod(tools / "systemctl", 0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return rescue.main(world.name)


# --- the agent's tree is gone


def test_a_tree_that_vanished_while_it_was_stopped_comes_back(make, monkeypatch):
    world = make()
    world.start()
    world.until_beating(1)
    world.stop()
    shutil.rmtree(world.code)
    monkeypatch.setenv("MONITOR_UNIT", f"{world.name}.service")  # as systemd starts the one-shot
    world.start()
    world.until_outcome("recovered")
    world.until_beating(1)
    assert git(world.code, "rev-parse", "HEAD") == world.first
    assert world.status_of(1) == "good"


# --- what was decided and never launched


def test_a_one_shot_that_runs_again_before_the_launch_moves_no_further(make):
    world = make(ONE_TRY)
    world.mode("crash")
    assert run_runner(world) == 1
    assert [world.rollback_once(), world.rollback_once()] == [0, 0]
    assert world.rungs() == [("last known good", 1), ("restart", 1)]
    world.start()
    assert world.until_outcome("recovered")["generation_to"] == 1


@pytest.mark.parametrize("mode", ["restart-75", "crash-later"])
def test_launches_that_fail_before_they_are_on_record_end_halted(make, mode):
    world = make()
    write(world.state, {"mode": mode})
    run_runner(world)
    with world.ledger() as ledger:  # it had run for long: no loop of the agent's own
        launches.shift(ledger, -3600, "started_at", "ready_at")
    lock = Path(world.paths.data_dir, "snapshots.lock")
    lock.unlink()
    lock.mkdir()
    statuses = []
    while len(statuses) < 10 and 77 not in statuses:
        statuses.append(world.rollback_once())
        run_runner(world)
    assert statuses[-1] == 77
    assert world.incidents()[-1]["outcome"] == "halted"


def test_a_rollback_by_hand_that_is_not_launched_at_once_is_launched_later(make, monkeypatch):
    world = make(QUICK_TRIAL)
    world.commit({"note.txt": "second"})
    world.start()
    world.until(lambda: world.status_of(2) == "good", "generation 2 to be good")
    world.stop()
    with world.ledger() as ledger:
        requests.submit(ledger, "rollback", "1")
    monkeypatch.setenv("MONITOR_UNIT", f"{world.name}.service")
    assert [world.rollback_once(), world.rollback_once()] == [0, 0]


def test_a_request_that_makes_no_sense_stops_nothing(make):
    world = make()
    world.start()
    launch_id = world.until_beating(1)["id"]
    asked = world.request("rollback", "yesterday")
    world.until_beating(1, after=launch_id)
    assert world.one("SELECT incident FROM requests WHERE number=?", asked)["incident"] == "nothing-to-do"
    assert not os.path.exists(f"{world.paths.data_dir}/rescued-at")


# --- clocks


def test_a_clock_that_went_back_hides_no_failure(make):
    world = make(ONE_TRY)
    world.start()
    world.until_beating(1)
    world.stop()
    with world.ledger() as ledger:
        launches.shift(ledger, 86400, "started_at", "ended_at")
    world.mode("crash")
    world.start()
    world.until_outcome("recovered")


def test_a_clock_that_went_back_uses_up_no_budget(make):
    world = make(ONE_TRY)
    world.mode("crash")
    with world.ledger() as ledger:
        for number in range(10):
            writers.add_attempt(
                ledger,
                f"old-{number}",
                1,
                at=time.time() + 300 * 86400,
                rung="last known good",
                target=1,
                reason="",
                is_open=False,
            )
    world.start()
    world.until_outcome("recovered")


# --- state


def test_a_rollback_by_hand_leaves_the_snapshot_of_where_it_came_from(make):
    world = make({**QUICK_TRIAL, "state": {"restore": ["config/*"]}})
    world.start()
    world.until_beating(1)
    world.commit({"note.txt": "second"})
    world.stop()
    world.start()
    world.until(lambda: world.status_of(2) == "good", "generation 2 to be good")
    world.stop()
    write(world.state, {"config/plan.json": "the plan of generation 2"})
    world.start()
    world.until_beating(2)
    world.request("rollback", "1")
    world.until_outcome("recovered")
    assert (world.state / "config/plan.json").read_text() == "the good plan"
    world.request("rollback", "2")
    world.until_beating(2)
    assert (world.state / "config/plan.json").read_text() == "the plan of generation 2"


def test_blessing_a_generation_that_does_not_run_keeps_its_snapshot(make):
    world = make({"state": {"restore": ["config/*"]}})
    world.commit({"note.txt": "second"})
    world.start()
    world.until_beating(2)
    with world.ledger() as ledger:
        own = ledger.generation(1).snapshot
        lifecycle.make_good(world.context, ledger, 1, "blessed by hand")
        assert ledger.generation(1).snapshot == own


def test_a_folder_that_is_no_snapshot_of_ours_stops_no_launch(make):
    world = make()
    Path(world.paths.snapshots_dir, "lost+found").mkdir()
    world.start()
    world.until_beating(1)


def test_two_snapshots_at_once_are_two_whole_ones(make):
    world = make()
    write(world.state, {f"many/{number}": "x" * 100 for number in range(2000)})
    code = (
        "import sys\nfrom agentctl.state import agent_state as state\nfrom agentctl.config.context import Context\n"
        "state.take_snapshot(Context.open(sys.argv[1]))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, world.name], env={**os.environ, "PYTHONPATH": SOURCE})
        for _ in range(2)
    ]
    assert [deadline.wait(taker, timeout=300) for taker in both] == [0, 0]
    root = world.paths.snapshots_dir
    assert [snapshot.verify(root, taken) for taken in snapshot.list_ids(root)] == [[], [], []]


# --- stopping


def test_an_agent_that_notifies_while_it_saves_is_not_held_up(make):
    world = make()
    agent = (world.code / "agent.py").read_text()
    chatty = "def save_and_go(*_):\n    for _ in range(600):\n        notify('WATCHDOG=1')\n"
    world.commit({"agent.py": agent.replace("def save_and_go(*_):\n", chatty)})
    world.start()
    launch_id = world.until_beating()["id"]
    world.stop()
    assert (world.state / "saved").read_text() == f"{launch_id}\n"


def test_a_stop_is_on_record_before_its_snapshot(make, monkeypatch):
    world = make()
    seen = []

    class Stopped:
        def __init__(self, context, ledger, begun, *_):
            self.context, self.ledger = context, ledger

        def run(self):
            return LaunchResult(models.STOPPED, "stop", "stopped")

        def snapshot_at_stop(self):
            seen.append(self.ledger.last_launch().end)

    monkeypatch.setattr(runner, "LaunchLoop", Stopped)
    os.makedirs(world.paths.runtime_dir)
    mask, handler = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGTERM)
    try:
        assert runner.main(world.name) == 0
    finally:  # it blocks what stops it, and every program started after this test would inherit that
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert seen == [models.STOPPED]


def test_no_process_of_the_agent_outlives_its_launch(make):
    world = make(ONE_TRY)
    agent = (world.code / "agent.py").read_text()
    seconds = f"{10**6 + os.getpid()}.5"
    bare = f"subprocess.Popen(['sleep', '{seconds}'], start_new_session=True, stdin=subprocess.DEVNULL, env={{}})\n"
    world.commit(
        {
            "agent.py": agent.replace('print("agent: starting"', bare + 'print("agent: starting"'),
            "behaviour.py": "MODE = 'crash'\n",
        }
    )
    world.start()
    world.until_outcome("recovered")
    assert deadline.run(["pgrep", "-f", f"sleep {seconds}"], capture_output=True).stdout == b""


# --- the rescue


def test_the_rescue_takes_no_standby_that_is_the_replaced_tree(make, monkeypatch):
    world = make()
    slots = world.context.slots
    world.mode("crash")
    slots._unseal(slots.standby)
    os.rename(world.code, f"{world.folder}/x")  # the exchange of a one-shot that was killed right after it
    os.rename(slots.standby, world.code)
    os.rename(f"{world.folder}/x", slots.standby)
    assert run_rescue(world, monkeypatch) == 0
    assert (world.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"
    assert any("crash" in path.read_text() for path in Path(slots.folder).glob("**/behaviour.py"))


def test_the_rescue_moves_nothing_under_a_running_agent(make, monkeypatch):
    world = make()
    world.mode("slow")
    before = manifest(world.code)
    with Lock(world.paths.agent_lock_path, "agent").take():
        assert run_rescue(world, monkeypatch) == 1
    assert manifest(world.code) == before


def test_the_rescue_takes_no_condemned_generation(make, monkeypatch):
    world = make()
    world.mode("crash")
    vault = world.context.vault
    with world.ledger() as ledger:
        generation = lifecycle.identify(world.context, ledger)
        vault.update(
            {
                "refs/agentctl/good/2": generation.vault_commit,
                "refs/agentctl/condemned/2": generation.vault_commit,
            }
        )
    shutil.rmtree(world.context.slots.standby)
    assert run_rescue(world, monkeypatch) == 0
    assert (world.code / "behaviour.py").read_text() == "MODE = 'healthy'\n"


def test_a_ledger_without_its_tables_does_not_stop_the_launch_after_a_rescue(make):
    world = make()
    os.makedirs(world.paths.runtime_dir)
    with world.ledger() as ledger:
        ledger.db.execute("DROP TABLE attempts")  # by hand: damage
    Path(world.paths.rescued_path).write_text("")
    ledger, begun = launch_off_record.begin_after_rescue(world.context, print)
    with ledger:
        assert begun.generation.status == "good"
    assert not os.path.exists(world.paths.rescued_path)


# --- trees that wait


def test_a_standby_is_closed_to_the_agent_while_it_is_made(make, monkeypatch):
    world = make()
    slots, seen = world.context.slots, []
    write_index = world.context.vault.write_index

    def look(*words):
        stat = os.stat(f"{slots.folder}/standby.partial")
        seen.append((stat.st_mode & 0o777, stat.st_uid))
        write_index(*words)

    monkeypatch.setattr(world.context.vault, "write_index", look)
    monkeypatch.setattr(slots, "owner", Identity(65534, 65534, [65534], "nobody", "/"))
    with world.ledger() as ledger:
        good = ledger.last_known_good()
    slots.prepare(world.context.vault, 1, good.vault_commit, good.commit_id, [])
    assert seen == [(0o700, os.geteuid())]
    assert os.stat(f"{slots.standby}/agent.py").st_uid == 65534
    assert os.stat(slots.standby).st_uid == os.geteuid()
