"""The mind of `packaging/demo --agent`: it acts on what it is sent, and is at a loss where that makes no sense."""

import sys
from pathlib import Path

import pytest

from agentctl.changes.agent_files import TEXT
from model_api.conversation import Conversation, Tool

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "packaging/demo.d"))

import drafts
import mind

SHELL = Tool("exec", {"properties": {"command": {"type": "string"}}, "required": ["command"]})
STARTED = "change feature/outbox started\n  worktree  /srv/.agent.agentctl/changes/feature/outbox\nExit code: 0"


@pytest.fixture
def told():
    return []


@pytest.fixture
def thinking(told):
    made = mind.Mind(lambda who, what: told.append((who, what)))
    return lambda text, tools=(SHELL,): made.answer(Conversation([text], text, list(tools)))


def command(answer):
    (call,) = answer.calls
    return call.arguments["command"]


def test_it_does_what_the_protocol_says(thinking):
    assert command(thinking(mind.WISH.format(code="/srv/agent"))) == "cat /srv/agent/SELF_MODIFICATION.md"
    assert command(thinking(TEXT)).startswith('agentctl change start feature/outbox --about "leave a line')
    written = command(thinking(STARTED))
    assert written.startswith("cd /srv/.agent.agentctl/changes/feature/outbox && ") and drafts.TYPO in written
    assert drafts.UNTRIED in command(thinking("FAILED syntax: habits.py:11: expected ':'\nExit code: 1"))


def test_what_is_asked_beside_the_conversation_does_not_confuse_it(thinking):
    assert thinking("Find a title", tools=()).calls == []
    assert command(thinking(mind.WISH.format(code="/srv/agent")))


@pytest.mark.parametrize("nonsense", ["", "agentctl: command not found", "# How to change yourself\nJust do it."])
def test_it_is_at_a_loss_where_the_protocol_is_none(thinking, nonsense):
    thinking(mind.WISH.format(code="/srv/agent"))
    answer = thinking(nonsense)
    assert answer.calls == [] and "I am at a loss" in answer.text


def test_a_refused_promotion_is_no_restart():
    with pytest.raises(mind.AtALoss):
        mind.expect_restart("Error: cannot promote: the gate has not passed\nExit code: 1")


@pytest.mark.parametrize(("draft", "error", "holds"), [
    (drafts.TYPO, "syntax: habits.py:11: expected ':'", drafts.UNTRIED),
    (drafts.UNTRIED, "syntax: habits.py:11: expected ':'", None),
    (drafts.UNTRIED, "FileNotFoundError: [Errno 2] No such file or directory: '/s/outbox/back.txt'", "mkdir"),
    (drafts.UNTRIED, "FileNotFoundError: [Errno 2] No such file or directory: '/s/inbox/back.txt'", None),
    (drafts.UNTRIED, "MemoryError", None),
])  # fmt: skip
def test_a_draft_is_mended_by_the_error_that_is_told(draft, error, holds):
    better = drafts.mend(draft, error)
    assert better is None if holds is None else holds in better
