"""A status for people: a line for each thing that is known, and none for what is not."""

import pytest

from agentctl.cli import status_text
from agentctl.core import text

NOW = 1_800_000_000.0
EMPTY = {
    "name": "robin", "phase": "stopped", "well": False, "because": "stopped by a human", "problems": [], "next": [],
    "generation": None, "generation_status": "", "commit": "", "branch": "", "last_known_good": None, "golden": None,
    "launch_id": "", "started_at": None, "stopped_at": None, "ready_at": None, "last_heartbeat_at": None,
    "heartbeat_limit_seconds": None, "heartbeats": 0, "last_incident": None, "over_budget": {},
    "held": None, "head": None,
    "agent": {"alive": False, "pid": None, "phase": "", "container": "", "image": ""},
    "watchdog": {"running": False},
}  # fmt: skip


def lines(**known):
    agent = {**EMPTY["agent"], **known.pop("agent", {})}
    return status_text.render({**EMPTY, **known, "agent": agent}, NOW).split("\n")


def line(label, **known):
    """Return the one line with this label, '' if there is none."""
    found = [text for text in lines(**known) if text.startswith(f"  {label} ")]
    assert len(found) <= 1, found
    return found[0][status_text.LABEL_WIDTH :] if found else ""


def test_of_what_is_not_known_nothing_is_said():
    assert lines() == ["robin is NOT well: stopped by a human"]


@pytest.mark.parametrize(
    ("known", "headline"),
    [
        ({"well": True, "phase": "steady"}, "robin is well: steady"),
        ({"phase": "steady", "because": "no heartbeat"}, "robin is NOT well: steady: no heartbeat"),
        ({"phase": "halted", "because": "halted until a human acts"}, "robin is NOT well: halted until a human acts"),
    ],
)
def test_the_first_line_says_whether_it_is_well(known, headline):
    assert lines(**known)[0] == headline


GENERATION = {"generation": 4, "generation_status": "good", "commit": "c" * 40, "branch": "main"}
RUNS = {"agent": {"alive": True, "pid": 7, "phase": "working"}, "started_at": NOW - 90, "launch_id": "L1"}
INCIDENT = {"at": NOW - 300, "trigger": "crash", "from": 6, "to": 5, "outcome": "recovered", "seconds": 2.3}


HELD = {"generation": 6, "reason": "its tree was condemned", "until": None,
        "hint": "'agentctl bless 6' if it is good after all"}  # fmt: skip


def test_until_when_a_candidate_is_held():
    assert f"generation 6 until {text.local(NOW + 60)}: its" in line("not run", held={**HELD, "until": NOW + 60})


@pytest.mark.parametrize(
    ("label", "known", "text"),
    [
        ("in place", GENERATION, "generation 4 (good), commit cccccccccccc on main"),
        ("running", {**GENERATION, **RUNS}, "generation 4 (good), commit cccccccccccc on main"),
        ("container", {"agent": {"container": "a" * 64, "image": "sha256:" + "b" * 64}},
         "aaaaaaaaaaaa of image bbbbbbbbbbbb"),
        ("heartbeat", RUNS, "none yet"),
        ("heartbeat", {**RUNS, "last_heartbeat_at": NOW - 4, "heartbeat_limit_seconds": 60.0, "heartbeats": 9},
         "4s ago (limit 1m), 9 so far, working"),
        ("heartbeat", {"last_heartbeat_at": NOW - 4, "heartbeats": 9}, "4s ago"),
        ("watchdog", {"watchdog": {"running": True, "at": None}}, "has not looked yet"),
        ("watchdog", {"watchdog": {"running": True, "at": NOW - 2, "state": "late", "reason": "silent",
                                   "offline_in_seconds": 65.0}}, "late: silent, looked 2s ago; offline in 1m05s"),
        ("watchdog", {"watchdog": {"running": True, "at": NOW - 2, "state": "up", "reason": "",
                                   "offline_in_seconds": 65.0}}, "up, looked 2s ago"),
        ("good", {"last_known_good": 3, "golden": 1}, "last known good: generation 3; golden: 1"),
        ("good", {"golden": 1}, ""),
        ("incident", {"last_incident": INCIDENT}, "5m ago: crash, 6 -> 5: recovered in 2.3s (agentctl why)"),
        ("incident", {"last_incident": {**INCIDENT, "to": 6, "outcome": None}},
         "5m ago: crash, 6 again: not over yet (agentctl why)"),
        ("incident", {"last_incident": {**INCIDENT, "to": None, "outcome": "halted"}},
         "5m ago: crash: halted (agentctl why)"),
        ("changed", {**GENERATION, **RUNS, "head": "d" * 40},
         "the code is at commit dddddddddddd by now: no generation yet, its"),
        ("changed", {**GENERATION, **RUNS, "head": "c" * 40}, ""),
        ("changed", {**GENERATION, "head": "d" * 40}, ""),
        ("not run", {"held": HELD}, "generation 6: its tree was condemned; 'agentctl bless 6' if it is"),
        ("not run", {"held": {**HELD, "until": NOW - 1}},
         "generation 6: its tree was condemned; 'agentctl bless 6' if it is"),
        ("budget", {"over_budget": {"quarantine": "2 over", "snapshots": "3 over"}},
         "quarantine: 2 over; snapshots: 3 over (agentctl prune)"),
    ],
)  # fmt: skip
def test_each_thing_has_its_line(label, known, text):
    assert line(label, **known) == text


def test_since_when_it_runs_or_does_not():
    running = line("since", **RUNS)
    assert running.endswith("(1m30s ago), process 7, launch L1")
    assert line("since", stopped_at=NOW - 3600).startswith("stopped ")
    assert line("since", stopped_at=NOW - 3600).endswith("(1h ago)")


def test_problems_come_first_and_what_comes_next_is_said_in_order():
    problems = [{"message": "the ledger is damaged", "hint": "look"}, {"message": "no disk", "hint": ""}]
    found = lines(problems=problems, next=["first this", "then that"], last_known_good=3)
    assert [text.split()[0] for text in found[1:]] == ["problem", "hint", "problem", "good", "next", "then"]


def test_a_long_line_is_broken_and_stays_in_its_column():
    found = lines(next=["word " * 40])
    assert max(map(len, found)) <= 80 and all(text.startswith(" " * 12) for text in found[2:])
