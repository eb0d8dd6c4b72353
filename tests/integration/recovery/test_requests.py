"""Several triggers for one failure at random moments: one attempt moves code, no request is lost, every incident ends.

The one-shot as `OnFailure=` starts it, as the watchdog or a person starts it, and `agentctl rollback`, all as
processes of their own. The nights make it a hundred rounds.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from agentctl.ledger import incidents, models
from agentctl.ledger.models import Launch
from agentctl.runner import jobs, launch
from integration.world import ROLLBACK, SOURCE, World, git, write
from kit import deadline, effort, launches
from kit.survival import survived

ROUNDS = effort.points(4, 100)
CLI = "import sys; from agentctl.cli.main import main; sys.exit(main())"
WITHIN_SECONDS = 0.7  # about what one run of the one-shot takes here
LIMIT_SECONDS = 120
MANY = {"restarts": 1, "window": "30s", "attempts": 100, "per_day": 1000}


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch, {"probation": {"tries": 1}, "rollback": MANY}).adopt()
    yield world
    world.end()


def fail(world: World, number: int) -> None:
    """Launch another bad version, which fails for good."""
    world.commit({"behaviour.py": f"MODE = 'crash'  # {number}\n"}, f"bad {number}")
    write(world.code, {"dirty.py": f"not committed {number}\n"})
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
        launches.fail(ledger, begun.id, f"bad {number}")


def beat(world: World) -> Launch:
    """Launch what is there now, and let it be well."""
    with world.ledger() as ledger:
        begun = launch.begin(world.context, ledger)
        at = launches.see_well(ledger, begun.id)
        jobs.save_work(world.context, ledger, begun.incident)
        incidents.recover(ledger, begun, at)
        jobs.standby(world.context, ledger, "1")
        launches.stop(ledger, begun.id)
    return begun


def start(world: World, kind: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": SOURCE, "AGENTCTL_RUNTIME": "direct"}
    argv = [sys.executable, "-c", ROLLBACK, world.name]
    if kind == "failure":
        env.update(MONITOR_SERVICE_RESULT="exit-code", MONITOR_EXIT_STATUS="1")
    elif kind != "by hand":
        argv = [sys.executable, "-c", CLI, "--name", world.name, *kind.split()]
    with open(world.folder / "log", "ab") as log:
        return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def trigger_at_random(world: World, chance: random.Random) -> tuple[list[str], list[int]]:
    """Start one trigger of the failure and several others; return their kinds and exit statuses."""
    kinds = ["failure", *chance.choices(["by hand", "rollback --yes", "rollback 1 --yes"], k=chance.randint(1, 4))]
    chance.shuffle(kinds)
    began, running = time.monotonic(), []
    for at, kind in zip(sorted(chance.uniform(0, WITHIN_SECONDS) for _ in kinds), kinds, strict=True):
        time.sleep(max(0.0, began + at - time.monotonic()))
        running.append(start(world, kind))
    return kinds, [deadline.wait(process, timeout=LIMIT_SECONDS, log=world.folder / "log") for process in running]


@pytest.mark.every_night
def test_several_triggers_at_once(world):
    chance, asked = effort.dice("triggers"), 0
    for number in range(1, ROUNDS + 1):
        fail(world, number)
        kinds, statuses = trigger_at_random(world, chance)
        told = f"round {number}: {list(zip(kinds, statuses, strict=True))}\n{world.log[-2500:]}"
        assert not any(statuses), told
        asked += sum(kind.startswith("rollback") for kind in kinds)
        incidents = world.incidents()
        assert len(incidents) == number, told
        newest = incidents[-1]
        moves = [
            a
            for a in world.all("SELECT * FROM attempts WHERE incident=?", newest["id"])
            if a["rung"] not in models.NO_MOVES
        ]
        assert [(a["target"], a["is_open"]) for a in moves] == [(1, 0)], told
        requests = world.all("SELECT * FROM requests ORDER BY number")
        assert len(requests) == asked and all(r["incident"] in [i["id"] for i in incidents] for r in requests), told
        assert git(world.code, "rev-parse", "HEAD", "main").split() == [world.first] * 2, told
        assert git(world.code, "status", "--porcelain") == "", told
        assert (world.quarantine(newest) / "tree/dirty.py").read_text() == f"not committed {number}\n", told
        assert beat(world).incident == newest["id"], told
        assert git(world.code, "show", f"rescue/{newest['id']}:dirty.py") == f"not committed {number}", told
        assert [i["outcome"] for i in world.incidents()] == ["recovered"] * number, told
    survived("several triggers at once", "recoveries and requests as processes", ROUNDS)
