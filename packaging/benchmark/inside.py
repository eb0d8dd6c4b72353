"""The part that runs in the box, as root: set the contenders up, go round them, print what was measured as JSON.

Rounds are interleaved: a noisy second of the machine hits whoever is measured then, not one contender's every round.
"""

import json
import os
import platform
import shutil
import sys
import time
import traceback
from pathlib import Path

import quiet
import timeline
from contenders import HERE, LOGS, USER, Failed, Floor, Ours, Plain, Supervised, run

SMALL, LARGE = 100, 100_000
WATCHDOG_SECONDS = 3
STATE_FILES, STATE_FILE_BYTES = 10_000, 107_374  # 1 GiB


class Bench:
    """All that is measured in one run."""

    def __init__(self, options):
        self.rounds, self.rows = options["rounds"], set(options["rows"])
        self.has_supervisor, self.variant = options["has_supervisor"], options["variant"]
        self.samples, self.timelines, self.failed = {}, {}, {}
        self.entries = []  # (what is measured, one round of it, what explains it)

    def run(self):
        prepare_machine()
        self.set_up()
        for number in range(self.rounds):
            order = self.entries if number % 2 == 0 else self.entries[::-1]
            for name, one_round, explain in order:
                self.measure(name, one_round, explain)
            say(f"round {number + 1} of {self.rounds}: " + ", ".join(self.last_of(n) for n, *_ in self.entries))
        self.measure_quiet()
        return {"facts": facts(), "rounds": self.rounds, "samples": self.samples, "timelines": self.timelines,
                "failed": self.failed, "watchdog_seconds": WATCHDOG_SECONDS}  # fmt: skip

    # -- set up ---------------------------------------------------------------------------------------------

    def set_up(self):
        """Make and start whoever the chosen rows need."""
        self.made = {}
        small = self.make({1, 2, 3, 4, 6, 7}, lambda: Ours("small", SMALL))
        floor = self.make({1}, lambda: Floor(SMALL))
        plain = self.make({4}, Plain)
        large = self.make({3}, lambda: Ours("large", LARGE))
        hang = self.make({5}, lambda: Ours("hang", SMALL, timeout=f"{WATCHDOG_SECONDS}s"))
        supervised = self.make({2, 6}, Supervised) if self.has_supervisor else None
        if {1, 2, 3} & self.rows:
            self.add("rollback", small, small.roll_back, timeline.of_ours)
        if self.variant:
            other = self.make(self.rows, lambda: Ours("variant", SMALL, package=self.variant))
            self.add("rollback variant", other, other.roll_back, timeline.of_ours)
            self.add("restart variant", other, other.restart, timeline.of_ours)
        if 1 in self.rows:
            self.add("floor", floor, floor.roll_back, timeline.of_floor)
        if 2 in self.rows and supervised:
            self.add("supervisord", supervised, supervised.crash)
        if 3 in self.rows:
            self.add("rollback large", large, large.roll_back, timeline.of_ours)
        if 4 in self.rows:
            self.add("restart", small, small.restart, timeline.of_ours)
            self.add("plain", plain, plain.crash)
        if 5 in self.rows:
            self.add("hang", hang, hang.hang, timeline.of_ours)

    def make(self, rows, maker):
        if not rows & self.rows:
            return None
        contender = maker()
        say(f"{contender.name}: made")
        contender.start()
        self.made[contender.name] = contender
        return contender

    def add(self, name, contender, one_round, explain=None):
        self.samples[name] = []
        self.entries.append((name, one_round, explain and (lambda *ends: explain(contender, *ends))))

    # -- measure --------------------------------------------------------------------------------------------

    def measure(self, name, one_round, explain):
        """Do one round; a contender that fails once is left out and said to have failed."""
        if name in self.failed:
            return
        try:
            end, ready = one_round()
            self.samples[name].append(ready.at - end.at)
            if explain:
                self.timelines.setdefault(name, []).append(explain(end, ready))
        except (Failed, OSError, LookupError) as error:
            self.failed[name] = str(error)
            tail = run("journalctl", "-n", "40", "--no-pager", "-o", "short-precise", check=False).stdout
            say(f"{name} FAILED: {error}\n{traceback.format_exc()}\n{tail}")

    def last_of(self, name):
        return f"{name} {self.samples[name][-1] * 1000:.0f} ms" if self.samples[name] else f"{name} -"

    def measure_quiet(self):
        if 7 in self.rows:
            self.samples |= {"status": [], "pass": []}
            for _ in range(self.rounds):
                quiet.status("small", self.samples)
        for contender in self.made.values():
            contender.stop()
        if 6 in self.rows:
            both = [self.made[name] for name in ("small", "supervised") if name in self.made]
            self.idle = {contender.name: quiet.idle(contender, self.rounds) for contender in both}
            self.samples["idle"] = self.idle
        if 8 in self.rows:
            self.measure_snapshots()

    def measure_snapshots(self):
        for folder in ("/srv/large", "/srv/.large.agentctl"):
            shutil.rmtree(folder, ignore_errors=True)
        quiet.make_big_state("/srv/big-state", STATE_FILES, STATE_FILE_BYTES)
        self.samples |= {"first snapshot": [], "second snapshot": []}
        for _ in range(self.rounds):
            quiet.snapshot("/srv/big-state", "/srv/big-snapshots", self.samples)


def prepare_machine():
    run("useradd", "--system", "--create-home", "--shell", "/bin/sh", USER)
    LOGS.mkdir()
    shutil.chown(LOGS, USER, USER)
    shutil.copytree(HERE / "floor", "/opt/floor")
    for unit in Path("/opt/floor").glob("*.service"):
        shutil.copy(unit, "/etc/systemd/system")
    run("systemctl", "daemon-reload")


def facts():
    """What a reader needs to compare with his own machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "systemd": run("systemctl", "--version").stdout.split()[1],
        "tmux": run("tmux", "-V").stdout.split()[1],
        "git": run("git", "--version").stdout.split()[2],
        "python": platform.python_version(),
        "supervisor": supervisor_version(),
        "disk": disk_of("/srv"),
    }


def supervisor_version():
    try:
        return run("/opt/supervisor/venv/bin/supervisord", "--version").stdout.strip()
    except OSError:
        return None


def disk_of(path):
    return run("stat", "-f", "-c", "%T", path).stdout.strip()


def say(text):
    print(f"[{time.monotonic() - BEGAN:5.0f} s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    BEGAN = time.monotonic()
    print(json.dumps(Bench(json.loads(sys.argv[1])).run()))
