"""The time before a launch, in which code and state are kept: it is ours, and not the agent's to become ready in.

The manager is asked for more time as long as it takes. It asks from a timer's signal: a thread would make every fork
of ours a risk.
"""

from __future__ import annotations

import _signal as signal  # `signal` costs an enum import
import time

from ..host.sd_notify import Notifier

PATIENCE_SECONDS = 300.0  # a single call to a slow disk takes so long, and no signal is handled meanwhile
LONGEST_PAUSE_SECONDS = 5.0
SHORTEST_PAUSE_SECONDS = 0.05


class Preparation:
    """While it is entered, the manager's limit does not run out; a short one costs no message at all."""

    def __init__(self, notifier: Notifier, limit_seconds: float) -> None:
        self.notifier = notifier
        self.every_seconds = max(SHORTEST_PAUSE_SECONDS, min(limit_seconds / 4, LONGEST_PAUSE_SECONDS))

    def __enter__(self) -> Preparation:
        self.began = time.monotonic()
        signal.signal(signal.SIGALRM, lambda *_: self._ask())
        signal.setitimer(signal.ITIMER_REAL, self.every_seconds, self.every_seconds)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _ask(self) -> None:
        took = time.monotonic() - self.began
        self.notifier.lend(
            int(PATIENCE_SECONDS * 1e6), f"preparing the launch: keeping code and state, {took:.0f}s so far"
        )
