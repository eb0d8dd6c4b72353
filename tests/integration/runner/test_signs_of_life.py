"""Agents that know nothing of us: how life is judged instead, from a file, a command, output, HTTP, time alive."""

import json
import sys

import pytest

from agentctl.changes import adopt
from agentctl.core.errors import AgentctlError
from agentctl.runtime import runner_client
from integration.world import World

LOOP = """
import os, sys, time
state = os.environ["AGENT_STATE_DIR"]
os.environ.pop("NOTIFY_SOCKET")
while not os.path.exists(f"{state}/hang-{os.environ['AGENT_LAUNCH_ID']}"):
    KIND
    time.sleep(0.1)
time.sleep(3600)
"""
KINDS = {
    "file": "open(f'{state}/alive', 'w').write(str(time.time()))",
    "output": "print('still here', flush=True)",
    "command": "open(f'{state}/alive', 'w').write(str(time.time()))",
}
SETTINGS = {
    "file": {"from": "file", "file": "alive"},
    "output": {"from": "output"},
    # Alive is a file younger than two seconds; the probe knows the state folder from its environment.
    "command": {
        "from": "command",
        "command": [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import os,sys,time; p=os.environ['AGENT_STATE_DIR']+'/alive'; sys.exit(time.time()-os.stat(p).st_mtime>2)",
        ],
    },
}


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(code: str, settings: dict) -> World:
        world = World(monkeypatch, settings)
        worlds.append(world)
        world.commit({"agent.py": code}, "an agent that knows nothing")
        world.context = adopt.adopt(
            world.paths,
            str(world.code),
            [sys.executable, "agent.py"],
            state_dir=str(world.state),
            settings=world.settings,
        )
        return world

    yield build
    for world in worlds:
        world.end()


def test_the_first_sign_of_life_does_not_wait_for_a_quarter_of_the_timeout(make):
    heartbeat = {"from": "process", "timeout": "60s", "longest_wait": "2m"}  # so its looks are 10 s apart
    world = make("import time\ntime.sleep(3600)", {"agent": {"ready": "200ms"}, "heartbeat": heartbeat})
    world.start()
    launch = world.until_beating(1)
    assert launch["first_beat_at"] - launch["ready_at"] < 9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ready", ["notify", "300ms"])
def test_life_is_seen_and_so_is_its_end(make, kind, ready):
    world = make(
        LOOP.replace("KIND", KINDS[kind]), {"agent": {"ready": ready}, "heartbeat": {"timeout": "8s", **SETTINGS[kind]}}
    )
    world.start()
    first = world.until_beating(1)
    (world.state / f"hang-{first['id']}").touch()
    ended = world.until(
        lambda: next((x for x in world.launches() if x["id"] == first["id"] and x["end"]), None), "the hang to be seen"
    )
    assert (ended["end"], ended["trigger"]) == ("failed", "watchdog")
    assert world.until_beating(1, after=first["id"])


def test_an_old_file_is_no_sign_of_this_launch(make):
    world = make(
        "import time; time.sleep(3600)",
        {"agent": {"ready_timeout": "8s"}, "heartbeat": {"from": "file", "file": "alive"}},
    )
    (world.state / "alive").write_text("from the last launch")
    world.start()
    ended = world.until(lambda: next((x for x in world.launches() if x["end"]), None), "the launch to fail")
    assert (ended["trigger"], ended["ready_at"]) == ("not-ready", None)


def test_beats_over_http(make):
    code = """
import http.client, json, os, socket, time
path = os.environ["AGENT_API_URL"].removeprefix("http+unix://").replace("%2F", "/")
while True:
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        body = json.dumps({"launch_id": os.environ["AGENT_LAUNCH_ID"]}).encode()
        door.sendall(b"POST /health HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        answer = door.recv(65536)
    time.sleep(0.1)
"""
    world = make(code, {"heartbeat": {"from": "http"}})
    world.start()
    world.until_beating(1)
    health = runner_client.ask(world.paths.api_socket_path, "GET", "/health")
    assert health["launch_id"] == world.launches()[-1]["id"]
    with pytest.raises(AgentctlError, match="not of the launch that runs"):
        runner_client.ask(world.paths.api_socket_path, "POST", "/health", {"launch_id": "another"})


@pytest.mark.parametrize("request_bytes", [
    b"\r\n\r\n", b"GET\r\n\r\n", b"POST /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /health HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1]", b"\x00" * 70000, b"GET /nothing HTTP/1.1\r\n\r\n",
    b"POST /health HTTP/1.1\r\nContent-Length: 99999\r\n\r\nshort",
])  # fmt: skip
def test_nonsense_on_the_socket_does_not_disturb(make, request_bytes):
    import socket

    world = make(LOOP.replace("KIND", KINDS["file"]), {"heartbeat": SETTINGS["file"]})
    world.start()
    launch = world.until_beating(1)
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(world.paths.api_socket_path)
        door.settimeout(60)
        try:
            door.sendall(request_bytes)
            door.shutdown(socket.SHUT_WR)
            answer = door.recv(65536)
        except OSError:
            answer = b""
    assert not answer or answer[9:11] in (b"40", b"50")  # what the runner does not know is the watchdog's
    if answer.partition(b"\r\n\r\n")[2]:
        assert {"code", "message", "hint"} == json.loads(answer.partition(b"\r\n\r\n")[2]).keys()
    assert world.until_beating(1)["id"] == launch["id"]
