"""Agents that nobody here wrote: killed in mid-conversation, given a bad commit, and their conversation is back.

They know nothing of agentctl. A person types into their terminal; the proof is in what the model API is
sent next: the code words of before.
"""

import time

import boxes
import foreign_agent
import pytest
from conftest import give_up
from foreign_agent import ForeignAgent, ModelApi, asked_in, said_in

LLM = {
    "agent": {
        "resume_command": ["./run.sh", "--continue"],
        "ready": ["./ready.sh"],
        "ready_timeout": "30s",
    },
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
    assert "Keep the code words safe" in said_in(first)  # its task, handed to it by its run.sh
    assert knows(llm.converse("What is it?"), "ALBATROSS")
    assert "code words: ALBATROSS" in llm.screen()
    assert "code words: ALBATROSS" in llm.journal()


def test_killed_between_turns(llm):
    llm.converse("My code word is BITTERN")
    count, launch = len(llm.incidents()), llm.kill()
    status = comes_back(llm, launch, time.monotonic())
    assert knows(llm.converse("What is it?"), "BITTERN")
    assert "--continue" in llm.command_line()
    incident = llm.wait_outcome(count=count + 1)
    assert (incident["trigger"], incident["decision"]) == ("crash", "restart: restart")
    assert incident["reason"].startswith("killed by SIGKILL")
    assert status["commit"] == llm.good


def test_killed_in_mid_turn(llm):
    """The turn is lost, because llm keeps whole turns only; the conversation before it is not."""
    llm.converse("My code word is CORMORANT")
    count = len(llm.incidents())
    llm.begin_answer("Tell me all you know")
    comes_back(llm, llm.kill(), time.monotonic())
    assert knows(llm.converse("What is it?"), "CORMORANT")
    incident = llm.wait_outcome(count=count + 1)
    assert "I was sent" in " ".join(incident["evidence"]["last_lines"])


BREAK = {
    "configuration": "echo '- model_id: [' >models.yaml",
    # A new version that changes its session store, and then fails: the store has to go back too.
    "migration": """cat >>migrate.sh <<'END'
for table in turns messages responses; do
    .venv/bin/sqlite-utils drop-table "$LLM_USER_PATH/logs.db" $table --ignore
done
exit 3
END
""",
}


@pytest.mark.parametrize("what", BREAK)
def test_a_bad_commit_on_main(llm, what):
    word = what.upper()
    llm.converse(f"My code word is {word}")
    count, launch = len(llm.incidents()), llm.status()["launch_id"]
    llm.shell(f'cd "$1"\n{BREAK[what]}\ngit commit -qam "Improve the {what}"')
    bad, began = llm.head, time.monotonic()
    llm.ctl("restart")
    comes_back(llm, launch, began, commit=llm.good)
    request = llm.converse("What is it?")
    assert knows(request, word)
    assert knows(request, "ALBATROSS")
    incident = llm.wait_outcome(count=count + 1)
    check_truth(llm, incident, bad, what)
    check_repository(llm, incident, bad)
    assert "You were rolled back" in said_in(request)
    assert incident["id"] in said_in(request)


def check_truth(agent, incident, bad, what):
    status = {"configuration": 1, "migration": 3}[what]
    assert incident["trigger"] == "crash-at-start"
    assert incident["decision"] == "rollback: last known good"
    assert incident["reason"].startswith(f"exit status {status} after")
    assert incident["evidence"]["exit_status"] == status
    assert incident["evidence"]["head"] == bad
    generations = {row["number"]: row for row in agent.ask("generations")}
    assert generations[incident["to"]]["commit"] == agent.good
    condemned = generations[incident["from"]]
    assert (condemned["status"], condemned["commit"]) == ("condemned", bad)
    if what == "configuration":
        assert incident["evidence"]["exit_class"].startswith("yaml.parser.ParserError")
        assert "ParserError" in agent.ctl("why").stdout


def check_repository(agent, incident, bad):
    assert agent.head == agent.good
    assert agent.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert agent.git("status", "--porcelain", "--untracked-files=all") == ""
    assert agent.git("rev-parse", f"rescue/{incident['id']}") == bad


def test_nothing_is_left_after_a_stop(llm):
    llm.converse("My code word is DUNLIN")
    assert any("llm chat" in row for row in llm.processes())
    llm.systemctl("stop", llm.name)
    assert llm.processes() == []
    llm.start()
    llm.wait_prompt()
    assert knows(llm.converse("What is it?"), "DUNLIN")


def comes_back(agent, launch, began, **facts):
    """Wait until the agent talks again after `launch`, and say how long that took since `began`."""
    status = agent.wait_back(launch, **facts)
    print(f"{agent.name} is back after {time.monotonic() - began:.1f} s")
    return status


def knows(request, word):
    """Tell whether the conversation of before is in a request: the very message, not its echo."""
    return any(text.endswith(f"My code word is {word}") for text in asked_in(request))
