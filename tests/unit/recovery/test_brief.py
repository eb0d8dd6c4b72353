"""The brief: what the relaunched agent is told was undone, why, where its work is, and what is unfinished."""

from types import SimpleNamespace

import pytest

from agentctl.generations.agent_context import AgentContext
from agentctl.recovery import brief
from kit.rows import change_row


@pytest.fixture
def compose(home):
    """Write the text of a brief about an incident with this evidence."""
    home.generation(1)
    home.generation(2, "condemned", reason="it hung")

    def write(evidence=None, diffstat="", change=None, pending=()):
        home.incident("I", evidence)
        attempt = SimpleNamespace(
            context=AgentContext.open("agent"), ledger=home.ledger, incident="I", rung="last known good",
            reason="exit status 1; no tries left", target=home.ledger.generation(1), rescue_branch="rescue/I",
            quarantine="/slots/quarantine/I",
        )  # fmt: skip
        return brief.compose(attempt, diffstat, change, list(pending))

    return write


def test_it_says_what_happened_and_where_the_work_is(compose):
    text = compose()
    assert text.startswith("# You were rolled back\n\nIncident I, ")
    assert "generation 2 was replaced by generation 1 (commit 01cccccccccc, rung: last known good)" in text
    assert "## Why\n\nexit status 1; no tries left." in text
    assert "- branch `rescue/I`" in text and "`/slots/quarantine/I/tree`" in text
    assert "`git diff main rescue/I`" in text
    assert "What was undone" not in text and "Unfinished" not in text and "It lived" not in text


@pytest.mark.parametrize(
    ("evidence", "shown", "hidden"),
    [
        ({"stack": [f"line {n}" for n in range(40)]}, ["The stack:", "line 39", "line 25"], ["line 24\n"]),
        ({"stack": ["most recent call first:", *(f"line {n}" for n in range(40))]}, ["line 0", "line 13"], ["line 14"]),
        ({"last_lines": ["a last word"]}, ["Its last lines:\n\n```\na last word\n```"], ["The stack"]),
        ({"lived_seconds": 3.25, "exit_class": "KeyError: 'x'"},
         ["It lived 3.25 seconds. How it ended: KeyError: 'x'."], ["```"]),
        ({"lived_seconds": 0}, ["It lived 0 seconds. How it ended: ?."], []),
    ],
)  # fmt: skip
def test_the_evidence_is_shown_in_short(compose, evidence, shown, hidden):
    text = compose(evidence)
    assert all(part in text for part in shown) and not [part for part in hidden if part in text]


def test_what_was_undone_and_what_is_unfinished_is_listed(compose):
    text = compose(diffstat=" agent.py | 2 +-", pending=["write the test", "run it"])
    assert "## What was undone\n\n```\n agent.py | 2 +-\n```" in text
    assert "Unfinished in your task:\n\n- [ ] write the test\n- [ ] run it\n" in text


def test_of_a_change_it_says_where_it_goes_on(compose):
    change = change_row(name="feature/x", about="faster", worktree="/trees/x")
    text = compose(change=change)
    assert "it was the change `feature/x` (faster)" in text and "snapshot none" in text
    assert "`agentctl change check feature/x`" in text and "git diff" not in text
