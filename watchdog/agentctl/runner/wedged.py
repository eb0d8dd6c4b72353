"""Deal with an agent that is busy and gets nowhere, mildest step first, before systemd's limit ends it.

Evidence while it is there to be seen, the key that ends its turn, a message that tells it why, SIGTERM so that it can
save. Each step once for one silence; any progress ends the matter.
"""

from __future__ import annotations

import os
import time

from ..core.errors import CommandFailed
from ..host import procfs
from ..ledger import models
from . import resumption
from .launch_result import LaunchResult

LONGEST_COMMAND = 200


class Wedge:
    """The steps of one launch against its wedges."""

    def __init__(self, context, session) -> None:
        self.context, self.session = context, session
        self.silence: float | None = None  # the last sign of life of the silence that is dealt with
        self.taken: list[str] = []
        self.interrupts = 0

    def look(self) -> float:
        """Take what is due while it is busy without progress; return in how many seconds the next step is."""
        judge = self.session.life.judge
        if self.silence != judge.last_counted_at:
            self.silence, self.taken = judge.last_counted_at, []
        silent = time.monotonic() - (judge.last_counted_at or judge.ready_at or time.monotonic())
        while True:
            step, share = next_step(self.taken, may_interrupt=self._may_interrupt())
            left = share * judge.timeout_seconds - silent
            if not step or left > 0:
                return max(left, 0.05)
            self.taken.append(step)
            getattr(self, f"_{step}")(silent)

    def is_under_way(self) -> bool:
        """Tell whether the present silence is a wedge: busy, no progress, and steps were taken."""
        return bool(self.taken) and self.silence == self.session.life.judge.last_counted_at

    def ended(self, ending: LaunchResult) -> LaunchResult:
        """Return how it ended, with the wedge as the reason where SIGTERM was ours."""
        if not self.is_under_way() or TERMINATE not in self.taken:
            return ending
        return LaunchResult(
            models.FAILED,
            "wedged",
            f"{self.reason()}; SIGTERM ended it",
            exit_status=ending.exit_status,
            exit_signal=ending.exit_signal,
        )

    def reason(self) -> str:
        """Say what is the matter."""
        judge = self.session.life.judge
        silent = time.monotonic() - (judge.last_counted_at or judge.ready_at or time.monotonic())
        done = f"; {self.session.life.notes[-1]}" if self.session.life.notes and INTERRUPT in self.taken else ""
        return f"busy without progress for {silent:.1f}s (limit {judge.timeout_seconds:g}s){done}"

    # -- the steps --------------------------------------------------------------------------------------------

    def _may_interrupt(self) -> bool:
        return bool(self.context.config.heartbeat.interrupt) and self.interrupts < MOST_INTERRUPTS

    def _evidence(self, silent: float) -> None:
        """Keep what runs and what it waits for, while it can still be seen."""
        pids = procfs.with_variable("AGENT_LAUNCH_ID", self.session.launch.id)
        self.session.processes = [describe(pid) for pid in pids]
        self.session.journal.warning(f"agentctl: busy without progress for {silent:.0f}s, {len(pids)} processes")

    def _interrupt(self, silent: float) -> None:
        """Press the key that ends a turn, and say why it was pressed."""
        key = self.context.config.heartbeat.interrupt
        self.interrupts += 1
        self.session.life.notes.append(f"busy without progress: {key} was pressed")
        self.session.journal.warning(f"agentctl: busy without progress; pressing {key}")
        try:
            self.session.tmux.press(self.session.pane_name, key)
        except CommandFailed as error:
            self.session.journal.warning(f"agentctl: {key} could not be pressed: {error.message}")
            return
        if self.context.config.resume.message != "none":
            message = resumption.compose_interrupt(silent, key)
            self.session.loop.set_timer(
                "message", self.context.config.resume.after, lambda: resumption.type_message(self.session, message)
            )

    def _terminate(self, _silent: float) -> None:
        """Ask it to save and end; what does not, is killed when the limit is reached."""
        self.session.journal.warning("agentctl: busy without progress; SIGTERM")
        self.session.loop.cancel("message")
        self.session.ask_to_end()


def describe(pid: int) -> dict:
    """Return what /proc tells of one process: what it is, its state, what it waits for, the CPU time it had."""
    fields = procfs.stat_fields(pid)
    ticks = sum(int(field) for field in fields[11:13]) if len(fields) > 12 else 0
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii", errors="replace") as file:
            waits_in = file.read()
    except OSError:
        waits_in = ""
    return {
        "pid": pid,
        "command": " ".join(procfs.words(pid)).strip()[:LONGEST_COMMAND],
        "state": fields[0] if fields else "",
        "waits_in": waits_in,
        "cpu_seconds": round(ticks / os.sysconf("SC_CLK_TCK"), 2),
    }


# -- wedge -----------------------------------------------------------------------------------------
# What is done, and when, to an agent that is busy and gets nowhere: one step after the other, mildest first. Pure.
# The last two, killing it and going back, are not here: systemd's limit ends it, and the recovery process decides.


EVIDENCE, INTERRUPT, TERMINATE = "evidence", "interrupt", "terminate"
STEPS = ((EVIDENCE, 0.5), (INTERRUPT, 0.6), (TERMINATE, 0.9))  # at these shares of heartbeat.timeout
MOST_INTERRUPTS = 3  # in one launch: an agent that is wedged again and again is not helped by a key


def next_step(taken: list[str], *, may_interrupt: bool) -> tuple[str, float]:
    """Return the next step of one silence and the share of the limit at which it is due; ('', 1.0) after the last."""
    for step, share in STEPS:
        if step not in taken and (step != INTERRUPT or may_interrupt):
            return step, share
    return "", 1.0
