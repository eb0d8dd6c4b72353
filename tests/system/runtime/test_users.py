"""Whose hand does what: an agent of another user, and an agent in a person's own manager."""

import json
import stat

import boxes
import pytest
from boxed_world import World, manifest
from boxes import new_box

pytestmark = pytest.mark.in_order  # one agent of each kind, from its adoption to what was tried with it at the end
PLANT = """
cd "$1"
for hook in pre-commit post-checkout post-commit reference-transaction post-index-change \\
            pre-auto-gc post-merge; do
    printf '#!/bin/sh\\ntouch /tmp/pwned-$(id -u)\\n' >.git/hooks/$hook
    chmod 755 .git/hooks/$hook
done
cat >>.git/config <<'END'
[core]
	fsmonitor = "touch /tmp/pwned-$(id -u); :"
	pager = touch /tmp/pwned-$(id -u)
	sshCommand = touch /tmp/pwned-$(id -u)
[filter "planted"]
	clean = touch /tmp/pwned-$(id -u); cat
	smudge = touch /tmp/pwned-$(id -u); cat
[diff "planted"]
	textconv = touch /tmp/pwned-$(id -u); cat
	command = touch /tmp/pwned-$(id -u); cat
[diff]
	external = touch /tmp/pwned-$(id -u)
[gpg]
	program = touch /tmp/pwned-$(id -u)
[uploadpack]
	packObjectsHook = touch /tmp/pwned-$(id -u)
END
echo '* filter=planted diff=planted' >.git/info/attributes
"""
ASK_PROCESSES = r"""
import json, os
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        status = open(f"/proc/{pid}/status").read()
        cgroup = open(f"/proc/{pid}/cgroup").read().strip()
        name = open(f"/proc/{pid}/cmdline").read().replace("\0", " ")
    except OSError:
        continue
    ids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    found.append({"uids": sorted(set(map(int, ids))), "cgroup": cgroup, "command": name})
print(json.dumps(found))
"""


# -- an agent with a user of its own --------------------------------------------------------------


@pytest.fixture(scope="module")
def world(box):
    """An agent called `robot`, run by the user bot, in a repository full of traps."""
    box.run(["useradd", "-m", "bot"])
    world = World(box, "robot", owner="bot").make_repository()
    world.shell(PLANT)
    return world.adopt().install().start()


def uid_of(world):
    return int(world.box.run(["id", "-u", world.owner]).stdout)


def test_its_processes_are_the_user_s(world):
    assert world.witnesses()[-1]["uid"] == uid_of(world)
    own = uid_of(world)

    def seen():
        shown = json.loads(world.box.run(["python3", "-c", ASK_PROCESSES]).stdout)
        ours = [p for p in shown if p["cgroup"].endswith(f"/{world.name}.service")]
        return ours, [p["command"] for p in ours if p["uids"] != [own]]

    # Beside the runner, its jobs work for a while: standby, ballast.
    ours = world.wait_until(lambda: len((found := seen())[1]) == 1 and found[0], "the end of the jobs")
    (root,) = (p["command"] for p in ours if p["uids"] != [own])
    assert "entry.py runner robot" in root
    assert any("agent.py" in p["command"] for p in ours)
    assert any("tmux" in p["command"] for p in ours)


@pytest.mark.parametrize("what", ["vault.git", "ledger.db", "snapshots", "incidents"])
def test_it_cannot_read_our_records(world, what):
    paths = list(world.box.path(world.data).glob(f"{what}*"))
    assert paths, [path.name for path in world.box.path(world.data).iterdir()]
    for path in paths:
        inside = f"{world.data}/{path.name}"
        for question in ("-r", "-w"):
            done = world.box.run(["test", question, inside], user="bot", check=False)
            assert done.returncode == 1, f"bot may {question} {inside}"
    assert world.box.run(["ls", world.data], user="bot", check=False).returncode


def test_it_cannot_change_standby_or_quarantine(world):
    for inside in (world.slots, f"{world.slots}/quarantine"):
        assert world.box.run(["ls", inside], user="bot", check=False).returncode
        assert world.box.run(["touch", f"{inside}/x"], user="bot", check=False).returncode
    standby = f"{world.slots}/standby"
    world.wait_until(lambda: world.box.path(standby).is_dir(), "the standby")
    assert world.box.run(["ls", f"{standby}/"], user="bot", check=False).returncode
    assert world.box.run(["touch", f"{standby}/x"], user="bot", check=False).returncode


def test_agentctl_restart_works_from_inside(world):
    launch = world.status()["launch_id"]
    world.tell("restart")
    witness = world.wait_launch(launch)
    assert f"saved by {launch}" in witness["task"]
    assert witness["uid"] == uid_of(world)
    assert not [done for done in world.lines("restart.jsonl") if done["status"]]
    world.wait_steady()
    assert world.incidents() == []


def test_a_rollback_runs_nothing_of_the_agent_as_root(world):
    world.box.run(["sh", "-c", "rm -f /tmp/pwned-*"])
    world.shell("cd \"$1\"; echo '* filter=planted diff=planted' >.gitattributes")
    before = world.break_it("crash", script="git add .gitattributes")
    incident = world.check_rolled_back(before, "crash")
    world.ctl("why")
    world.ctl("diff", "1", "2")
    world.ctl("rollback", "undo", "--dry-run")
    pwned = [path.name for path in world.box.path("/tmp").glob("pwned-*")]
    assert "pwned-0" not in pwned
    # What is in the live tree belongs to the agent's user; a foreign file would stop it working.
    foreign = world.box.run(["find", world.code, "-ignore_readdir_race", "!", "-user", "bot"]).stdout
    assert foreign == ""
    assert world.git("status", "--porcelain") == ""
    world.shell('cd "$1"; git switch -qc again; git commit -q --allow-empty -m Works; git switch -q main')
    for rescue in (f"rescue/{incident['id']}", "again"):
        world.git("rev-parse", "--verify", rescue)
    kept = world.box.path(f"{world.slots}/quarantine")
    assert stat.S_IMODE(kept.stat().st_mode) & 0o022 == 0


def test_state_files_belong_to_the_user_after_a_rollback(world):
    foreign = world.box.run(["find", world.state, "-ignore_readdir_race", "!", "-user", "bot"]).stdout
    assert foreign == ""


def test_another_user_sees_that_there_is_something_he_may_not_see(world):
    world.box.run(["useradd", "-m", "guest"])
    done = world.box.run(["agentctl", "--name", world.name, "status"], user="guest", check=False)
    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stdout + done.stderr
    assert "sudo agentctl" in done.stdout + done.stderr
    refused = world.box.run(["agentctl", "--name", world.name, "rollback", "--yes"], user="guest",
                            check=False)  # fmt: skip
    assert refused.returncode == 1
    assert "Error: " in refused.stderr
    assert "a bug" not in refused.stderr


# -- a person's own manager -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(box_root):
    """An agent in the manager of the user ann."""
    with new_box(box_root, user_manager=True) as box:
        box.boot()
        box.run(["useradd", "-m", "ann"])
        box.start_user_manager("ann")
        yield World(box, "agent", owner="ann", is_users=True).make().start()


def test_a_crash_is_rolled_back_in_user_mode(own):
    uid = int(own.box.run(["id", "-u", "ann"]).stdout)
    assert own.witnesses()[-1]["uid"] == uid
    before = own.break_it("crash-at-import")
    own.check_rolled_back(before, "crash-at-start")


def test_a_rollback_by_hand_in_user_mode(own):
    better = own.commit(version="2")
    own.systemctl("restart", own.name)
    own.wait_steady(commit=better)
    done = own.ctl("rollback", "--yes")
    assert "recovered" in done.stdout
    own.wait_steady(commit=own.good)
    assert own.head == own.good
    assert own.witnesses()[-1]["brief"].startswith("# You were rolled back")


def test_linger_brings_it_back_after_a_reboot(own):
    launch = own.status()["launch_id"]
    own.box.reboot()
    witness = own.wait_launch(launch)
    assert witness["resumed"] == "1"
    assert f"saved by {launch}" in witness["task"]
    own.wait_steady(commit=own.good)
    assert len(own.incidents()) == 2
    assert own.systemctl("is-enabled", own.name).stdout == "enabled\n"


def test_restart_from_inside_in_user_mode(own):
    launch = own.status()["launch_id"]
    own.tell("restart")
    own.wait_launch(launch)
    own.wait_steady(commit=own.good)
    assert not [done for done in own.lines("restart.jsonl") if done["status"]]


def test_the_system_of_root_knows_nothing_of_it(own):
    refused = own.box.run(["agentctl", "status"], check=False)
    assert refused.returncode == 1
    assert "no agent called 'agent'" in refused.stderr
    assert boxes.VENV_INSIDE not in refused.stderr
    assert manifest(own.box.path(own.code))
