"""Agents that nobody here wrote: killed in mid-conversation, given a bad commit, and their conversation is back.

They know nothing of agentctl. A person types into their terminal; the proof is in what the model API is
sent next: the code words of before.
"""

import time

import boxes
import foreign_agent
import pytest
from boxes import give_up
from foreign_agent import ForeignAgent, ModelApi, asked_in, said_in

# One conversation with each agent; the nights have them all.
pytestmark = [pytest.mark.in_order, pytest.mark.some_of("agent", 1)]
COMMON = {
    "agent": {"ready": ["./ready.sh"], "ready_timeout": "120s"},
    "heartbeat": {"from": "command", "command": ["./alive.sh"], "timeout": "12s"},
    "probation": {"duration": "2s", "heartbeats": 2, "tries": 1},
    "rollback": {"restarts": 20, "attempts": 20},
    "environment": {
        "paths": [".venv"],
        "lockfiles": ["requirements.txt"],
        "build": ["./build.sh"],
    },
}


class Llm:
    """A conversation in SQLite; it is asked for on the command line, and whole turns only are kept."""

    prompt, command = ">", "llm chat"
    settings = COMMON | {
        "agent": COMMON["agent"] | {"resume_command": ["./run.sh", "--continue"]},
        "state": {"restore": ["llm/*.db"]},
    }
    keeps_unanswered = False
    exit_class = "yaml.parser.ParserError"
    break_configuration = "echo '- model_id: [' >models.yaml"
    break_store = """for table in turns messages responses; do
    .venv/bin/sqlite-utils drop-table "$LLM_USER_PATH/logs.db" $table --ignore
done"""


class Nanobot:
    """A conversation in JSON lines, found again by the session's name."""

    prompt, command = "You:", "nanobot-agent"
    settings = COMMON | {"state": {"restore": ["nanobot/sessions"]}}
    keeps_unanswered = True
    exit_class = "exit status 1"
    break_configuration = "echo '{\"agents\": ' >config.json"
    break_store = 'rm -r "$home/sessions"'


KINDS = {"llm": Llm, "nanobot": Nanobot}


@pytest.fixture(scope="module", params=KINDS)
def agent(box_root, request):
    """An agent of that kind, adopted, running, its model API beside it."""
    name, kind = request.param, KINDS[request.param]
    try:
        wheels = foreign_agent.wheels_for(box_root, name)
        box = boxes.agentctl_box(box_root, shared=[(wheels, foreign_agent.WHEELS_INSIDE)])
    except boxes.Unavailable as error:
        return give_up(str(error))
    with box:
        box.boot()
        made = ForeignAgent(box, ModelApi(box), name, kind.prompt, **kind.settings)
        made.kind = kind
        yield made.make().start()


def test_it_talks(agent):
    agent.wait_prompt()
    first = agent.converse("My code word is ALBATROSS")
    assert "Keep the code words safe" in said_in(first)  # its task, handed to it by its run.sh
    assert knows(agent.converse("What is it?"), "ALBATROSS")
    assert "code words: ALBATROSS" in agent.screen()
    agent.wait_until(lambda: "code words: ALBATROSS" in agent.journal(), "the answer in the journal")


def test_killed_between_turns(agent):
    agent.converse("My code word is BITTERN")
    count, launch = len(agent.incidents()), agent.kill()
    status = comes_back(agent, launch, time.monotonic())
    assert knows(agent.converse("What is it?"), "BITTERN")
    incident = agent.wait_outcome(count=count + 1)
    assert (incident["trigger"], incident["decision"]) == ("crash", "restart: restart")
    assert incident["reason"].startswith("killed by SIGKILL")
    assert status["commit"] == agent.good


def test_killed_in_mid_turn(agent):
    agent.converse("My code word is CORMORANT")
    count = len(agent.incidents())
    agent.begin_answer("My code word is DUNLIN")
    comes_back(agent, agent.kill(), time.monotonic())
    request = agent.converse("What is it?")
    assert knows(request, "CORMORANT")
    assert knows(request, "DUNLIN") == agent.kind.keeps_unanswered
    incident = agent.wait_outcome(count=count + 1)
    assert "I was sent" in " ".join(incident["evidence"]["last_lines"])


def test_a_bad_configuration_on_main(agent):
    incident, bad = is_rolled_back(agent, agent.kind.break_configuration, status=1)
    assert incident["evidence"]["exit_class"].startswith(agent.kind.exit_class)
    assert "exit status 1" in agent.ctl("why").stdout
    assert incident["evidence"]["head"] == bad


def test_a_bad_migration_on_main(agent):
    """A new version changes its session store, and then fails: the store has to go back too."""
    script = f"cat >migrate.sh <<'END'\n{agent.kind.break_store}\nexit 3\nEND"
    is_rolled_back(agent, script, status=3)


def test_nothing_is_left_after_a_stop(agent):
    agent.converse("My code word is EIDER")
    assert any(agent.kind.command in row for row in agent.processes())
    agent.systemctl("stop", agent.name)
    assert agent.processes() == []
    agent.start()
    agent.wait_prompt()
    assert knows(agent.converse("What is it?"), "EIDER")


# -- what must be true ----------------------------------------------------------------------------


def comes_back(agent, launch, began, **facts):
    """Wait until the agent talks again after `launch`, and say how long that took since `began`."""
    status = agent.wait_back(launch, **facts)
    print(f"{agent.name} is back after {time.monotonic() - began:.1f} s")
    return status


def knows(request, word):
    """Tell whether the conversation of before is in a request: the very message, not its echo."""
    return any(f"My code word is {word}" in text.splitlines() for text in asked_in(request))


def is_rolled_back(agent, script, status):
    """Commit what `script` does to main, restart, and check all that follows; return (incident, bad)."""
    word = f"WORD{status}"
    agent.converse(f"My code word is {word}")
    count, launch = len(agent.incidents()), agent.status()["launch_id"]
    agent.shell(f'cd "$1"\n{script}\ngit commit -qam "Make it better"')
    bad, began = agent.head, time.monotonic()
    done = agent.ctl("restart", check=False)
    assert (done.returncode, "was rolled back" in done.stderr) == (1, True)
    comes_back(agent, launch, began, commit=agent.good)
    request = agent.converse("What is it?")
    assert knows(request, word)
    assert knows(request, "ALBATROSS")
    incident = agent.wait_outcome(count=count + 1)
    check_truth(agent, incident, bad, status)
    check_repository(agent, incident, bad)
    assert "You were rolled back" in said_in(request)
    assert incident["id"] in said_in(request)
    return incident, bad


def check_truth(agent, incident, bad, status):
    assert incident["trigger"] == "crash-at-start"
    assert incident["decision"] == "rollback: last known good"
    assert incident["reason"].startswith(f"exit status {status} after")
    assert incident["evidence"]["exit_status"] == status
    generations = {row["number"]: row for row in agent.ask("generations")}
    assert generations[incident["to"]]["commit"] == agent.good
    condemned = generations[incident["from"]]
    assert (condemned["status"], condemned["commit"]) == ("condemned", bad)


def check_repository(agent, incident, bad):
    assert agent.head == agent.good
    assert agent.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert agent.git("status", "--porcelain", "--untracked-files=all") == ""
    assert agent.git("rev-parse", f"rescue/{incident['id']}") == bad
