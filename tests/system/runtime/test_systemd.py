"""What systemd and its journal see of us: units, drop-ins, fields, names."""

import json
import os
import re

import boxes
import pytest
from boxed_world import SHORT, World, manifest

# One agent, seen as it is, then with other settings, uninstalled at the end.
pytestmark = [pytest.mark.in_order, pytest.mark.every_root]
PARTS = (".service", "-rollback.service", "-rescue.service", "-prune.service", "-prune.timer")
UNITS = sorted(path.name for path in (boxes.CHECKOUT / "systemd").glob("agent*"))


@pytest.fixture(scope="module")
def world(box):
    """An agent that runs all the time."""
    return World(box, "seen").make().start()


def test_units_verify_as_they_are(box):
    done = box.run(["systemd-analyze", "verify", "--man=no"]
                   + [f"{boxes.SOURCE_INSIDE}/systemd/{name}" for name in UNITS], check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_installed_units_verify(world):
    done = world.box.run(["systemd-analyze", "verify", "--man=no"]
                         + [f"/etc/systemd/system/{world.name}{part}"
                            for part in PARTS], check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for part in PARTS:
        text = world.box.path(f"/etc/systemd/system/{world.name}{part}").read_text()
        assert not re.search(r"\bagent(-rollback|-rescue|-prune)?\.(service|timer)\b", text)


def test_it_prunes_once_a_day(world):
    """The timer waits, its service frees what is old, beside the running agent."""
    timer, service = f"{world.name}-prune.timer", f"{world.name}-prune.service"
    assert world.systemctl("is-active", timer).stdout == "active\n"
    launch = world.status()["launch_id"]
    launches = world.box.path(f"/var/lib/agentctl/{world.name}/incidents/launches")
    old = launches / "20200101-000000-abcdef"
    old.mkdir(parents=True)
    (old / "pane.txt").write_text("long ago")
    os.utime(old, (1.5e9, 1.5e9))
    newer = launches / "20200102-000000-abcdef"
    newer.mkdir()
    for number in range(3):
        (launches / f"2999010{number}-000000-abcdef").mkdir()
    assert world.systemctl("start", service).returncode == 0
    assert not old.exists() and newer.exists()
    assert "1 of the evidence" in world.journal(unit=service)
    assert world.status()["launch_id"] == launch


def test_it_is_enabled_and_what_it_is_says_systemctl(world):
    assert world.systemctl("is-enabled", world.name).stdout == "enabled\n"
    shown = world.systemctl("status", world.name).stdout
    assert "generation 1: running" in shown
    assert world.unit("NotifyAccess") == "main"
    assert world.unit("WatchdogUSec") == SHORT["heartbeat"]["timeout"]


def test_the_journal_reads_like_the_agent(world):
    world.tell("talk")
    world.wait_until(lambda: "a line to find" in world.journal(), "the line")
    lines = world.journal().splitlines()
    assert "red and bold: a line to find" in lines
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", world.journal())


def test_one_launch_can_be_filtered(world):
    launches = [world.status()["launch_id"]]
    world.systemctl("restart", world.name)
    launches.append(world.wait_steady()["launch_id"])
    for launch in launches:
        text = world.wait_until(
            lambda launch=launch: (shown := world.box.run(
                ["journalctl", "-o", "json", f"AGENTCTL_LAUNCH_ID={launch}"]).stdout)
            and f"launch {launch} works" in shown and shown, "its lines")  # fmt: skip
        entries = [json.loads(line) for line in text.splitlines()]
        works = [e for e in entries if str(e["MESSAGE"]).endswith("works")]
        assert [e["MESSAGE"] for e in works] == [f"launch {launch} works"]
        # Of a line that comes when its sender has just ended, the journal may not know the unit, and it is found all
        # the same: last words are what is looked for.
        assert {e["OBJECT_SYSTEMD_UNIT"] for e in entries} == {f"{world.name}.service"}
        assert {e["_SYSTEMD_UNIT"] for e in works} == {f"{world.name}.service"}
        assert {e.get("_SYSTEMD_UNIT") for e in entries} <= {f"{world.name}.service", None}
        assert {e["AGENTCTL_GENERATION"] for e in entries} == {"1"}
    unsigned = ["_UID=0", f"OBJECT_SYSTEMD_UNIT={world.name}.service"]  # what `-u` looks for, too
    assert "works" in world.box.run(["journalctl", "-o", "cat", *unsigned]).stdout
    wanted = ["AGENTCTL_GENERATION=1", f"_SYSTEMD_UNIT={world.name}.service"]
    assert "works" in world.box.run(["journalctl", "-o", "cat", *wanted]).stdout
    wanted[0] = "AGENTCTL_GENERATION=2"
    assert "works" not in world.box.run(["journalctl", "-o", "cat", *wanted]).stdout


def test_logs_shows_the_same(world):
    assert "works" in world.ctl("logs").stdout


def test_a_changed_setting_reaches_the_unit(world):
    told = world.ctl("config", "set", "heartbeat.timeout", "9s").stdout
    assert "agentctl install" in told
    world.install()
    drop_in = f"/etc/systemd/system/{world.name}.service.d/50-agentctl.conf"
    assert "WatchdogSec=9s" in world.box.path(drop_in).read_text()
    assert world.systemctl("show", "-P", "NeedDaemonReload", world.name).stdout == "no\n"
    world.systemctl("restart", world.name)
    assert world.unit("WatchdogUSec") == "9s"


def test_a_mistake_in_the_settings_leaves_the_agent_alone(world):
    launch = world.wait_steady()["launch_id"]
    path = world.box.path(world.config_path)
    right = path.read_text()
    path.write_text(right.replace('"9s"', '"soon"') + "\n[probatoin]\nx = 1\n")
    try:
        refused = world.ctl("install", check=False)
        assert refused.returncode == 1
        assert "heartbeat.timeout" in refused.stderr
        assert "probatoin" in refused.stderr
        world.systemctl("restart", world.name)
        assert world.wait_steady()["launch_id"] != launch
    finally:
        path.write_text(right)


def test_agents_side_by_side_do_not_disturb_each_other(world):
    other = World(world.box, "other").make().start()
    launch = world.wait_steady()["launch_id"]
    other.check_rolled_back(other.break_it("crash"), "crash")
    other.systemctl("stop", other.name)
    status = world.status()
    assert (status["launch_id"], status["phase"]) == (launch, "steady")
    assert world.incidents() == []
    assert world.rollback_runs() == 0


def test_a_second_init_of_the_same_name_is_refused(world):
    another = World(world.box, "another").make_repository()
    launch = world.wait_steady()["launch_id"]
    kept = world.box.path(world.config_path).read_text()
    for code in (world.code, another.code):
        refused = world.ctl("init", code, "--", "python3", "agent.py", check=False)
        assert refused.returncode == 1
        assert "Hint:" in refused.stderr
    assert world.box.path(world.config_path).read_text() == kept
    assert world.wait_steady()["launch_id"] == launch


def test_one_repository_has_one_agent(world):
    refused = World(world.box, "thief").ctl("init", world.code, "--", "python3", "agent.py",
                                            check=False)  # fmt: skip
    assert refused.returncode == 1
    assert "adopted already" in refused.stderr
    assert not world.box.path("/etc/agentctl/thief").exists()


def test_uninstall_removes_nothing_of_the_agent(world):
    before = manifest(world.box.path(world.code))
    world.ctl("uninstall")
    assert not list(world.box.path("/etc/systemd/system").glob(f"{world.name}*"))
    assert manifest(world.box.path(world.code)) == before
    assert world.box.path(world.state).is_dir()
    world.install().start()
