"""`agentctl why`: the story of an incident from a real ledger, in words, with its evidence."""

import json

import pytest

from ledger_builder import INCIDENT_KEYS, Home, agentctl

ID = "20260101-000000-abcdef"
STACK = ["Traceback (most recent call last):", '  File "agent.py", line 7', "KeyError: 'x'"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path, monkeypatch)
    made.generation(1)
    made.generation(2, "condemned", reason="exit status 1 after 3.0s; no tries left")
    yield made
    made.close()


def crash(home, **row):
    """A whole incident: a candidate crashed, the last good came back, its first heartbeat arrived."""
    home.launch(
        generation=2, end="failed", trigger="crash", reason="exit status 1 after 3.0s", exit_status=1
    )  # fmt: skip
    facts = {
        "launch": "L1",
        "trigger": "crash",
        "exit_class": "KeyError: 'x'",
        "lived_seconds": 3.0,
    }
    facts |= {"ready": True, "last_heartbeat_at": home.now - 101, "heartbeats": 4, "stack": STACK}
    known = {"outcome": "recovered", "ended_at": home.now - 97.7}
    home.incident(evidence={**facts, "folder": "/kept"}, **{**known, **row})
    home.attempt()
    home.step("stop", 0.02)
    home.step("carry over", 0.001, json.dumps({"stayed in quarantine": ["data.bin"]}))
    home.step("repository", 0.3, "{}")
    state = {"snapshot": "000001", "restored": ["config/a.toml"], "replaced": "/kept/replaced-1"}
    home.step("state", 0.2, json.dumps({**state, "history": "mended", "task": "rebuilt"}))


def test_story_of_a_rollback(home):
    crash(home)
    tree = home.root / f".code.agentctl/quarantine/{ID}/tree"
    tree.mkdir(parents=True)
    text = " ".join(agentctl("why").stdout.split())
    for expected in (
        f"Incident {ID}",
        "Generation 2 (commit 02cccccccccc on main) ran since",
        "It crashed: exit status 1 after 3.0s.",
        "How it ended: KeyError: 'x'. It lived 3s. Its last heartbeat (number 4) was at",
        "The stack: Traceback (most recent call last):",
        "1. back to generation 1 (last known good), because: exit status 1 after 3.0s; no tries left.",
        "steps of 1: stop 20ms, carry over 1ms, repository 300ms, state 200ms",
        "Recovered on generation 1: 2.3s from the failure to the first heartbeat, 521ms of them our steps.",
        f"The undone work is on branch rescue/{ID}.",
        "Not carried over, only there: data.bin.",
        "From snapshot 000001: config/a.toml.",
        "The history was damaged; it was mended",
        "The current task was rebuilt.",
        "agentctl diff 1 2 shows what was undone.",
        f"git log main..rescue/{ID}",
        "agentctl rollback undo --force returns to before.",
    ):
        assert expected in text
    assert f"The whole replaced tree: {tree}" in json.loads(agentctl("why", "--json").stdout)["story"]


def test_json_is_the_incident_and_its_story(home):
    crash(home)
    found = json.loads(agentctl("why", "--json").stdout)
    assert found.keys() >= INCIDENT_KEYS | {"story"}
    assert found["at"].endswith("Z") and found["steps"][0]["at"].endswith("Z")
    assert found["evidence"]["last_heartbeat_at"].endswith("Z")
    assert all(isinstance(sentence, str) and sentence for sentence in found["story"])


def test_text_is_narrow_and_obeyed_by_no_terminal(home):
    evil = "\x1b]0;title\x07\x1b[2J" + "wide " * 40 + "\x9b31m\r\x08 \u202egnol"
    home.launch(generation=2, end="failed", trigger="crash", reason=evil)
    home.incident(reason=evil, evidence={"launch": "L1", "last_lines": [evil, "\ttab"], "notes": [evil]})
    home.attempt(reason=evil)
    done = agentctl("why")
    lines = done.stdout.split("\n")
    assert done.returncode == 0, done.stderr
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)
    assert "title" not in done.stdout


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"outcome": "halted", "decision": "halted"}, "Halted: the agent stays down"),
        ({"outcome": "", "ended_at": None}, "It is not over"),
        ({"outcome": "nothing-to-do"}, "Ended without more to do"),
    ],
)
def test_other_ends(home, row, expected):
    crash(home, **row)
    assert expected in agentctl("why").stdout


def test_a_plain_restart_undoes_nothing(home):
    home.launch(generation=1, end="failed", trigger="watchdog", reason="no heartbeat for 61s")
    facts = {"trigger": "watchdog", "reason": "no heartbeat for 61s", "generation_from": 1}
    home.incident(**facts, outcome="recovered", ended_at=home.now)
    home.attempt(rung="restart", target=1)
    text = agentctl("why").stdout
    assert "It went silent: no heartbeat for 61s." in text
    assert "restart generation 1" in text
    assert "rescue/" not in text and "undo" not in text


def test_the_second_move_of_an_incident_has_its_own_branch(home):
    crash(home)
    home.attempt(number=2, rung="restart")
    home.attempt(number=3, rung="older good", at=home.now - 98)
    home.step("repository", 0.1, attempt=3)
    story = json.loads(agentctl("why", "--json").stdout)["story"]
    assert f"The undone work is on branch rescue/{ID}-2." in story
    assert f"git log main..rescue/{ID}-2 shows the undone commits." in story


def test_an_undo_offers_no_second_undo(home):
    home.incident(trigger="request:undo", reason="undo asked for", outcome="recovered", ended_at=home.now)
    home.attempt(rung="undo", target=2)
    text = agentctl("why").stdout
    assert "undo, back to generation 2 as it was" in text and "rollback undo" not in text


def test_prefix_unknown_and_ambiguous(home):
    crash(home)
    home.incident("20260202-000000-123456", at=home.now, outcome="recovered", ended_at=home.now)
    assert ID in agentctl("why", "202601").stdout
    assert "20260202" in agentctl("why").stdout.split("\n")[0]
    unknown = agentctl("why", "2025")
    assert unknown.returncode == 1 and ID in unknown.stderr
    assert "means 2 incidents" in agentctl("why", "2026").stderr


def test_nothing_happened_yet(home):
    assert "there is no incident" in agentctl("why").stdout
    assert json.loads(agentctl("why", "--json").stdout) is None


def test_what_was_undone_is_told_as_the_brief_tells_the_agent(home):
    crash(home)
    change = {"name": "feature/x", "about": "go faster", "worktree": "/w", "snapshot": "000001"}
    with home.ledger.transaction():
        home.ledger.add_evidence(ID, change=change, pending=["finish it"], diffstat=[" a.py | 2 +-", " 1 file changed"])
    text = " ".join(agentctl("why").stdout.split())
    assert "It came from the change feature/x (go faster); its branch and its worktree /w are untouched" in text
    assert "Unfinished in its task: finish it." in text and "What it had changed: a.py | 2 +-" in text
