"""Wait by asking again and again, without keeping a core busy with the question."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
SHORTEST_PAUSE = 0.02


def poll(ask: Callable[[], T], limit_seconds: float) -> tuple[bool, T]:
    """Ask until the answer is true or the time is over; return whether it was in time, and the last answer.

    It pauses as long as an answer takes: a question that starts a program costs half a core at most.
    """
    deadline = time.monotonic() + limit_seconds
    while True:
        asked = time.monotonic()
        answer = ask()
        now = time.monotonic()
        if answer or now > deadline:
            return bool(answer), answer
        time.sleep(max(SHORTEST_PAUSE, now - asked))
