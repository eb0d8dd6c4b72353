"""Agents whose life nobody has described: judged by their process, until something better is heard."""

import os
import signal
import sys

import pytest

from agentctl.changes import adopt
from agentctl.core.text import one_line
from agentctl.host import procfs
from integration.world import World, merged

FOUND_OUT = {"agent": {"ready": "auto"}, "heartbeat": {"from": "auto", "timeout": "8s", "longest_wait": "20s"}}
PLAIN = """
import time
step = 0
while True:
    step += 1
    print("step", step, flush=True)
    time.sleep(0.2)
"""
BEATS = """
import os, socket, subprocess, sys, time
def notify(*lines):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.connect(os.environ["NOTIFY_SOCKET"])
        door.send("\\n".join(lines).encode())
"""
HANG = "\ntime.sleep(3600)\n"


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(code: str, settings: dict | None = None, command: tuple = (sys.executable, "agent.py")) -> World:
        world = World(monkeypatch, merged(FOUND_OUT, settings or {}))
        worlds.append(world)
        world.commit({"agent.py": code}, "an agent of its own")
        world.context = adopt.adopt(
            world.paths,
            str(world.code),
            list(command),
            state_dir=str(world.state),
            settings=world.settings,
        )
        return world

    yield build
    for world in worlds:
        world.end()


def ended(world: World) -> dict:
    return world.until(lambda: next((x for x in world.launches() if x["end"]), None), "the launch to end")


def test_what_knows_no_protocol_is_ready_after_two_seconds_and_good_after_its_probation(make):
    world = make(PLAIN, {"probation": {"duration": "1s", "heartbeats": 5}})
    world.commit({"agent.py": f"{PLAIN}# a change\n"}, "changed")
    world.start()
    launch = world.until_beating(2)
    assert launch["ready_at"] - launch["started_at"] >= 2
    world.until(lambda: world.status_of(2) == "good", "the blessing")
    told = world.live()
    assert (told["judged_by"], told["heartbeats"]) == ("process", 0)
    world.stop()
    assert world.launches()[-1]["life"].split() == ["output"]


def test_a_hang_at_import_of_what_is_known_to_write_is_not_blessed(make):
    world = make(PLAIN, {"probation": {"duration": "1s", "tries": 1}})
    world.start()
    world.until_beating(1)
    world.until(lambda: "step 3" in world.log, "its third step")
    world.stop()
    world.commit({"agent.py": f"import time{HANG}"}, "hangs at import")
    world.start()
    back = world.until_beating(1, after=world.until_beating(2)["id"])
    failed = next(x for x in world.launches() if x["generation"] == 2)
    assert failed["trigger"] == "less-life" and "'agentctl bless 2'" in failed["reason"]
    with open(f"{world.context.launch_dir(failed['id'])}/pane.txt", encoding="utf-8") as file:
        assert "agent.py" in file.read()  # the stack of who was ended with SIGABRT
    assert back["generation"] == 1


def test_a_hang_of_what_beats_is_seen(make):
    world = make(f"{BEATS}\nfor _ in range(5):\n    notify('WATCHDOG=1')\n    time.sleep(0.2){HANG}")
    world.start()
    failed = ended(world)
    assert (failed["end"], failed["trigger"]) == ("failed", "watchdog")
    assert {"beats", "own", "notified"} <= set(failed["life"].split())


HELPED = f"""{BEATS}
if "helper" in sys.argv:
    for _ in range(5):
        notify("WATCHDOG=1")
        time.sleep(0.2)
    sys.exit()
subprocess.run([sys.executable, __file__, "helper"])
{HANG}
"""


def test_a_helper_that_notifies_does_not_become_its_heart(make):
    world = make(HELPED, {"heartbeat": {"timeout": "4s"}})
    world.start()
    launch = world.until_beating(1)
    world.until(lambda: world.live().get("heartbeats") == 5, "the helper's heartbeats")
    lost = world.until(lambda: world.live().get("judged_by") == "process" and world.live(), "the helper's end")
    world.until(lambda: world.live()["last_heartbeat_at"] > lost["last_heartbeat_at"] + 8, "twice the limit")
    assert [x["id"] for x in world.launches()] == [launch["id"]]


def test_what_always_said_that_it_is_ready_has_to_say_it_again(make):
    world = make(f"{BEATS}\nnotify('READY=1'){HANG}", {"agent": {"ready_timeout": "13s"}, "probation": {"tries": 1}})
    world.start()
    world.until_beating(1)
    world.stop()
    world.commit({"agent.py": f"import time{HANG}"}, "says nothing any more")
    world.start()
    waiting = world.until(lambda: world.live().get("waits_for") and world.live(), "the word what it waits for")
    assert "generation 1 always sent" in waiting["waits_for"] and waiting["helps"].startswith("agentctl config set")
    world.until(lambda: any(x["generation"] == 2 and x["end"] for x in world.launches()), "its end")
    failed = next(x for x in world.launches() if x["generation"] == 2)
    assert failed["trigger"] == "not-ready" and waiting["helps"] in one_line(failed["reason"])


def test_a_process_that_is_stopped_is_not_alive(make):
    world = make(PLAIN, command=("sh", "-c", f"{sys.executable} agent.py; exit $?"))  # tmux wakes its own children
    world.start()
    world.until_beating(1)
    os.kill(procfs.children(world.live()["pid"])[0], signal.SIGSTOP)
    failed = ended(world)
    assert failed["trigger"] == "watchdog" and "its process was stopped" in failed["reason"]
