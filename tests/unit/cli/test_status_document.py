"""`agentctl status`: the phases, is it well, what comes next, and that it prints what it can."""

import copy

import pytest

from agentctl.cli import status_document, status_text
from agentctl.cli.status_facts import StatusFacts
from agentctl.config import toml_file
from agentctl.ledger import models
from kit import rows

NOW = 1_800_000_000.0


def generation(number, status="good", **row):
    known = {"commit_id": "c" * 40, "branch": "main", "vault_commit": "d" * 40}
    blessed = NOW - 1000 + number if status == "good" else None
    return rows.row("generations", number=number, status=status, blessed_at=blessed, **{**known, **row})


def launch(number=5, **row):
    known = {"id": "L1", "generation": number, "started_at": NOW - 100, "ready_at": NOW - 90}
    return rows.row("launches", **{**known, **row})


def settings():
    document = {"agent": {"code": "/srv/agent", "command": ["python3", "agent.py"]}}
    return toml_file.check(document)


def facts(**known):
    """A steady agent on generation 5, as it is in all good times."""
    good = {
        "config": settings(),
        "has_ledger": True,
        "generations": [generation(4), generation(5)],
        "launch": launch(),
        "live": {"launch_id": "L1", "pid": 42, "last_heartbeat_at": NOW - 4, "heartbeats": 20},
        "is_runner_alive": True,
        "is_agent_alive": True,
        "is_locked": True,
    }
    return StatusFacts("agent", NOW, **{**good, **known})


def on_trial(**row):
    return [generation(4), generation(5, "candidate", tries_left=1, **row)]


DOWN = {"is_runner_alive": False, "is_agent_alive": False, "is_locked": False}
ENDED = launch(end="stopped", ended_at=NOW - 50)
JUDGED_BY_PROCESS = {"launch_id": "L1", "judged_by": "process", "last_heartbeat_at": NOW - 1, "heartbeats": 0}
WAITS = {"launch_id": "L1", "waits_for": "READY=1 from the agent"}
INTENT = rows.row("attempts", incident="I", number=1, target=4, rung="last known good", is_open=1)
CRASHED = launch(end=models.FAILED, ended_at=NOW - 1, trigger="crash", reason="exit status 1")


@pytest.mark.parametrize(
    ("known", "phase", "is_well"),
    [
        ({}, "steady", True),
        ({"generations": on_trial()}, "probation", True),
        ({"launch": launch(ready_at=None)}, "starting", False),
        ({"launch": ENDED, **DOWN}, "stopped", False),
        ({"launch": ENDED, **DOWN, "is_locked": True}, "starting", False),
        ({"launch": CRASHED, **DOWN, "intent": INTENT}, "rolling-back", False),
        ({"launch": CRASHED, **DOWN, "is_rolling_back": True}, "rolling-back", False),
        ({"launch": CRASHED, **DOWN, "halted": "nothing left"}, "halted", False),
        ({"launch": CRASHED, **DOWN}, "stopped", False),
        ({"paused_until": NOW + 60}, "paused", False),
        ({"paused_until": NOW - 1}, "steady", True),
        ({"launch": launch(), **DOWN}, "stopped", False),  # the runner was killed
        ({"live": {"launch_id": "L0", "pid": 42}, "is_locked": True}, "starting", False),
        ({"is_agent_alive": False}, "steady", False),
        ({"live": {"launch_id": "L1", "last_heartbeat_at": NOW - 119}}, "steady", True),
        ({"live": {"launch_id": "L1", "last_heartbeat_at": NOW - 121}}, "steady", False),
        (
            {"live": {"launch_id": "L1", "last_heartbeat_at": NOW - 600, "agent_phase": "waiting"}},
            "steady",
            True,
        ),
        ({"live": {"launch_id": "L1"}}, "steady", True),  # ready a moment ago, no beat yet
        ({"launch": None, "generations": [], **DOWN}, "stopped", False),
        ({"config": None}, "steady", True),
        ({"has_ledger": False, "launch": None, "generations": []}, "starting", False),
    ],
)
def test_phase(known, phase, is_well):
    document = status_document.compose(facts(**known))
    assert (document["phase"], document["well"]) == (phase, is_well)
    assert document["phase"] in status_document.PHASES
    assert document["well"] or document["because"]


def ended(number=5, end=models.FAILED, **row):
    return launch(
        number, id="L0", end=end, ended_at=NOW - 110, **{"trigger": "crash", "reason": "exit status 1", **row}
    )


@pytest.mark.parametrize(
    ("before", "status", "because"),
    [
        ([], "candidate", ""),
        ([ended()], "candidate", "it has failed on probation: exit status 1"),
        ([ended(end=models.REBOOTED)], "candidate", ""),
        ([ended(4, models.STOPPED), ended(4)], "candidate", ""),
        ([ended()], "good", ""),  # until it is blessed
    ],
)
def test_a_candidate_that_has_failed_is_not_well(before, status, because):
    known = facts(generations=[generation(4), generation(5, status, tries_left=1)], trial=[launch(), *before])
    document = status_document.compose(known)
    assert (document["because"], document["well"]) == (because, not because)


PUT_IN = rows.row("incidents", id="i", decision="rollback: good stays", generation_from=6, generation_to=5,
                  reason="its tree was condemned as generation 6: it crashed")  # fmt: skip


@pytest.mark.parametrize(
    ("refused", "more", "hint"),
    [
        (generation(6, "condemned"), {}, "'agentctl bless 6' if it is good after all"),
        (generation(6, "candidate"), {}, "'agentctl rollback undo --yes' puts it in place and launches it at once"),
        (generation(6), {}, None),  # blessed since
        (generation(6, "candidate"), {"launch": launch(6)}, None),  # it runs
        (generation(6, "condemned"), {"incident": PUT_IN.replace(decision="rollback: last known good")}, None),
        (generation(6, "condemned"), {"incident": None}, None),
    ],
)
def test_what_was_put_in_and_not_launched_is_named_with_its_command(refused, more, hint):
    known = facts(**{"generations": [generation(4), generation(5), refused], "incident": PUT_IN, **more})
    held = status_document.compose(known)["held"]
    assert (held and held["hint"]) == hint
    assert held is None or (held["generation"], held["reason"]) == (6, PUT_IN.reason)


def test_until_when_it_is_held_is_said():
    moves = [rows.row("attempts", at=NOW - ago, rung="last known good", target=5) for ago in (10, 20, 30, 40)]
    known = facts(generations=[generation(5), generation(6, "candidate")], incident=PUT_IN, recent=moves)
    assert status_document.compose(known)["held"]["until"] == NOW - 40 + 1800
    assert status_document.compose(facts(head="e" * 40))["head"] == "e" * 40


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, "a failure now: restart (3 of 3 left in 30m), then generation 5 put back whole"),
        (
            {"recent": [rows.row("attempts", at=NOW - 9, rung="restart", target=5)]},
            "a failure now: restart (2 of 3 left in 30m), then",
        ),
        ({"generations": on_trial()}, "on probation: good in about 30s if it keeps beating; 1 try"),
        (
            {"generations": on_trial()},
            "a failure now: restart (1 try left), then generation 4 (last known good)",
        ),
        (
            {"generations": [generation(4), generation(5, "candidate")]},
            "a failure now: generation 4 (last known good)",
        ),
        ({"generations": [generation(5, "candidate")]}, "a failure now: halted until a human acts"),
        (
            {
                "generations": on_trial(),
                "launch": launch(ready_at=NOW - 500),
                "live": {"launch_id": "L1", "heartbeats": 3, "last_heartbeat_at": NOW - 1},
            },
            "good after 2 more heartbeats",
        ),
        ({"launch": launch(ready_at=None, started_at=NOW - 30)}, "it has 1m left to become ready"),
        (
            {"generations": on_trial(), "launch": launch(ready_at=NOW - 30), "live": JUDGED_BY_PROCESS},
            "good in about 1m30s if it stays alive",
        ),
        (
            {"generations": on_trial(), "launch": launch(ready_at=NOW - 500), "live": JUDGED_BY_PROCESS},
            "it has lasted; it is being blessed",
        ),
        (
            {"generations": on_trial(), "live": {**JUDGED_BY_PROCESS, "lacks": "output"}},
            "good once it shows what good code shows: output",
        ),
        (
            {"launch": launch(ready_at=None, started_at=NOW - 30), "live": {**WAITS, "helps": "agentctl attach"}},
            "if that never comes: agentctl attach",
        ),
        ({"launch": ENDED, **DOWN}, "agentctl start starts generation 5"),
        ({"intent": INTENT, "step": "switch"}, "to generation 4 (last known good), step 'switch'"),
        ({"halted": "x", **DOWN}, "agentctl why"),
        ({"paused_until": NOW + 9}, "agentctl resume"),
    ],
)  # fmt: skip
def test_what_comes_next(known, sentence):
    assert sentence in " | ".join(status_document.compose(facts(**known))["next"])


def test_the_first_heartbeat_is_known_before_the_live_status_tells_it():
    known = facts(launch=launch(first_beat_at=NOW - 9), live={"launch_id": "L1"})
    assert status_document.compose(known)["last_heartbeat_at"] == NOW - 9


def test_what_is_judged_by_its_process_says_what_cannot_be_seen():
    text = status_text.render(status_document.compose(facts(live=JUDGED_BY_PROCESS)), NOW)
    assert "its process is well, looked 1s ago; it sends no heartbeats, so a" in text


def test_what_is_not_ready_says_what_it_waits_for():
    document = status_document.compose(facts(launch=launch(ready_at=None), live=WAITS))
    assert document["waits_for"] == "READY=1 from the agent"
    assert document["because"] == "starting: it waits for READY=1 from the agent"


def test_the_forecast_does_not_change_the_facts():
    known = facts(generations=on_trial())
    before = copy.deepcopy((known.generations, known.attempts, known.recent))
    status_document.compose(known)
    assert (known.generations, known.attempts, known.recent) == before


def test_text_is_narrow_clean_and_says_first_whether_it_is_well():
    incident = rows.row(
        "incidents",
        id="20270115-000000-abcdef",
        at=NOW - 300,
        trigger="crash",
        reason="boom",
        generation_from=6,
        generation_to=5,
        decision="rollback",
        outcome="recovered",
        ended_at=NOW - 297.7,
    )
    known = facts(incident=incident, generations=on_trial(branch="feature/" + "x" * 90))
    known.add_problem("no \x1b[31mred\x1b[0m\x07 " + "/long/path" * 20, "look \x9b2J there")
    lines = status_text.render(status_document.compose(known), NOW).split("\n")
    assert lines[0] == "agent is well: probation"
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert "  incident  5m ago: crash, 6 -> 5: recovered in 2.3s (agentctl why)" in lines


def test_every_phase_renders_within_80_columns():
    for known in (
        {},
        {"launch": ENDED, **DOWN},
        {"halted": "why " * 60, **DOWN},
        {"intent": INTENT},
    ):
        text = status_text.render(status_document.compose(facts(**known)), NOW)
        assert max(map(len, text.split("\n"))) <= 80
