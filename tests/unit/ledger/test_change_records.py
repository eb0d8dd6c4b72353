"""The record of changes: who may write what, and requests that nobody should send."""

import time

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.ledger import change_records, writers
from agentctl.ledger.change_records import Author, handle
from agentctl.ledger.database import Ledger
from kit import rows

AGENT, HUMAN = Author("bot", is_agent=True), Author("ann", is_agent=False)
ID, TREE = "a" * 40, "b" * 40


class Plain:
    """A thing with attributes."""

    def __init__(self, **known):
        vars(self).update(known)


CONTEXT = Plain(config=Plain(change=Plain(prefixes=["feature/"], review="human")))


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(str(tmp_path / "ledger.db")) as made:
        handle(CONTEXT, made, {"verb": "start", "name": "feature/x", "base": ID, "worktree": "/w", "about": "x"}, AGENT)
        yield made


def ask(ledger, verb, author=AGENT, name="feature/x", **more):
    return handle(CONTEXT, ledger, {"verb": verb, "name": name, **more}, author)


def add_generation(ledger, number, status):
    writers.add_generation(
        ledger,
        number,
        vault_commit=ID,
        commit_id=ID,
        tree=TREE,
        branch="main",
        source="change",
        status=status,
        created_at=1.0,
        tries_left=1,
    )
    writers.set_promotion(ledger, number, change="feature/x", on_failure="rollback")


def test_a_record_is_stamped_with_who_wrote_it(ledger):
    facts = {"commit": ID, "tree": TREE, "ok": True, "by": "somebody else", "at": 0, "by_agent": False}
    row = ask(ledger, "check", facts=facts)["change"]
    assert (row["checked"]["by"], row["checked"]["by_agent"]) == ("bot", True) and row["checked"]["at"] > 1e9
    assert rows.select(ledger, "SELECT text FROM events WHERE kind='change' AND text LIKE '%checked%bot%'")


def test_the_agent_approves_and_confirms_nothing(ledger):
    with pytest.raises(AgentctlError, match="this is the agent itself"):
        ask(ledger, "approve", commit=ID)
    assert ask(ledger, "approve", HUMAN, commit=ID)["change"]["approved"]["by"] == "ann"
    for number, status in ((1, "good"), (2, "candidate")):
        add_generation(ledger, number, status)
    writers.set_deadline(ledger, 2, time.time() + 60)
    writers.begin_launch(ledger, "L", 2, at=1.0, boot_id="b")
    with pytest.raises(AgentctlError, match="this is the agent itself"):
        ask(ledger, "confirm")
    assert ask(ledger, "confirm", HUMAN)["generation"] == 2
    with pytest.raises(AgentctlError, match="nothing to confirm"):
        ask(ledger, "confirm", HUMAN)
    writers.set_deadline(ledger, 2, time.time() - 1)
    with pytest.raises(AgentctlError, match="too late"):
        ask(ledger, "confirm", HUMAN)


@pytest.mark.parametrize("request_", [
    {}, {"verb": None}, {"verb": ["start"]}, {"verb": "no-such"}, {"verb": "start"}, {"verb": "look", "name": 5},
    {"verb": "start", "name": "main", "base": ID, "worktree": "/w"},
    {"verb": "start", "name": "feature/../x", "base": ID, "worktree": "/w"},
    {"verb": "start", "name": "feature/y", "base": "HEAD", "worktree": "/w"},
    {"verb": "start", "name": "feature/y", "base": ID, "worktree": ["/w"]},
    {"verb": "start", "name": "feature/y", "base": ID, "worktree": "/w", "about": "x" * 2000},
    {"verb": "check", "name": "feature/x"}, {"verb": "check", "name": "feature/x", "facts": []},
    {"verb": "check", "name": "feature/x", "facts": {"commit": ID}},
    {"verb": "check", "name": "feature/x", "facts": {"commit": ID, "tree": TREE, "more": "x" * 20_000}},
    {"verb": "check", "name": "feature/other", "facts": {"commit": ID, "tree": TREE}},
    {"verb": "promote", "name": "feature/x", "commit": ID, "tree": TREE, "main": ID},
    {"verb": "promote", "name": "feature/x", "commit": ID, "tree": TREE, "main": ID, "merge": ID, "on_failure": "x"},
    {"verb": "promote", "name": "feature/x", "commit": ID, "tree": TREE, "main": ID, "merge": ID,
     "confirm_seconds": float("nan")},
    {"verb": "promote", "name": "feature/x", "commit": ID, "tree": TREE, "main": ID, "merge": ID,
     "confirm_seconds": -1},
    {"verb": "promote", "name": "feature/x", "commit": ID, "tree": TREE, "main": ID, "merge": ID,
     "confirm_seconds": True},
])  # fmt: skip
def test_requests_that_are_refused_change_nothing(ledger, request_):
    before = rows.select(ledger, "SELECT * FROM changes")
    with pytest.raises(AgentctlError):
        handle(CONTEXT, ledger, request_, AGENT)
    assert rows.select(ledger, "SELECT * FROM changes") == before


def ask_for_switch(ledger):
    """Write down what a promotion that was prepared leaves: its generation, and the request to the one-shot."""
    add_generation(ledger, 2, "candidate")
    writers.add_request(ledger, "promote", "2", at=1.0, author="bot", reason="")


def test_what_was_asked_for_first_stands_until_it_is_done(ledger):
    """Nobody takes off the deadline that somebody else has set, and another change waits for its turn."""
    wish = {"commit": ID, "tree": TREE, "main": ID, "merge": ID}
    ask(ledger, "promote", HUMAN, confirm_seconds=60, **wish)
    ask_for_switch(ledger)
    assert ask(ledger, "promote", **wish)["change"]["promotion"]["confirm_seconds"] == 60
    ask(ledger, "start", name="feature/y", base=ID, worktree="/y")
    with pytest.raises(AgentctlError, match="'feature/y': change 'feature/x' is being promoted"):
        ask(ledger, "promote", name="feature/y", **wish)
    assert [ask(ledger, "look", name=name)["pending"] for name in ("feature/x", "feature/y")] == [True, False]


def test_a_promotion_that_was_cut_off_can_be_given_up(ledger):
    ask(ledger, "promote", commit=ID, tree=TREE, main=ID, merge=ID)
    assert ledger.change("feature/x").status == "promoting"
    ask_for_switch(ledger)
    with pytest.raises(AgentctlError, match="being promoted"):
        ask(ledger, "abandon")
    writers.end_all(ledger, at=1.0)
    assert ask(ledger, "abandon", reason="no")["change"]["status"] == "abandoned"


def test_where_a_human_reviews_the_agent_does_not_switch_the_rollback_off(ledger):
    wish = {"commit": ID, "tree": TREE, "main": ID, "merge": ID, "on_failure": "page"}
    with pytest.raises(AgentctlError, match="with --on-failure page: this is the agent"):
        ask(ledger, "promote", **wish)
    assert ask(ledger, "promote", HUMAN, **wish)["change"]["promotion"]["on_failure"] == "page"


def test_a_change_that_is_done_is_open_again_once_it_is_started_again(ledger):
    """Else its new work is in no list of what is open, and the next `start` of another takes its worktree away."""
    ask_for_switch(ledger)
    writers.answer_request(ledger, 1, "promote-1")
    change_records.set_generation(ledger, "feature/x", 2)
    change_records.set_promoted(ledger, "feature/x", 2.0)

    def started_again():
        ask(ledger, "start", base=ID, worktree="/w")
        (row,) = ask(ledger, "list")["changes"]
        return row["state"], row["is_open"]

    assert started_again() == ("on probation", False)
    writers.bless(ledger, 2, at=3.0, reason="", snapshot="")
    assert started_again() == ("open", True)


def test_a_condemned_tree_is_found_by_its_hash(ledger):
    add_generation(ledger, 7, "candidate")
    writers.condemn(ledger, 7, at=2.0, reason="it hung")
    assert ask(ledger, "look", tree=TREE)["condemned"] == {"number": 7, "reason": "it hung", "condemned_at": 2.0}
    assert ask(ledger, "look", tree=ID)["condemned"] is None
    assert change_records.condemned_with(ledger, "") is None
