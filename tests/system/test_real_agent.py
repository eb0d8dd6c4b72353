"""Agents that nobody here wrote: killed in mid-conversation, given a bad commit, and their conversation is back.

They know nothing of agentctl. A person types into their terminal; the proof is in what the model API is
sent next: the code words of before.
"""

import time

import boxes
import foreign_agent
import pytest
from conftest import give_up
from foreign_agent import ForeignAgent, ModelApi, said_in

LLM = {
    "agent": {"resume_command": ["./run.sh", "--continue"], "ready": "3s", "ready_timeout": "30s"},
    "heartbeat": {"from": "command", "command": ["./alive.sh"], "timeout": "5s"},
    "probation": {"duration": "2s", "heartbeats": 2, "tries": 1},
    "rollback": {"restarts": 20, "attempts": 20},
    "state": {"restore": ["llm/*.db"]},
    "environment": {"paths": [".venv"], "lockfiles": ["requirements.txt"], "build": ["./build.sh"]},
}


@pytest.fixture(scope="module")
def llm(box_root):
    """`llm chat`, adopted, running, its model API beside it."""
    try:
        wheels = foreign_agent.wheels_for(box_root, "llm")
        box = boxes.agentctl_box(box_root, shared=[(wheels, foreign_agent.WHEELS_INSIDE)])
    except boxes.Unavailable as error:
        return give_up(str(error))
    with box:
        box.boot()
        yield ForeignAgent(box, ModelApi(box), "llm-agent", "llm", **LLM).make().start()


def test_it_talks(llm):
    first = llm.converse("My code word is ALBATROSS")
    assert "Keep the code words safe" in said_in(first)  # its task, which agentctl gave it
    second = llm.converse("What is it?")
    assert "ALBATROSS" in said_in(second)
    assert "know these code words: ALBATROSS" in llm.screen()
    assert "code words: ALBATROSS" in llm.journal()
    assert "--continue" in llm.command_line()
