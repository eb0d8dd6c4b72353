"""Agents that keep their own sessions: the right one is resumed, they are told why once, busy is told from idle."""

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from agentctl.changes import adopt
from agentctl.config import preset
from agentctl.host import procfs
from agentctl.runner import resumption
from integration.world import SOURCE, World, whole_lines

AGENT = Path(__file__).parents[1].joinpath("talking_agent.py").read_text()
START = [sys.executable, "agent.py", "../state/talk", "--session", "{session}"]
RESUME = [sys.executable, "agent.py", "../state/talk", "--resume", "{session}"]
DRAWN = ["sh", "-c", "grep -qx $AGENT_LAUNCH_ID $AGENT_STATE_DIR/drawn"]
BASE = {"agent": {"ready": DRAWN}, "heartbeat": {"from": "process"}}


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(command, settings) -> World:
        settings = {section: {**BASE.get(section, {}), **settings.get(section, {})} for section in {**BASE, **settings}}
        world = World(monkeypatch, settings)
        worlds.append(world)
        world.commit({"agent.py": AGENT}, "an agent that talks")
        world.context = adopt.adopt(
            world.paths, str(world.code), command, state_dir=str(world.state), settings=world.settings
        )
        return world

    yield build
    for world in worlds:
        world.end()


def talk(world) -> dict[str, list[dict]]:
    """Return every session's lines, by its id."""
    found = sorted((world.state / "talk").glob("*.jsonl"))
    return {path.stem: [json.loads(line) for line in whole_lines(path)] for path in found}


def told(world, launch: str) -> list[str]:
    """Return what was said in a launch, in any session."""
    return [line["said"] for lines in talk(world).values() for line in lines if line.get("launch") == launch]


def relaunch(world, launch: dict) -> dict:
    """Kill the agent behind everybody's back; return the next launch once it is well."""
    os.kill(world.live()["pid"], 9)
    return world.until_beating(after=launch["id"])


def type_line(world, text: str) -> None:
    from agentctl.runtime.tmux import Tmux

    tmux = Tmux(world.paths.tmux_socket_path, None, dict(os.environ))
    tmux.type("agent", text)
    tmux.press("agent", "Enter")


def test_a_session_is_started_once_and_resumed_with_one_message(make):
    world = make(START, {"agent": {"resume_command": [*RESUME, "{message}"]},
                         "resume": {"store": ["talk/{session}.jsonl"], "message": "argument"}})  # fmt: skip
    world.start()
    first = world.until_beating(1)
    (world.state / "current_task.md").write_text("# Current Task\nTalk.\n\n## Pending Actions\n- [ ] say hello\n")
    session = resumption.read_session(world.context)
    type_line(world, "hello")
    world.until(lambda: told(world, first["id"]) == ["hello"], "the line")
    second = relaunch(world, first)
    world.until(lambda: told(world, second["id"]), "the message")
    third = relaunch(world, second)
    world.until(lambda: told(world, third["id"]), "the message")
    assert list(talk(world)) == [session]
    for launch in (second, third):
        (message,) = told(world, launch["id"])
        assert message.startswith("[agentctl] You were restarted: killed by SIGKILL")
        assert "Still to do: say hello." in message
        assert len(world.all("SELECT * FROM events WHERE kind='message' AND text LIKE ?", f"%{launch['id']}%")) == 1


def test_with_no_session_left_a_new_one_is_started(make):
    world = make(START, {"agent": {"resume_command": [*RESUME, "{message}"]},
                         "resume": {"store": ["talk/{session}.jsonl"], "message": "argument"}})  # fmt: skip
    world.start()
    first = world.until_beating(1)
    before = resumption.read_session(world.context)
    (world.state / "history.jsonl").write_text('{"id": "1", "content": "so there is something to resume"}\n')
    second = relaunch(world, first)  # nothing was said, so its store has no file: `--resume` would end with 1
    after = resumption.read_session(world.context)
    assert before != after
    type_line(world, "new")
    world.until(lambda: told(world, second["id"]) == ["new"], "the line")
    assert list(talk(world)) == [after]


def test_a_session_that_cannot_be_resumed_does_not_keep_it_down(make):
    world = make(START, {"agent": {"resume_command": [*RESUME, "{message}"]}, "rollback": {"restarts": 3},
                         "resume": {"store": ["talk/"], "message": "argument"}})  # fmt: skip
    world.start()
    first = world.until_beating(1)
    (world.state / "talk").mkdir(exist_ok=True)
    (world.state / "talk" / "index").write_text("there before any session is")
    last = relaunch(world, first)
    ends = [launch["trigger"] for launch in world.launches() if launch["id"] not in (first["id"], last["id"])]
    assert ends == ["crash-at-start", "crash-at-start"]
    assert last["generation"] == first["generation"]
    type_line(world, "new")
    world.until(lambda: told(world, last["id"]) == ["new"], "the line")


def test_what_proves_a_session_is_looked_for(make):
    world = make(
        START,
        {
            "agent": {"resume_command": [*RESUME, "{message}"]},
            "resume": {"store": ["talk/"], "proof": ["talk/{session}.jsonl"], "message": "argument"},
        },
    )
    world.start()
    first = world.until_beating(1)
    (world.state / "talk").mkdir(exist_ok=True)
    (world.state / "talk" / "index").write_text("there before any session is")
    second = relaunch(world, first)
    assert [launch["id"] for launch in world.launches()] == [first["id"], second["id"]]


def test_a_runner_killed_between_record_and_send_sends_nothing_twice(make):
    world = make(
        [sys.executable, "agent.py", "../state/talk"],
        {"resume": {"store": ["talk/"], "message": "keys", "after": "10s"}, "heartbeat": {"timeout": "40s"}},
    )
    world.start()
    first = world.until_beating(1)
    type_line(world, "hello")
    world.until(lambda: told(world, first["id"]), "the line")
    second = relaunch(world, first)
    os.kill(procfs.parent(world.live()["pid"]), signal.SIGSTOP)  # its tmux server: what is typed waits there
    assert not recorded(world, second), "the machine stood still until the message was due"
    world.until(lambda: recorded(world, second), "the message on record")
    os.kill(world.live()["runner_pid"], signal.SIGKILL)
    third = world.until_beating(after=second["id"])
    world.until(lambda: told(world, third["id"]), "the message")
    type_line(world, "and on")
    world.until(lambda: told(world, third["id"])[1:] == ["and on"], "the line after it")
    assert told(world, second["id"]) == []
    assert "the runner was killed" in told(world, third["id"])[0]
    assert (len(recorded(world, second)), len(recorded(world, third))) == (1, 1)


def recorded(world, launch: dict) -> list[dict]:
    """Return the messages that are on record for a launch."""
    return world.all("SELECT * FROM events WHERE kind='message' AND text LIKE ?", f"launch {launch['id']}: %")


def test_a_message_is_typed_once(make):
    world = make(
        [sys.executable, "agent.py", "../state/talk"],
        {"resume": {"store": ["talk/"], "message": "keys", "after": "100ms"}},
    )
    world.start()
    first = world.until_beating(1)
    type_line(world, "hello")
    world.until(lambda: told(world, first["id"]), "the line")
    second = relaunch(world, first)
    world.until(lambda: told(world, second["id"]), "the message")
    type_line(world, "and on")
    world.until(lambda: told(world, second["id"])[1:], "the line after it")
    message, after = told(world, second["id"])
    assert (message[:10], after) == ("[agentctl]", "and on")
    assert told(world, first["id"]) == ["hello"]


def test_a_screen_that_is_drawn_late_is_waited_for(make):
    world = make([sys.executable, "agent.py", "../state/talk"],
                 {"agent": {"environment": {"DRAWS_LATE": "1"}, "ready": "300ms"},
                  "resume": {"store": ["talk/"], "message": "keys", "after": "100ms"}})  # fmt: skip
    (world.state / "talk").mkdir(parents=True)
    (world.state / "talk/last.jsonl").write_text("{}\n")
    world.start()
    second = relaunch(world, world.until_beating(1))
    world.until(lambda: told(world, second["id"]), "the message")


HOOKED = {"agent": {"environment": {}}, "heartbeat": {"from": "hook"}, "resume": {"store": ["talk/"]}}


@pytest.fixture
def hooked(make, monkeypatch):
    monkeypatch.setitem(HOOKED["agent"]["environment"], "HOOK", f"PYTHONPATH={SOURCE} {sys.executable} -c "
                        "'import sys; from agentctl.cli.main import main; sys.exit(main([\"hook\"]))'")  # fmt: skip
    return lambda message="none", **heartbeat: make([sys.executable, "agent.py", "../state/talk"], {
        **HOOKED, "agent": {**HOOKED["agent"], "ready": "notify"},
        "heartbeat": {**HOOKED["heartbeat"], **heartbeat},
        "resume": {**HOOKED["resume"], "message": message, "after": "100ms"}})  # fmt: skip


def end_of(world, launch: dict) -> dict:
    """Wait until a launch has ended; return it."""
    return world.until(
        lambda: next((x for x in world.launches() if x["id"] == launch["id"] and x["end"]), None), "its end"
    )


def test_an_idle_agent_is_well_for_as_long_as_it_likes(hooked):
    world = hooked(timeout="8s")
    world.start()
    first = world.until_beating(1)
    since = time.time()
    world.until(lambda: (world.live()["last_heartbeat_at"] or 0) > since + 10, "beats for longer than the timeout")
    assert world.launches()[-1]["id"] == first["id"]
    assert resumption.read_session(world.context) == "last"


def test_another_session_than_was_resumed_is_told(make, hooked):
    command = ["sh", "-c", f"{sys.executable} agent.py ../state/talk --session s$$"]  # whatever it is to resume
    world = make(command, {**HOOKED, "agent": {**HOOKED["agent"], "ready": "notify"}})
    world.start()
    first = world.until_beating(1)
    type_line(world, "hello")
    world.until(lambda: told(world, first["id"]), "the line")
    before = resumption.read_session(world.context)
    second = relaunch(world, first)
    (event,) = world.until(lambda: world.all("SELECT * FROM events WHERE kind='session'"), "the event")
    assert event["text"].startswith(f"launch {second['id']}: session {before} was to be resumed, the agent is in s")
    assert resumption.read_session(world.context) != before


def test_a_turn_that_gets_nowhere_is_a_failure(hooked):
    world = hooked()
    world.start()
    first = world.until_beating(1)
    type_line(world, "work")
    ended = end_of(world, first)
    assert (ended["end"], ended["trigger"]) == ("failed", "wedged")
    assert ended["reason"].endswith("; SIGTERM ended it")
    assert world.until_beating(after=first["id"])
    (incident,) = world.all("SELECT * FROM incidents")
    (agent,) = [p for p in json.loads(incident["evidence"])["processes"] if "agent.py" in p["command"]]
    assert agent["state"] == "S" and agent["waits_in"]


def test_a_wedge_that_heeds_nothing_is_killed(hooked):
    world = hooked(timeout="10s", interrupt="Escape")
    world.start()
    first = world.until_beating(1)
    type_line(world, "stubborn")
    ended = end_of(world, first)
    assert (ended["end"], ended["trigger"]) == ("failed", "wedged")
    assert "Escape was pressed" in ended["reason"]
    assert world.until_beating(after=first["id"])
    assert len(world.all("SELECT * FROM generations")) == 1


def test_one_that_is_stopped_is_silent_not_wedged(hooked):
    world = hooked(timeout="8s")
    world.start()
    first = world.until_beating(1)
    child = world.live()["pid"]
    os.kill(child, signal.SIGSTOP)
    world.until(lambda: procfs.state(child) != "T", "tmux to wake it up")  # what tmux itself started it wakes
    type_line(world, "suspend")
    assert end_of(world, first)["trigger"] == "watchdog"


def test_a_long_turn_with_progress_is_none(hooked):
    world = hooked(timeout="8s")
    world.start()
    first = world.until_beating(1)
    type_line(world, "think")
    world.until(lambda: len(talk(world).get("last", [])) > 170, "a turn longer than twice the timeout")
    assert world.launches()[-1]["id"] == first["id"]


def test_a_wedged_turn_is_interrupted_first_and_told_why(hooked):
    world = hooked(interrupt="Escape", message="keys")
    world.start()
    first = world.until_beating(1)
    type_line(world, "work")
    world.until(lambda: len(told(world, first["id"])) > 1, "the message")
    (message,) = told(world, first["id"])[1:]
    assert "so Escape was pressed to end your turn" in message
    assert [e["text"] for e in world.all("SELECT * FROM events WHERE kind='message'")] == [
        f"launch {first['id']}: {message}"]  # fmt: skip
    type_line(world, "hello")
    world.until(lambda: told(world, first["id"])[2:] == ["hello"], "the next turn")
    assert world.launches()[-1]["id"] == first["id"]


def test_a_health_address_is_asked(make):
    class Health(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self):
            self.send_response(self.status)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/health"
        world = make(
            [sys.executable, "agent.py", "../state/talk"],
            {"agent": {"ready": "notify"}, "heartbeat": {"from": "http", "url": url, "timeout": "8s"}},
        )
        world.start()
        first = world.until_beating(1)
        Health.status = 503
        ended = end_of(world, first)
        assert (ended["end"], ended["trigger"]) == ("failed", "watchdog")
        Health.status = 200
        assert world.until_beating(after=first["id"])
    finally:
        server.shutdown()
        server.server_close()


def test_state_in_the_home_folder_is_in_the_snapshots_and_comes_back(make, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    store = tmp_path / ".talker"
    store.mkdir()
    (store / "store.sqlite").write_text("good")
    world = make(
        [sys.executable, "agent.py", "../state/talk"],
        {"state": {"extra": ["~/.talker/*"], "restore": ["*.sqlite"]}, "probation": {"tries": 1}},
    )
    world.start()
    world.until_beating(1)
    world.stop()
    world.commit({"agent.py": "import os, sys; open(os.path.expanduser('~/.talker/store.sqlite'), 'w').write('bad')\n"
                              "sys.exit(3)\n"}, "bad")  # fmt: skip
    world.start()
    world.until_outcome("recovered")
    assert (store / "store.sqlite").read_text() == "good"


def test_a_preset_is_adopted_with_its_folders(monkeypatch):
    world = World(monkeypatch)
    try:
        known = preset.find("llm", "/nonexistent")
        world.context = adopt.adopt(
            world.paths,
            str(world.code),
            [sys.executable, "-c", "chat"],
            state_dir=str(world.state),
            settings=world.settings,
            preset=known,
        )
        settings = world.context.config
        assert settings.agent.environment == {"LLM_USER_PATH": f"{world.state}/llm"}
        assert settings.agent.command == [sys.executable, "-c", "chat"]
        assert settings.agent.resume_command == [sys.executable, "-c", "chat", "--continue"]
        assert settings.resume.message == "keys"
    finally:
        world.end()
