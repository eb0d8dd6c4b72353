"""The watchdog's unit on a real systemd: installed, hardened, and there when systemd itself sees nothing."""

import json
import re
import time

import pytest
from boxed_world import World

pytestmark = pytest.mark.in_order  # one agent and its watchdog; what each test does to them, the next one finds
SETTINGS = {
    "agent": {"ready_timeout": "30s", "stop_grace": "10s"},
    "heartbeat": {"timeout": "10m", "longest_wait": "1h"},
    "offline": {"after": "5s", "grace": "2s"},
    "rollback": {"restarts": 0},
}


def ask(world, method, route, body=None):
    """Ask at the watchdog's socket, from inside the box."""
    return talk(world, f"/run/agentctl/{world.name}/watchdog.sock", method, route, body)


def talk(world, path, method, route, body=None):
    script = (
        "import http.client, json, socket, sys\n"
        "path, method, route, body = sys.argv[1:]\n"
        "c = http.client.HTTPConnection('agentctl', timeout=30)\n"
        "c.sock = socket.socket(socket.AF_UNIX); c.sock.settimeout(30); c.sock.connect(path)\n"
        "c.request(method, route, body or None); r = c.getresponse()\n"
        "print(json.dumps([r.status, r.read().decode()]))\n"
    )
    done = world.box.run(["python3", "-c", script, path, method, route, json.dumps(body) if body else ""], check=False)
    status, text = json.loads(done.stdout) if done.returncode == 0 else (0, done.stderr)
    return status, text


def state(world):
    """Return what the watchdog leaves for `status`."""
    try:
        return json.loads(world.box.path(f"/run/agentctl/{world.name}/watchdog.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def until_state(world, *states):
    """Wait until the watchdog that runs now says so; what its forerunner left does not count."""

    def seen():
        found = state(world)
        is_its = str(found.get("pid")) == world.unit("MainPID", f"{world.name}-watchdog.service")
        return found if is_its and found.get("state") in states else None

    return world.wait_until(seen, f"state {states}")


@pytest.fixture(scope="module")
def world(box):
    """An agent with its watchdog, which starts with it."""
    made = World(box, "watched", **SETTINGS)
    made.make_repository().adopt().install("--json")
    made.start()
    until_state(made, "well")
    yield made
    made.systemctl("stop", f"{made.name}-watchdog", check=False)
    made.stop()


def test_the_unit_verifies_and_starts_with_the_agent(world):
    unit = f"{world.name}-watchdog.service"
    done = world.box.run(["systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{unit}"], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert world.unit("ActiveState", unit) == "active"
    assert world.unit("WatchdogUSec", unit) == "30s"
    text = world.box.path(f"/etc/systemd/system/{unit}").read_text()
    assert not re.search(r"\bagent(-rollback|-rescue|-watchdog)?\.service\b", text)


def test_it_is_hardened(world):
    done = world.box.run(["systemd-analyze", "security", "--no-pager", f"{world.name}-watchdog.service"], check=False)
    exposure = float(re.search(r"exposure level for .*: ([\d.]+)", done.stdout).group(1))
    assert exposure < 4.0, done.stdout


def test_one_address_for_the_agent(world):
    path = f"/run/agentctl/{world.name}/api.sock"
    status, text = talk(world, path, "GET", "/agents")
    assert status == 200 and json.loads(text)["agents"][0]["state"] == "well"
    status, text = talk(world, path, "POST", "/history", {"id": "one", "role": "user", "content": "through the runner"})
    assert (status, json.loads(text)) == (200, {"acknowledged": ["one"]})
    assert world.status()["watchdog"]["running"] is True


def test_offline_rollback_recovered(world):
    """The runner and its agent are frozen; systemd waits its ten minutes, the watchdog does not."""
    before = len(world.incidents())
    launch = world.wait_steady()["launch_id"]
    world.box.run(["systemctl", "kill", "--signal=STOP", f"{world.name}.service"])
    incident = world.wait_outcome("recovered", before + 1)
    assert incident["trigger"] == "offline" and "does not answer" in incident["reason"]
    assert world.wait_steady()["launch_id"] != launch
    until_state(world, "well")
    kinds = [e["kind"] for e in json.loads(ask(world, "GET", "/events?last=100")[1])["events"]]
    assert "recovered" in kinds and "offline" in kinds
    assert "one" in {json.loads(line)["id"] for line in world.history()}


def test_killed_or_hung_it_comes_back_and_blames_nobody(world):
    unit = f"{world.name}-watchdog.service"
    count = len(world.incidents())
    pid = world.unit("MainPID", unit)
    world.box.run(["systemctl", "kill", "--signal=KILL", unit])
    world.wait_until(lambda: world.unit("MainPID", unit) not in ("0", pid), "another process")
    until_state(world, "well")
    world.box.run(["systemctl", "kill", "--signal=STOP", unit])
    time.sleep(12)  # longer than after and grace
    world.box.run(["systemctl", "kill", "--signal=CONT", unit])
    world.wait_until(lambda: "unknown" in ask(world, "GET", f"/agents/{world.name}")[1], "the gap on record")
    until_state(world, "well")
    assert len(world.incidents()) == count


def test_a_pause_and_its_end(world):
    count = len(world.incidents())
    world.ctl("pause", "--for", "1h")
    until_state(world, "well")
    world.box.run(["systemctl", "kill", "--signal=STOP", f"{world.name}.service"])
    until_state(world, "offline")
    assert len(world.incidents()) == count
    world.ctl("pause", "--for", "1s")
    world.wait_outcome("recovered", count + 1)


def test_a_stop_by_hand_is_no_failure(world):
    count = len(world.incidents())
    world.systemctl("stop", world.name)
    seen = until_state(world, "stopped")
    assert seen["reason"] == "stopped by hand"
    world.wait_until(lambda: state(world)["at"] > seen["at"] + 10, "it to look for longer than after and grace")
    assert world.unit("ActiveState") == "inactive" and len(world.incidents()) == count
    world.start()
    until_state(world, "well")


def test_with_the_watchdog_dead_everything_else_works(world):
    count, unit = len(world.incidents()), f"{world.name}-watchdog.service"
    dead = world.box.path(f"/etc/systemd/system/{unit}.d/60-dead.conf")
    dead.write_text("[Unit]\nConditionPathExists=/nowhere\n")  # or it would be started again with the agent
    world.systemctl("daemon-reload")
    world.systemctl("stop", unit)
    assert talk(world, f"/run/agentctl/{world.name}/api.sock", "GET", "/agents")[0] == 503
    world.tell("crash")
    world.wait_outcome("recovered", count + 1)
    assert world.wait_steady()["watchdog"]["running"] is False
    dead.unlink()
    world.systemctl("daemon-reload")
    world.systemctl("start", unit)
    until_state(world, "well")


def test_hung_for_good_its_unit_begins_it_anew(world):
    unit = f"{world.name}-watchdog.service"
    world.box.path(f"/etc/systemd/system/{unit}.d/60-test.conf").write_text("[Service]\nWatchdogSec=3s\n")
    world.systemctl("daemon-reload")
    world.systemctl("restart", unit)
    until_state(world, "well")
    pid = world.unit("MainPID", unit)
    world.box.run(["systemctl", "kill", "--signal=STOP", unit])
    world.wait_until(lambda: world.unit("MainPID", unit) not in ("0", pid), "another process")
    until_state(world, "well")
