"""The story of the example agent, and what every story of the demo has: what is said, in order, and its times.

It refuses to guess: what it did not see it does not print.
"""

import sys
import textwrap
import time

from stage import AGENTCTL, LAST, StoryFailed
from voices import HOLD_SECONDS, Events, instant

LIMIT_SECONDS = 120
DULL = ("Consumed ", "Deactivated successfully", "Main process exited", "Starting ", "Stopped ")


class Story:
    """Shows what happens until the task is done, and remembers what the ledger does not know."""

    def __init__(self, stage):
        self.stage, self.began_at = stage, time.time()
        self.fired_at = self.finished_at = None

    def play(self):
        """Set the stage, follow what happens, show the times."""
        self.stage.set_up()
        self.follow(Events(self.stage.start()))
        show_timeline(self.timeline())

    def follow(self, events):
        print(f"\n{'second':>7}  {'who':<9} what", flush=True)
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.finished_at is None or not self.incident():
            if self.finished_at and time.time() > self.finished_at + 10:
                raise StoryFailed("the task was finished, and nothing had to be rolled back")
            if any(process.poll() is not None for process in self.stage.processes):
                self.show(events, 0)
                raise StoryFailed("the supervisor has given up")
            if time.monotonic() > deadline:
                raise StoryFailed(f"the task was not finished within {LIMIT_SECONDS} s")
            self.show(events)
            time.sleep(0.05)
        self.show(events, 0)

    def show(self, events, hold_seconds=HOLD_SECONDS):
        for event in events.due(hold_seconds):
            self.take(*event)

    def take(self, at, who, what):
        if who in ("systemd", "watchdog") and ("Watchdog timeout" in what or "no sign of life" in what):
            self.fired_at = self.fired_at or at
        if who == "agent" and what.startswith(f"{LAST}: "):
            self.finished_at = at
        if what and not (who == "systemd" and any(dull in what for dull in DULL)):
            indent = " " * 19
            text = textwrap.wrap(what, 80, initial_indent=indent, subsequent_indent=indent) or [""]
            print(f"{at - self.began_at:7.2f}  {who:<9} " + "\n".join(text)[19:], flush=True)

    def incident(self):
        """Return the incident of the hang once it is over."""
        found = [i for i in self.stage.ask("incidents") if i["trigger"] == "watchdog"]
        return found[0] if found and found[0]["outcome"] == "recovered" else None

    def timeline(self):
        """Return (instant, what) of each part; an instant is None where nobody saw it."""
        incident, status = self.incident(), self.stage.ask("status")
        attempt, steps = incident["attempts"][-1], {s["name"]: s for s in incident["steps"]}
        relaunch = status["started_at"] if status["generation"] == incident["to"] else None
        return [
            (incident["evidence"]["last_heartbeat_at"], "the agent hangs (its last heartbeat)"),
            (self.fired_at, "the watchdog fires"),
            (incident["at"], "the stack is taken, the agent has ended"),
            (
                attempt["at"],
                f"decided: generation {incident['from']} -> {incident['to']}, {attempt['rung']}",
            ),
            (end(steps["switch"]), "the trees are switched"),
            (max(end(step) for step in steps.values()), "state restored, brief written"),
            (relaunch, f"the agent runs again, generation {incident['to']}"),
            (instant(incident["at"]) + incident["seconds"], "its first heartbeat: recovered"),
            (self.finished_at, "the task is finished"),
        ]


def end(step):
    return instant(step["at"]) + step["seconds"]


def show_timeline(rows, since="hang"):
    print(f"\nThe timeline: seconds since the {since}, and what each part took\n\n{'at':>8} {'took':>8}")
    zero = before = instant(rows[0][0])
    for at, what in rows:
        if at is None:
            print(f"{'not seen':>8} {'':>8}  {what}")
            continue
        seen = instant(at)
        print(f"{seen - zero:8.3f} {seen - before:8.3f}  {what}")
        before = seen


def show_more(stage, incident, is_held):
    for verb in ("status", "why"):
        print(f"\n$ agentctl {verb}\n{stage.agentctl(verb, check=False).rstrip()}")
    print("\nTo look further:\n")
    prefix = f"AGENTCTL_ROOT={stage.env['AGENTCTL_ROOT']} {AGENTCTL} --name {stage.name}"
    if is_held:
        print(f"  alias agentctl='{prefix}'")
    for words, what in (
        ("incidents", "what went wrong so far"),
        ("generations", "every version, and what became of it"),
        (f"diff {incident['to']} {incident['from']}", "what the harmful change was"),
        ("task show", "the task, with what was undone"),
        ("history tail", "the conversation"),
        ("logs -f", "the journal of all its units (with systemd)"),
        ("attach", "the agent's terminal (C-b d leaves it)"),
        ("rollback --dry-run", "what a rollback would do now"),
    ):
        print(f"  agentctl {words:<20} {what}")
    print("\nThe agent of this demo ends now; --hold keeps it." if not is_held else "\nCtrl-C ends it.")
    sys.stdout.flush()
