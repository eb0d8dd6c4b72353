"""How a launch ended, and what the end of the agent's process means."""

from __future__ import annotations

import _signal as signal  # `signal` imports enum, 5 ms on the way to a running agent
import time

from ..ledger import models
from ..recovery import policy

NAMED = (
    "SIGABRT", "SIGALRM", "SIGBUS", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGKILL", "SIGPIPE", "SIGQUIT",
    "SIGSEGV", "SIGSYS", "SIGTERM", "SIGTRAP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGXFSZ",
)  # fmt: skip
SIGNAL_NAMES = {getattr(signal, name): name for name in NAMED}


class LaunchResult:
    """How a launch ended, with everything only the runner knows."""

    def __init__(
        self, end: str, trigger: str, reason: str, *, exit_status: int | None = None, exit_signal: int | None = None
    ) -> None:
        self.end, self.trigger, self.reason = end, trigger, reason
        self.exit_status, self.exit_signal = exit_status, exit_signal
        self.at = time.time()
        self.by_agent = False
        self.ready_at: float | None = None
        self.first_beat_at: float | None = None
        self.last_beat_at: float | None = None
        self.beats = 0
        self.phase, self.progress, self.life = "", None, ""
        self.notes: list[str] = []
        self.processes: list[dict] = []  # of a wedged agent, while it was there
        self.lines: list[str] = []

    def facts(self) -> dict:
        """Everything but the lines, for the evidence file."""
        return {name: value for name, value in vars(self).items() if name != "lines"}


def judge_exit(status: int | None, number: int | None, *, is_ready: bool, lived_seconds: float) -> LaunchResult:
    """Tell what the end of the agent's process means, by its exit status or the signal that killed it."""
    when = f"after {lived_seconds:.1f}s" + ("" if is_ready else ", before it was ready")
    if status in policy.EXIT_RESTART and is_ready:
        return LaunchResult(models.ASKED, "asked", f"exit status {status} unasked: restart me", exit_status=status)
    trigger = "crash" if is_ready else "crash-at-start"
    if number:
        name = SIGNAL_NAMES.get(number, f"signal {number}")
        return LaunchResult(models.FAILED, trigger, f"killed by {name} {when}", exit_signal=number)
    if status is None:
        return LaunchResult(models.FAILED, trigger, f"ended {when}; its status could not be read")
    return LaunchResult(models.FAILED, trigger, f"exit status {status} {when}", exit_status=status)
