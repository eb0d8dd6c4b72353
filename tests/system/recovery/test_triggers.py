"""Several triggers for one failure, at random moments, on real systemd: one rollback, nothing asked is lost.

`OnFailure=`, the one-shot started a second time (by the watchdog or by a person), `agentctl rollback`, before the
failure, during the rollback, after it. The nights make it a hundred rounds.
"""

import subprocess
import time

import pytest
from boxed_world import CALL_SECONDS, World

from kit import deadline, effort
from kit.survival import survived

ROUNDS = effort.points(3, 100)
WITHIN_SECONDS = 1.5  # from the bad launch to the good one, about
NOTHING = ("nothing was done", "no other good generation")
NO_MOVES = ("restart", "asked")
MANY = {"restarts": 3, "window": "1m", "attempts": 100, "per_day": 1000}


def trigger_at_random(world, chance):
    """Fire some triggers from now on; return what was run, and wait for what answers."""
    unit = f"{world.name}-rollback.service"
    kinds = {
        "start": ["systemctl", "start", "--no-block", unit],
        "start and wait": ["systemctl", "start", unit],
        "request": ["agentctl", "--name", world.name, "rollback", "--yes"],
    }
    chosen = chance.choices(list(kinds), k=chance.randint(1, 5))
    began, running = time.monotonic(), []
    for at, kind in zip(sorted(chance.uniform(0, WITHIN_SECONDS) for _ in chosen), chosen, strict=True):
        time.sleep(max(0.0, began + at - time.monotonic()))
        running.append(world.box.popen(kinds[kind], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True))  # fmt: skip
    said = [deadline.communicate(process, timeout=CALL_SECONDS)[0] for process in running]
    return list(zip(chosen, (process.returncode for process in running), said, strict=True))


@pytest.mark.every_night
def test_several_triggers_at_once(box, box_root):
    chance = effort.dice("triggers")
    world = World(box, "many", rollback=MANY, probation={"duration": "1h"}).make().start()
    for number in range(1, ROUNDS + 1):
        known = {found["id"] for found in world.incidents()}
        bad = world.commit(chance.choice(["crash-at-import", "crash", "exit-78"]), version=f"bad {number}")
        world.systemctl("restart", "--no-block", world.name)
        fired = trigger_at_random(world, chance)
        wait_for_outcome(world, known)
        status = world.wait_steady(commit=world.good)
        told = f"round {number}: {fired}\n{world.all_journals()}"
        for kind, code, said in fired:
            is_answered = code == 0 or any(words in said for words in NOTHING)
            assert is_answered or kind != "request", told
        incidents = [found for found in world.incidents() if found["id"] not in known]
        check_one_rollback(world, bad, incidents, told)
        assert status["agent"]["alive"] and world.head == world.good, told
    survived("several triggers at once", "real systemd", ROUNDS)
    world.stop()


def wait_for_outcome(world, known):
    """Wait until an incident other than the known ones has ended."""
    world.wait_until(lambda: any(found["outcome"] and found["id"] not in known for found in world.incidents()),
                     "the outcome of a new incident")  # fmt: skip


def check_one_rollback(world, bad, incidents, told):
    """Exactly one attempt moved code, and every incident has ended, one way."""
    moves = [attempt for found in incidents for attempt in found["attempts"] if attempt["rung"] not in NO_MOVES]
    assert [move["target"] for move in moves] == [1], told
    assert [found["outcome"] for found in incidents] == ["recovered"], told
    world.git("merge-base", "--is-ancestor", bad, f"rescue/{incidents[0]['id']}")
