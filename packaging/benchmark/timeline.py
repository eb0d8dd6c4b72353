"""Where the time of one recovery goes: instants from systemd, the ledger, the journal and the agent, in order."""

import json
import time

from contenders import run

UNIT_TIMES = ("ActiveExitTimestampMonotonic", "InactiveEnterTimestampMonotonic", "ExecMainStartTimestampMonotonic",
              "ExecMainExitTimestampMonotonic")  # fmt: skip


def of_floor(floor, end, ready):
    """Return [(what ended here, CLOCK_MONOTONIC)] for one round of the shell script."""
    unit, script = unit_times("floor.service"), unit_times("floor-rollback.service")
    return [
        ("the agent's last word", end.at),
        ("sh runner ended, systemd knows", unit["ActiveExitTimestampMonotonic"]),
        ("unit failed, no process left", unit["InactiveEnterTimestampMonotonic"]),
        ("script started", script["ExecMainStartTimestampMonotonic"]),
        ("script ended (git checkout -f)", script["ExecMainExitTimestampMonotonic"]),
        ("sh runner started", unit["ExecMainStartTimestampMonotonic"]),
        ("agent's first line (tmux, python)", started(floor, ready)),
        ("READY=1", ready.at),
    ]


def of_ours(ours, end, ready):
    """Return the same for one round of agentctl, with the recovery process's steps."""
    to_monotonic = time.monotonic() - time.time()
    unit, script = unit_times(ours.unit), unit_times(f"{ours.name}-rollback.service")
    incident = ours.last_incident()
    attempt = ours.query("SELECT * FROM attempts WHERE incident=? ORDER BY number DESC LIMIT 1", incident["id"])[0]
    steps = ours.query("SELECT * FROM steps WHERE incident=? AND attempt=? ORDER BY started_at, rowid", incident["id"],
                       attempt["number"])  # fmt: skip
    failed = ours.query("SELECT * FROM launches WHERE id=?", incident["launch"])[0]
    launch = ours.query("SELECT * FROM launches ORDER BY started_at DESC, rowid DESC LIMIT 1")[0]
    journal = journal_times(ours.unit)
    marks = [
        ("the agent's last word", end.at),
        ("runner knows how it ended (pidfd, tmux asked)", failed["ended_at"] + to_monotonic),
        ("tmux ended, evidence and end recorded", find(journal, " ended: ", end.at, to_monotonic)),
        ("runner ended, systemd knows", unit["ActiveExitTimestampMonotonic"]),
        ("unit failed, no process left", unit["InactiveEnterTimestampMonotonic"]),
        ("recovery process started", script["ExecMainStartTimestampMonotonic"]),
        ("decided", attempt["at"] + to_monotonic),
        *((f"step: {step['name']}", step["ended_at"] + to_monotonic) for step in steps),
        ("intent closed, recovery process ended", script["ExecMainExitTimestampMonotonic"]),
        ("runner started", unit["ExecMainStartTimestampMonotonic"]),
        ("try spent", launch["started_at"] + to_monotonic),
        ("agent's first line (sockets, tmux, python)", started(ours, ready)),
        ("READY=1", ready.at),
    ]
    return [mark for mark in marks if mark[1] is not None]


def started(contender, ready):
    return next(e.at for e in contender.log.events() if e.word == "start" and e.pid == ready.pid)


def unit_times(unit):
    shown = run("systemctl", "show", unit, *(f"--property={name}" for name in UNIT_TIMES)).stdout
    pairs = (line.split("=", 1) for line in shown.splitlines())
    return {name: int(value) / 1e6 for name, value in pairs if name in UNIT_TIMES}


def journal_times(unit):
    said = run("journalctl", "--sync", check=False)
    said = run("journalctl", "-o", "json", "-n", "60", f"_SYSTEMD_UNIT={unit}").stdout
    lines = [json.loads(line) for line in said.splitlines()]
    return [(int(line.get("_SOURCE_REALTIME_TIMESTAMP", line["__REALTIME_TIMESTAMP"])) / 1e6, str(line["MESSAGE"]))
            for line in lines]  # fmt: skip


def find(journal, text, after, to_monotonic):
    """Return when a line with that text was sent, or None: only a nicety is lost then."""
    return next((at + to_monotonic for at, message in journal if text in message and at + to_monotonic >= after), None)
