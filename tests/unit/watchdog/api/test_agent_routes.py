"""What is asked of the agent over HTTP: who may see whom, what a pause and a restart may be, and who is noted."""

import asyncio
from types import SimpleNamespace

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.watchdog.api import agent_routes
from agentctl.watchdog.api.auth import ADMIN, RESTART, Refused
from agentctl.watchdog.presence import Presences


@pytest.fixture
def send(monkeypatch):
    """Send a request to a handler; what it had done is in `send.done`, what was noted in `send.notes`."""
    done, notes = [], []
    for verb, answer in (
        ("restart", "L1"),
        ("ask_rollback", 7),
        ("pause", None),
        ("plan", SimpleNamespace(to_json=lambda: {"steps": []})),
    ):

        def act(*words, verb=verb, answer=answer):
            done.append((verb, *words[1:]))
            return answer

        monkeypatch.setattr(agent_routes.actions, verb, act)
    lives = Presences("robin", 0.0)
    lives.own.begin("L-own")
    lives.hear("wren", "L-wren", 1.0, 1001.0, {"phase": "working"})

    async def at_once(function, *words):
        return function(*words)

    def ask(handler, body=None, *, scopes=(ADMIN,), agent="", path="/", **query):
        async def read():
            return body or {}

        def agent_of(name):
            return name

        server = SimpleNamespace(name="robin", context="context", lives=lives, watch=None,
                                 store=SimpleNamespace(periods=lambda name, since: []),
                                 note=lambda verb, text: notes.append((verb, text)))  # fmt: skip
        call = SimpleNamespace(server=server, json=read, blocking=at_once, agent=agent_of,
                               peer=SimpleNamespace(name="turn", scopes=scopes, agent=agent),
                               request=SimpleNamespace(path=path, query=query))  # fmt: skip
        return asyncio.run(handler(call))

    ask.done, ask.notes = done, notes
    return ask


def test_who_is_heard_of_is_listed_and_a_token_for_one_sees_one(send):
    assert [one["name"] for one in send(agent_routes.every)[1]["agents"]] == ["robin", "wren"]
    assert [one["name"] for one in send(agent_routes.every, agent="wren")[1]["agents"]] == ["wren"]


def test_one_agent_with_its_time(send):
    status, told = send(agent_routes.one, path="/agents/wren")
    assert (status, told["name"], told["launch_id"], told["phase"]) == (200, "wren", "L-wren", "working")
    assert (told["last_heartbeat_at"], told["span"], told["state"]) == (1001.0, "day", "unknown")
    with pytest.raises(Refused, match="nothing was heard of an agent 'crow'") as refused:
        send(agent_routes.one, path="/agents/crow")
    assert refused.value.status == 404
    with pytest.raises(Refused, match="'span' is one of day, week, month"):
        send(agent_routes.one, path="/agents/wren", span="year")


@pytest.mark.parametrize("text", ["1h30m", "30d"])
def test_a_pause_has_an_end_that_is_told(send, text):
    status, told = send(agent_routes.pause, {"for": text})
    assert status == 200 and send.done == [("pause", told["paused_until_at"])]
    assert send.notes == [("pause", f"by turn, for {text}")]


@pytest.mark.parametrize("body", [{"for": "0s"}, {"for": "31d"}, {"for": "soon"}, {"for": 5}, {"for": ""}])
def test_what_is_no_pause_is_refused(send, body):
    with pytest.raises(Refused) as refused:
        send(agent_routes.pause, body)
    assert refused.value.status == 400 and send.done == send.notes == []


@pytest.mark.parametrize(
    ("body", "done"),
    [
        ({}, ("ask_rollback", "", "asked for by turn")),
        ({"generation": 3, "reason": "it is slow"}, ("ask_rollback", "3", "it is slow")),
        ({"generation": 0}, ("ask_rollback", "0", "asked for by turn")),
    ],
)
def test_a_rollback_is_asked_for_and_noted(send, body, done):
    assert send(agent_routes.rollback, body) == (202, {"ok": True, "request": 7})
    assert send.done == [done] and send.notes == [("rollback", "request 7 by turn")]


def test_a_dry_run_asks_for_nothing(send):
    assert send(agent_routes.rollback, {"generation": 3, "dry_run": True}) == (200, {"steps": []})
    assert send.done == [("plan", "3")] and send.notes == []


@pytest.mark.parametrize("body", [{"generation": "3"}, {"generation": True}, {"dry_run": 1}, {"reason": 5}])
def test_a_field_of_another_kind_is_refused(send, body):
    with pytest.raises(Refused, match="is of the wrong kind"):
        send(agent_routes.rollback, body)
    assert send.done == []


@pytest.mark.parametrize(("scopes", "launch"), [((ADMIN, RESTART), ""), ((RESTART,), "L-own")])
def test_the_agent_s_own_restart_does_not_pass_for_a_person_s(send, scopes, launch):
    """That would cost a candidate no try."""
    assert send(agent_routes.restart, {"launch_id": ""}, scopes=scopes)[0] == 202
    assert send.done == [("restart", None, launch)]


def test_a_task_that_is_none_restarts_nothing(send):
    with pytest.raises(AgentctlError, match="not a task file"):
        send(agent_routes.restart, {"task": "do it"})
    with pytest.raises(Refused) as refused:
        send(agent_routes.restart, {"task": "x" * (agent_routes.MOST_TASK + 1)})
    assert refused.value.status == 413 and send.done == send.notes == []
