"""Agents from PyPI under the preset of their name: killed, hung, rolled back, they are resumed and told why, once."""

import contextlib
import shutil
import sqlite3

import agent_wheels
import boxes
import foreign_agent
import preset_agents
import pytest
from boxes import give_up
from foreign_agent import ModelApi, asked_in

from kit import effort

# One conversation with each agent; the nights have them all.
pytestmark = [pytest.mark.in_order, pytest.mark.some_of("agent", 2)]


@pytest.fixture(scope="module", params=preset_agents.KINDS)
def agent(request, record_testsuite_property):
    """An agent of that kind, adopted by its preset, running, its model API beside it; on one systemd."""
    source = preset_agents.KINDS[request.param].source
    try:
        root = boxes.find_root(boxes.wanted_roots()[0])
        wheels = foreign_agent.wheels_for(root, source)
        box = boxes.agentctl_box(root, shared=[(wheels, foreign_agent.WHEELS_INSIDE)])
    except boxes.Unavailable as error:
        return give_up(str(error))
    tried = agent_wheels.pins_of([path.name for path in wheels.iterdir()], source).split()[0]
    record_testsuite_property(f"version {request.param}", f"{tried} | {agent_wheels.pins(source).split()[0]}")
    with box:
        box.boot()
        yield preset_agents.make(request.param, box, ModelApi(box)).make().start()


def test_killed_before_anything_was_said_it_is_started(agent):
    agent.wait_prompt()
    if agent.kind.begins_with_store:
        relaunched(agent, agent.kill())
    else:
        agent.wait_back(agent.kill())
        agent.wait_prompt()
    agent.wait_outcome(count=1)
    assert agent.rollback_runs() == 1


def test_killed_in_mid_turn_it_is_resumed_and_told_why(agent):
    agent.converse("My code word is ALBATROSS")
    agent.begin_answer("My code word is BITTERN")
    message, request = relaunched(agent, agent.kill())
    assert knows(request, "ALBATROSS")
    assert knows(request, "BITTERN") == agent.kind.keeps_unanswered
    if agent.is_told:
        assert "killed by SIGKILL" in message
        assert "keep every code word" in message


def test_hung_it_is_ended_with_all_it_started(agent):
    agent.run_by_tool(preset_agents.STRAY)
    before = agent.wait_until(lambda: has_strays(agent.table()), "a stray tmux server and a detached helper")
    count = len(agent.incidents())
    message, request = relaunched(agent, agent.kill("STOP"))
    assert agent.wait_outcome(count=count + 1)["trigger"] == "watchdog"
    left = before.keys() & agent.table().keys()
    assert not left, {pid: before[pid] for pid in left}
    assert knows(request, "ALBATROSS")
    if agent.is_told:
        assert "no heartbeat for" in message


@pytest.mark.parametrize("agent", ["hermes"], indirect=True)  # its hooks tell busy from idle
def test_a_wedged_turn_is_interrupted_and_told_why(agent):
    launch, count = agent.status()["launch_id"], len(agent.api.requests())
    agent.begin_answer("My code word is DUNLIN")
    assert agent.wait_until(lambda: agent.status()["agent"]["phase"] == "working", "its hook to say that it is busy")
    request = agent.wait_request("[agentctl] You were busy for", count)
    assert "C-c was pressed to end your turn" in asked_in(request)[-1]
    assert knows(request, "DUNLIN")
    assert agent.status()["launch_id"] == launch
    agent.wait_until(lambda: "of your messages and know" in agent.screen(), "its answer on the screen")
    agent.wait_prompt()


if effort.NIGHT:  # 40 s; test_sessions has it with an agent of our own

    @pytest.mark.parametrize("agent", ["hermes"], indirect=True)
    def test_a_wedge_that_no_key_ends_is_ended_and_the_code_stays(agent):
        agent.ctl("config", "set", "heartbeat.interrupt", "")
        launch = agent.status()["launch_id"]
        agent.ctl("restart")
        relaunched(agent, launch)
        launch, count = agent.status()["launch_id"], len(agent.incidents())
        agent.begin_answer("My code word is EIDER")
        message, request = relaunched(agent, launch, commit=agent.good)
        assert "busy without progress for" in message
        assert "SIGTERM ended it" in message
        assert knows(request, "EIDER")
        incident = agent.wait_outcome(count=count + 1)
        assert (incident["trigger"], incident["decision"]) == ("wedged", "restart: restart")
        assert any("hermes chat" in row["command"] for row in incident["evidence"]["processes"])


@pytest.mark.parametrize("agent", ["llm", "hermes", "hermes-gateway"], indirect=True)  # they keep theirs in SQLite
def test_its_store_is_copied_whole_while_it_runs(agent, tmp_path):
    agent.begin_answer("My code word is FULMAR")  # in mid-turn: the store is open, and in its write-ahead log
    snapshot = agent.ctl("snapshot", "take").stdout.strip()
    (store,) = [path for path in agent.box.path(f"{agent.data}/snapshots").glob(f"**/{snapshot}/**/*.db")
                if path.name in ("logs.db", "state.db")]  # fmt: skip
    for path in store.parent.glob(f"{store.name}*"):  # SQLite does not find its way into the box
        shutil.copy(path, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / store.name)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert any("ALBATROSS" in line for line in copy.iterdump())
    relaunched(agent, agent.kill())


def test_a_bad_commit_is_undone_with_what_it_did_to_the_store(agent):
    agent.converse("My code word is CORMORANT")
    launch, count = agent.status()["launch_id"], len(agent.incidents())
    agent.write(f"{agent.code}/start.sh", f"#!/bin/sh\n{agent.kind.break_store}\nexit 3\n")
    agent.shell('cd "$1"; git commit -qam "Make it better"')
    agent.ctl("restart", check=False)
    message, request = relaunched(agent, launch, commit=agent.good)
    assert knows(request, "ALBATROSS")
    assert knows(request, "CORMORANT")
    assert agent.head == agent.good
    assert agent.wait_outcome(count=count + 1)["decision"] == "rollback: last known good"
    if agent.is_told:
        assert "Your code went back from generation" in message
        assert f"{agent.state}/BRIEF.md" in message


def test_it_is_told_once_a_launch(agent):
    assert messages(agent.converse("Say it again.")) == agent.told
    assert bool(agent.told) == agent.is_told


def test_nothing_is_left_after_a_stop(agent):
    assert agent.table()
    agent.systemctl("stop", agent.name)
    assert agent.table() == {}


# -- what must be true ----------------------------------------------------------------------------


def relaunched(agent, launch, **facts):
    """Wait until it is back after `launch`; return (what it was told, a request with its conversation)."""
    agent.wait_back(launch, **facts)
    if not agent.is_told:
        return "", agent.converse("Say it again.")
    request = agent.wait_until(lambda: next((r for r in agent.api.requests() if has_news(agent, r)), None),
                               "the message")  # fmt: skip
    agent.wait_until(lambda: request["id"] in agent.api.answered(), "the answer to the message")
    agent.told.append(messages(request)[-1])
    return agent.told[-1], request


def has_news(agent, request):
    """Tell whether a message is in a request that was in none before; a request without tools is for a title."""
    # Counted: two of them may be the same to the letter.
    return len(messages(request)) > len(agent.told) and (request["tools"] or not agent.kind.has_tools)


def messages(request):
    """Return what agentctl said in a request's conversation, each one line."""
    lines = [line.strip() for text in asked_in(request) for line in text.splitlines()]
    return [line for line in lines if line.startswith("[agentctl] You were restarted")]


def knows(request, word):
    """Tell whether the user's words of before are in a request."""
    return any(f"My code word is {word}" in text for text in asked_in(request))


def has_strays(table):
    """Return the table if what was started beside the agent is in it."""
    return table if all(any(word in row for row in table.values()) for word in ("-L stray", "3333", "4444")) else None
