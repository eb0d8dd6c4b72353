"""Explore a family of crash points: reset the world, kill, check, recover, check again; some points in pairs.

N counts up in several processes side by side, each with a world of its own. Where every line is tried, each is killed
at and checked; the recovery is run from every state that the disk can be in: the first line after each call to the
outside, and every line while a child is at work. AGENTCTL_RECOVER_ALWAYS=1 runs it from every line.
A gate tries some of the calls, chosen by the seed; a night its share of all lines (kit.effort).
"""

from __future__ import annotations

import json
import os
import random
import time
import traceback

from kit import effort
from kit.line_killer import run, take_orphans_in
from kit.survival import survived

RECOVERS_ALWAYS = bool(os.environ.get("AGENTCTL_RECOVER_ALWAYS"))
NIGHTLY_PAIRS = 75  # for each of a gate, over all nights
TALK = "command.py"  # where children are waited for: they change the disk meanwhile
MOST_FAILURES = 5  # of one worker; then it ends


def explore_and_record(what: str, make, points: int, pairs: int, stride: int = 1) -> None:
    """Explore a family as this run is to: some points and pairs in a gate, every `stride`-th line at night."""
    began, is_night = time.monotonic(), effort.NIGHT is not None
    first, step = effort.stride()
    found = explore(
        make,
        points=0 if is_night else points,
        pairs=effort.points(pairs, pairs * NIGHTLY_PAIRS),
        first=first * stride,
        stride=step * stride,
        workers=2 if is_night else 1,
        dice=effort.dice(what),
    )
    alone, which = found.points - found.pairs, f", every {step * stride}th" if is_night else ""
    assert is_night or alone >= min(points, found.calls) // 2
    survived("SIGKILL at a line", what, alone)
    survived("SIGKILL at a line, and again in the recovery", what, found.pairs)
    print(
        f"line killer: {what}: {alone} points and {found.pairs} pairs ({found.recoveries} recoveries) of "
        f"{found.lines} lines{which} and {found.calls} calls in {time.monotonic() - began:.0f}s"
    )


class Found:
    """What an exploration found: `points` that held (`pairs` of them are), of runs with `lines` lines and `calls`.

    `recoveries` of the points were recovered from, the others left the disk as one of these had.
    """

    def __init__(self) -> None:
        self.points = self.pairs = self.lines = self.calls = self.recoveries = 0
        self.failures: list[str] = []


def explore(
    make,
    *,
    points: int = 0,
    pairs: int = 0,
    first: int = 0,
    stride: int = 1,
    workers: int = 2,
    dice: random.Random | None = None,
) -> Found:
    """Kill after `points` of the calls to the outside (0: before every `stride`-th line from `first` on), and in pairs.

    `make()` makes the world and how to break it, in each worker anew: an object with `reset`, `act`, `recover`,
    `at_the_kill(run)`, `afterwards(run)` and `end`. Fails with every point that did not hold, up to a few.
    """
    plan = {
        "points": points,
        "pairs": pairs,
        "first": first,
        "stride": stride,
        "workers": workers,
        "seed": (dice or random.Random(1)).random(),
    }
    total = Found()
    for pid, fd in [_start_worker(make, number, plan) for number in range(workers)]:
        with os.fdopen(fd) as file:
            said = json.loads(file.read() or '{"failures": ["a worker died"]}')
        os.waitpid(pid, 0)
        total.points += said.get("points", 0)
        total.pairs += said.get("pairs", 0)
        total.recoveries += said.get("recoveries", 0)
        total.lines, total.calls = max(total.lines, said.get("lines", 0)), max(total.calls, said.get("calls", 0))
        total.failures += said["failures"]
    assert not total.failures, f"{len(total.failures)} points failed:\n" + "\n\n".join(total.failures)
    return total


def _start_worker(make, number: int, plan: dict) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    found = Found()
    try:
        os.close(read_end)
        take_orphans_in(parent)
        _work(make(), found, number, plan)
    except BaseException:  # noqa: BLE001 - a forked child must never run the parent's code
        found.failures.append(traceback.format_exc())
    try:
        os.write(write_end, json.dumps(vars(found)).encode())
    finally:
        os._exit(0)


def _work(family, found: Found, number: int, plan: dict) -> None:
    """One worker's share: every so-manieth point, then of the pairs."""
    workers, dice = plan["workers"], random.Random(f"{plan['seed']} {number}")
    seen: set[int] | None = None if plan["points"] or RECOVERS_ALWAYS else set()
    try:
        recovery_lines = _whole(family, found)
        for point in _spread(found, number, plan):
            if len(found.failures) >= MOST_FAILURES or not _try(family, found, point, seen):
                break
        for _ in range(number, plan["pairs"], workers):
            point = {"line": dice.randint(1, found.lines)}
            if len(found.failures) < MOST_FAILURES:
                found.pairs += _try(family, found, point, None, dice.randint(1, recovery_lines))
    finally:
        family.end()


def _spread(found: Found, number: int, plan: dict):
    """Yield where to die: after calls, evenly, or before lines until there is none of that number."""
    workers = plan["workers"]
    if plan["points"]:
        count = min(plan["points"], found.calls)
        chance = random.Random(plan["seed"])  # one call in each of `count` parts of the run: every worker knows which
        calls = [1 + int((n + chance.random()) * found.calls / count) for n in range(count)]
        yield from ({"call": call} for call in calls[number::workers])
        return
    line = 1 + plan["first"] + number * plan["stride"]
    while True:
        yield {"line": line, "call": -1}
        line += workers * plan["stride"]


def _whole(family, found: Found) -> int:
    """Run it once unharmed; return the lines of a recovery (where there is nothing to do, those of the run)."""
    family.reset()
    whole = run(family.act)
    family.at_the_kill(whole)
    recovery = run(family.recover)
    family.afterwards(recovery)
    found.lines, found.calls = whole.lines, whole.calls
    return max(recovery.lines, whole.lines)


def _try(family, found: Found, point: dict, seen: set[int] | None, second: int = 0) -> bool:
    """One point, or a pair of them; False if the run was over before. `seen` has the calls that were recovered from."""
    where = f"{point}"
    try:
        family.reset()
        killed = run(family.act, **point)
        if not killed.was_killed:
            return False
        where = f"killed at line {killed.lines} of {found.lines}, call {killed.calls}, {killed.place}"
        family.at_the_kill(killed)
        if seen is not None and killed.calls in seen and not killed.place.startswith(TALK):
            found.points += 1
            return True
        if second:
            again = run(family.recover, second)
            where += f", then at line {second} of the recovery, {again.place or 'its end'}"
            family.at_the_kill(again)
        recovery = run(family.recover, is_traced=False)
        where += ", after the recovery"
        family.afterwards(recovery)
        found.points += 1
        found.recoveries += 1
        if seen is not None:
            seen.add(killed.calls)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is a failure found
        found.failures.append(f"{where}: {_in_short(error)}")
    return True


def _in_short(error: BaseException) -> str:
    """Say what failed and in which line of the check, with its own words where it has some."""
    frames = traceback.extract_tb(error.__traceback__)
    spots = "".join(f"\n  {os.path.basename(f.filename)}:{f.lineno}: {f.line}" for f in frames[-2:])
    return f"{type(error).__name__}: {str(error)[:3000]}{spots}"
