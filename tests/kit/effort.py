"""How much of the long tests one run does: a gate does a share of each fault family, the nights do all of it.

AGENTCTL_SEED=TEXT chooses the share: the same seed, the same points. AGENTCTL_NIGHTLY=N/M is night N of M; the nights
from 1 to M together try every point once. Tests ask here, and read neither variable themselves.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
RUNS_WITH = {"house": "unit"}  # so does `packaging/test`
SEED = os.environ.get("AGENTCTL_SEED") or "0"


def read_night(text: str) -> tuple[int, int] | None:
    """Read N/M as (N, M), '' as None; raise ValueError for what is no night."""
    if not text:
        return None
    number, _, count = text.partition("/")
    night = int(number), int(count or 1)
    if not 1 <= night[0] <= night[1]:
        raise ValueError(f"AGENTCTL_NIGHTLY={text}: a night is N/M, with N from 1 to M")
    return night


NIGHT = read_night(os.environ.get("AGENTCTL_NIGHTLY", ""))


def part_of(nodeid: str) -> str:
    """Name the part of a test, `unit` or another: the folder below tests/, or the part that this one runs with."""
    folder = nodeid.split("/")[1] if nodeid.startswith("tests/") else ""
    return RUNS_WITH.get(folder, folder)


def told() -> str:
    """Say in one line what this run does, and how to have it again."""
    what = f"night {NIGHT[0]} of {NIGHT[1]}" if NIGHT else "a share of each fault family"
    return f"{what}, seed {SEED} (AGENTCTL_SEED={SEED} chooses the same)"


def pick(gate: T, night: T) -> T:
    """Return the one value in a gate, the other at night."""
    return night if NIGHT else gate


def dice(*names: object) -> random.Random:
    """Return a random generator for what is named: its own for every name, seed and night."""
    night = f" night {NIGHT[0]}/{NIGHT[1]}" if NIGHT else ""
    return random.Random(f"{SEED} {' '.join(map(str, names))}{night}")


def choose(cases: Sequence[T], count: int, *names: object) -> list[T]:
    """Return `count` of the cases in their order, chosen by the seed; at night all (each falls into one night)."""
    if NIGHT or count >= len(cases):
        return list(cases)
    chosen = sorted(dice(*names).sample(range(len(cases)), count))
    return [cases[n] for n in chosen]


def share(cases: Sequence[T], count: int, *names: object) -> list[T]:
    """Return what this run tries of a family inside one test: `count` in a gate, this night's part at night."""
    first, step = stride()
    return list(cases[first::step]) if NIGHT else choose(cases, count, *names)


def points(gate: int, all_nights: int) -> int:
    """Return how many points of a family to try: the gate's number, or this night's part of all, rounded up."""
    return -(-all_nights // NIGHT[1]) if NIGHT else gate


def stride() -> tuple[int, int]:
    """Return (first, step) of this night's part of a count from 0: night 2 of 5 does 1, 6, 11 and so on."""
    return (NIGHT[0] - 1, NIGHT[1]) if NIGHT else (0, 1)


def is_tonight(name: str) -> bool:
    """Tell whether what is named falls into this night."""
    return NIGHT is None or zlib.crc32(name.encode()) % NIGHT[1] == NIGHT[0] - 1


def some_lines(lines: int, count: int, *names: object) -> list[int]:
    """Return about `count` of the line numbers from 1 on, one in each part of the run, chosen by the seed."""
    chance = dice(*names)
    return sorted({1 + int((n + chance.random()) * max(1, lines - 1) / count) for n in range(count)})


def lines(total: int, gate: int, *names: object) -> list[int]:
    """Return the line numbers to die at: some in a gate, at night this night's part of all of them."""
    first, step = stride()
    return list(range(1 + first, total, step)) if NIGHT else some_lines(total, gate, *names)
