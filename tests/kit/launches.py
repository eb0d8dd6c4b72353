"""Launches on paper: what the runner writes when one is seen well, fails or is stopped, and what only time makes.

For a test that wants a past and no processes: `launch.begin` wrote the beginning, and these write the rest.
"""

from __future__ import annotations

import time

from agentctl.ledger import models, writers
from agentctl.ledger.database import Ledger


def see_well(ledger: Ledger, launch_id: str, at: float | None = None) -> float:
    """Make a launch ready and have it beat for the first time; return when."""
    at = time.time() if at is None else at
    writers.set_ready(ledger, launch_id, at)
    writers.set_first_beat(ledger, launch_id, at)
    return at


def fail(ledger: Ledger, launch_id: str, reason: str = "exit status 1") -> None:
    """End a launch as one that crashed."""
    writers.end_launch(ledger, launch_id, models.FAILED, at=time.time(), trigger="crash", reason=reason, exit_status=1)


def stop(ledger: Ledger, launch_id: str) -> None:
    """End a launch as one that a person stopped."""
    writers.end_launch(ledger, launch_id, models.STOPPED, at=time.time(), trigger="stop", reason="stopped")


def set_boot_back(ledger: Ledger, launch_id: str) -> None:
    """Have a launch be of another boot: by hand, as every writer is told the boot it runs in."""
    ledger.update("launches", {"id": launch_id}, boot_id="another boot")


def cut_off(ledger: Ledger, launch_id: str) -> None:
    """Leave a launch as a machine that went down does: by hand, as no writer takes an end back."""
    set_boot_back(ledger, launch_id)
    ledger.update("launches", {"id": launch_id}, end=models.RUNNING, ended_at=None)


def shift(ledger: Ledger, seconds: float, *instants: str) -> None:
    """Move instants of all launches: by hand, as only a clock does that."""
    moved = ", ".join(f"{name} = {name} + :seconds" for name in instants)
    ledger.db.execute(f"UPDATE launches SET {moved}", {"seconds": seconds})
