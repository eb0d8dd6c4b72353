"""The runtime `direct` from end to end: break a real agent in every way, watch it come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentctl.host import procfs
from agentctl.state import task
from integration.world import HANGS, PATIENCE_SECONDS, SOURCE, World, git, wait_until, write
from kit import deadline
from kit.manifest import manifest

ONE_TRY = {"probation": {"tries": 1}}


@pytest.fixture
def make(monkeypatch):
    worlds = []

    def build(settings=None, *, adopted=True, **more):
        worlds.append(World(monkeypatch, settings, **more))
        return worlds[-1].adopt() if adopted else worlds[-1]

    yield build
    for world in worlds:
        world.end()


def assert_recovered(world: World, *, trigger: str, rungs: list[tuple]) -> dict:
    """The one before the fault runs, the evidence is kept, the history names the reason; return the incident."""
    incident = world.until_outcome("recovered")
    world.until_beating(1)
    assert incident["trigger"] == trigger
    assert incident["reason"] in world.all("SELECT reason FROM attempts ORDER BY at")[-1]["reason"]
    assert world.rungs() == rungs
    assert git(world.code, "rev-parse", "HEAD") == world.first
    assert git(world.code, "symbolic-ref", "--short", "HEAD") == world.branch
    assert git(world.code, "status", "--porcelain") == ""
    proof = world.evidence(incident)
    assert proof["failures"][-1]["trigger"] == trigger
    assert "agent: starting" in proof["last_lines"]
    assert (world.state / "BRIEF.md").exists() == any(rung != "restart" for rung, _ in rungs)
    return incident


# --- what is well stays alone


def test_a_healthy_agent_is_started_and_left_alone(make):
    world = make()
    world.start()
    launch = world.until_beating(1)
    assert world.incidents() == []
    assert [s["launch"] for s in world.starts()] == [launch["id"]]
    assert world.starts()[0]["commit"] == world.first
    assert world.stop() == 0
    assert world.processes() == []
    assert world.launches()[-1]["end"] == "stopped"
    assert (world.state / "saved").read_text() == launch["id"] + "\n"


def test_a_candidate_that_proves_itself_is_blessed(make):
    world = make({"probation": {"duration": "0s", "heartbeats": 3}})
    world.commit({"note.txt": "new"})
    world.start()
    world.until(lambda: world.status_of(2) == "good", "generation 2 to be good")
    world.until(lambda: world.context.slots.standby_note().get("generation") == 2, "its standby")
    assert world.incidents() == []


@pytest.mark.parametrize("status", [0, 75])
def test_a_self_restart_is_no_incident(make, status):
    world = make()
    write(world.state, {"mode": f"restart-{status}"})
    world.start()
    world.until((world.state / "restarted").exists, "the agent to end itself")
    first = world.starts()[0]["launch"]
    world.until_beating(1, after=first)
    assert world.incidents() == []
    assert [(row["end"], row["exit_status"]) for row in world.launches()] == [("asked", status), ("", None)]
    assert not (world.state / "BRIEF.md").exists()


def test_self_restarts_do_not_use_up_the_budget_of_rollbacks(make):
    world = make({"rollback": {"restarts": 100}, **ONE_TRY})
    write(world.state, {"mode": "again-0"})
    world.start()
    world.until(lambda: len(world.starts()) >= 6, "five self-restarts")
    write(world.state, {"mode": ""})
    world.until_beating(1)
    world.stop()
    asked = world.rungs()
    assert set(asked) == {("asked", 1)} and len(asked) >= 5
    world.mode("crash")
    world.start()
    assert_recovered(world, trigger="crash-at-start", rungs=[*asked, ("last known good", 1)])


def test_an_agent_that_restarts_itself_again_and_again_ends_halted(make):
    world = make()
    write(world.state, {"mode": "again-75"})
    running = world.start()
    assert world.end_of(running) == 77
    assert world.incidents()[-1]["outcome"] == "halted"
    assert len(world.starts()) <= 8


# --- a bad commit goes back


def test_crash_at_import_goes_back_whole(make):
    world = make({"state": {"restore": ["config/*"]}})
    git(world.code, "branch", "idea")
    world.commit({"tracked.txt": "one\n", "tool.sh": "#!/bin/sh\n"})
    good = world.mode("crash")
    write(world.code, {"tracked.txt": "dirty\n", "untracked/new.txt": "new\n", "data.cache": "ignored\n"})
    os.chmod(world.code / "tool.sh", 0o755)
    os.symlink("nowhere", world.code / "link")
    before = manifest(world.code, without=(".git",))
    world.start()
    incident = assert_recovered(world, trigger="crash-at-start", rungs=[("restart", 2), ("last known good", 1)])

    assert [s["generation"] for s in world.starts()] == ["2", "2", "1"]
    assert world.status_of(2) == "condemned"
    brief = (world.state / "BRIEF.md").read_text()
    assert "RuntimeError: told to crash" in brief and f"rescue/{incident['id']}" in brief
    assert world.starts()[-1]["brief"] == str(world.state / "BRIEF.md")
    assert any("RuntimeError: told to crash" in line for line in world.evidence(incident)["stack"])

    live, kept = manifest(world.code), manifest(world.quarantine(incident) / "tree")
    lost = {name: what for name, what in before.items() if what not in (live.get(name), kept.get(name))}
    assert {name for name in lost if "__pycache__" not in name} == set()
    assert (world.code / "data.cache").read_text() == "ignored\n"
    assert not (world.code / "untracked").exists()

    assert git(world.code, "rev-parse", "idea") == world.first
    rescue = f"rescue/{incident['id']}"
    assert git(world.code, "rev-parse", f"{rescue}~1") == good
    assert git(world.code, "show", f"{rescue}:tracked.txt") == "dirty"
    assert git(world.code, "show", f"{rescue}:untracked/new.txt") == "new"
    assert git(world.code, "ls-tree", rescue, "tool.sh").startswith("100755")
    assert git(world.code, "ls-tree", rescue, "link").startswith("120000")
    assert git(world.code, "ls-tree", rescue, "data.cache") == ""
    git(world.code, "fsck", "--strict")


def test_a_branch_of_another_name_keeps_its_name(make):
    world = make(ONE_TRY, branch="master")
    world.mode("crash")
    world.start()
    assert_recovered(world, trigger="crash-at-start", rungs=[("last known good", 1)])


def test_the_same_bad_tree_is_refused_next_time(make):
    world = make(ONE_TRY)
    bad = world.mode("crash")
    world.start()
    world.until_outcome("recovered")
    world.stop()
    git(world.code, "reset", "-q", "--hard", bad)
    world.start()
    world.until(lambda: len(world.incidents()) == 2, "a second incident")
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "refused"
    assert [s["generation"] for s in world.starts()] == ["2", "1", "1"]


def test_crash_later(make):
    world = make(ONE_TRY)
    world.mode("crash-later")
    world.start()
    incident = assert_recovered(world, trigger="crash", rungs=[("last known good", 1)])
    assert world.evidence(incident)["exit_class"] == "RuntimeError: told to crash later"
    assert world.evidence(incident)["ready"]


def test_exit_78_goes_to_the_next_rung_at_once(make):
    world = make()
    world.mode("exit-78")
    world.start()
    incident = assert_recovered(world, trigger="crash-at-start", rungs=[("last known good", 1)])
    assert world.evidence(incident)["exit_status"] == 78
    assert [s["generation"] for s in world.starts()] == ["2", "1"]


def test_a_hang_shows_its_stack(make):
    world = make({**ONE_TRY, **HANGS})
    world.mode("hang")
    world.start()
    incident = assert_recovered(world, trigger="watchdog", rungs=[("last known good", 1)])
    assert any("stuck_in_the_work_loop" in line for line in world.evidence(incident)["stack"])


def test_a_hang_behind_a_beating_side_thread(make):
    world = make({**ONE_TRY, **HANGS})
    world.mode("side-thread")
    world.start()
    incident = assert_recovered(world, trigger="watchdog", rungs=[("last known good", 1)])
    assert "no progress" in incident["reason"]
    assert any("stuck_in_the_work_loop" in line for line in world.evidence(incident)["stack"])


def test_never_ready(make):
    world = make({**ONE_TRY, "agent": {"ready_timeout": "8s"}})
    world.mode("never-ready")
    world.start()
    assert_recovered(world, trigger="not-ready", rungs=[("last known good", 1)])


# --- things that happen to good code


def kill_tmux(world: World) -> None:
    deadline.run(["tmux", "-S", world.paths.tmux_socket_path, "kill-server"], check=True)


def kill_runner(world: World) -> None:
    os.kill(world.live()["runner_pid"], signal.SIGKILL)


def freeze_agent(world: World) -> None:
    """Freeze the terminal first: a tmux that runs continues its stopped child at once."""
    agent = world.starts()[-1]["pid"]
    server = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (server, agent):
        os.kill(pid, signal.SIGSTOP)


def kill_agent(world: World) -> None:
    os.kill(world.starts()[-1]["pid"], signal.SIGKILL)


@pytest.mark.parametrize(
    ("hurt", "triggers"),
    [
        (kill_tmux, ("tmux-killed", "crash")),
        (kill_runner, ("runner-killed",)),
        (freeze_agent, ("watchdog",)),
        (kill_agent, ("crash",)),
    ],
)
def test_good_code_is_restarted_where_it_is(make, hurt, triggers):
    world = make(HANGS)
    world.start()
    launch = world.until_beating(1)
    old = world.starts()[-1]["pid"]
    before = world.history()
    hurt(world)
    incident = world.until_outcome("recovered")
    world.until_beating(1, after=launch["id"])
    assert incident["trigger"] in triggers
    assert world.rungs() == [("restart", 1)]
    assert procfs.variables(old).get("AGENT_LAUNCH_ID") != launch["id"]
    assert world.history()[: len(before)] == before
    assert world.starts()[-1]["resumed"] == "1"


# --- the state


def test_history_is_never_shortened(make):
    world = make(ONE_TRY)
    world.start()
    world.until(lambda: len(world.history()) > 5, "some history")
    world.stop()
    world.mode("crash-later")
    before = world.history()
    world.start()
    world.until_outcome("recovered")
    after = world.history()
    assert after[: len(before)] == before
    assert len(after) > len(before) + 3  # what the condemned generation said stays too


@pytest.mark.parametrize("harm", [
    "path.write_bytes(data[:40] + b'\\0\\xff{{' + data[400:])", "path.write_bytes(data[:len(data) // 2])",
    "path.write_bytes(b'')", "path.unlink()", "path.write_bytes(data + b'{{{ no message')",
], ids=["junk inside", "cut short", "emptied", "deleted", "torn end"])  # fmt: skip
def test_a_history_that_the_bad_version_damaged_is_mended(make, harm):
    world = make(ONE_TRY)
    world.start()
    world.until(lambda: len(world.history()) > 5, "some history")
    world.stop()
    before = world.history()
    world.commit(
        {
            "behaviour.py": "import os, pathlib\npath = pathlib.Path(os.environ['AGENT_HISTORY_FILE'])\n"
            f"data = path.read_bytes()\n{harm}\nraise RuntimeError('damage done')\n"
        }
    )
    world.start()
    incident = world.until_outcome("recovered")
    world.stop()
    assert world.history()[: len(before)] == before
    assert len(world.history()) > len(before)
    kept = list(Path(world.context.incident_dir(incident["id"])).glob("*/history.jsonl.damaged*"))
    assert bool(kept) == (harm != "path.unlink()")


@pytest.mark.parametrize("harm", ["deleted", "damaged"])
def test_a_lost_task_is_rebuilt_from_the_history(make, harm):
    world = make(ONE_TRY)
    write(world.state, {"current_task.md": "# Current Task\nBuild the bridge.\n\n## Pending Actions\n- [ ] Paint it\n"})
    world.start()
    world.until(lambda: len(world.history()) > 3, "some history")
    world.stop()
    newest = json.loads(world.history()[-1])["content"]
    world.mode("crash")
    path = world.state / "current_task.md"
    path.unlink() if harm == "deleted" else path.write_bytes(b"\0\0\0\xff broken")
    world.start()
    world.until_outcome("recovered")
    seen = world.starts()[-1]
    assert task.is_task(seen["task"].encode())
    assert "Build the bridge." in seen["task"] and task.REBUILT in seen["task"]
    assert f"- assistant: {newest}\n" in seen["task"]
    assert "Paint it" in (world.state / "BRIEF.md").read_text()
    assert bool(list(world.state.glob("current_task.md.damaged-*"))) == (harm == "damaged")


def test_restore_patterns_go_back_and_what_was_replaced_is_kept(make):
    world = make(ONE_TRY)
    bad = (
        "import os, pathlib\nhome = pathlib.Path(os.environ['AGENT_STATE_DIR'])\n"
        "(home / 'config/plan.json').write_text('the bad plan')\n(home / 'memory.txt').write_text('stays')\n"
        "raise RuntimeError('bad plan')\n"
    )
    world.commit({"behaviour.py": bad})
    world.start()
    incident = world.until_outcome("recovered")
    assert (world.state / "config/plan.json").read_text() == "the good plan"
    assert (world.state / "memory.txt").read_text() == "stays"
    kept = list(Path(world.context.incident_dir(incident["id"])).glob("replaced-*/**/plan.json"))
    assert [path.read_text() for path in kept] == ["the bad plan"]


def test_the_environment_goes_back_with_the_code(make):
    world = make({**ONE_TRY, "environment": {"paths": [".venv"], "build": []}}, adopted=False)
    write(world.code, {".venv/version": "old"})
    world.adopt()
    world.mode("crash")
    write(world.code, {".venv/version": "new", ".venv/more": "x"})
    world.start()
    incident = world.until_outcome("recovered")
    assert [s["venv"] for s in world.starts()] == ["new", "old"]
    assert manifest(world.code / ".venv").keys() == {"version"}
    assert (world.quarantine(incident) / "tree/.venv/version").read_text() == "new"


# --- asked for by hand


def test_rollback_and_undo_by_hand(make):
    world = make()
    commit = world.commit({"feature.txt": "feature\n"})
    write(world.code, {"unsaved.txt": "unsaved\n"})
    world.start()
    world.until_beating(2)
    world.request("rollback")
    incident = world.until_outcome("recovered")
    world.until_beating(1)
    assert (incident["trigger"], world.rungs()) == ("request:rollback", [("by hand", 1)])
    assert not (world.code / "feature.txt").exists()
    assert world.status_of(2) == "condemned"
    world.request("undo")
    world.until(lambda: len(world.incidents()) == 2, "the undo")
    assert world.until_outcome("recovered")["trigger"] == "request:undo"
    world.until_beating(2)
    assert (world.code / "feature.txt").read_text() == "feature\n"
    assert (world.code / "unsaved.txt").read_text() == "unsaved\n"
    assert world.head() == commit
    assert git(world.code, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(world.code, "status", "--porcelain") == "?? unsaved.txt"


def test_an_undo_with_nothing_to_undo_leaves_the_agent_alone(make):
    world = make()
    world.start()
    first = world.until_beating(1)
    world.request("undo")
    world.until_beating(1, after=first["id"])
    assert world.incidents() == []


def test_a_second_undo_of_the_same_rollback_does_no_harm(make):
    world = make()
    world.commit({"feature.txt": "feature\n"})
    world.start()
    world.until_beating(2)
    for verb, goal in (("rollback", 1), ("undo", 2), ("undo", 2)):
        last = world.launches()[-1]["id"]
        world.request(verb)
        world.until_beating(goal, after=last)
    assert (world.code / "feature.txt").exists()


def test_an_undone_rollback_that_fails_goes_back_again(make):
    world = make()
    poison = world.state / "poison"
    world.commit({"behaviour.py": f"import os\nMODE = 'crash' if os.path.exists({str(poison)!r}) else 'healthy'\n"})
    write(world.code, {"unsaved.txt": "unsaved\n"})
    world.start()
    world.until_beating(2)
    world.request("rollback")
    world.until_outcome("recovered")
    poison.write_text("x")
    world.request("undo")
    world.until(lambda: len(world.incidents()) == 2, "the undo")
    incident = world.until_outcome("recovered")
    world.until_beating(1)
    assert world.rungs() == [("by hand", 1), ("undo", 2), ("last known good", 1)]
    rescue = git(world.code, "branch", "--list", f"rescue/{incident['id']}*", "--format=%(refname:short)")
    assert git(world.code, "show", f"{rescue}:unsaved.txt") == "unsaved"
    assert (world.quarantine(incident, 2) / "tree/unsaved.txt").exists()


def test_two_supervisors_of_one_agent(make):
    world = make()
    world.start()
    first = world.until_beating(1)
    assert world.end_of(world.start()) != 0
    assert world.until_beating(1)["id"] == first["id"]


# --- the end of the ladder


def test_the_rungs_go_down_to_halted_and_the_alert_is_called_once(make):
    world = make(adopted=False)
    alerts = world.folder / "alerts"
    world.settings["rollback"]["alert"] = ["/bin/sh", "-c", f"cat >>{alerts}; echo >>{alerts}.count"]
    world.settings["agent"]["environment"] = {"MY_API_KEY": "hidden-in-the-night"}
    world.adopt()
    write(world.state, {"mode": "crash", "current_task.md": "# Current Task\nKeep this.\n"})
    running = world.start()
    assert world.end_of(running) == 77
    assert world.rungs() == [("restart", 1), ("last known good", 1), ("golden without the task", 1)]
    assert world.incidents()[-1]["outcome"] == "halted"
    assert world.processes() == []
    told = alerts.read_text()
    assert told.startswith(f"agentctl: agent '{world.name}' is halted\n")
    assert "What was decided" in told and "told to crash" in told and "hidden-in-the-night" not in told
    assert (world.folder / "alerts.count").read_text() == "\n"
    assert [bool(s["task"]) for s in world.starts()] == [True, True, True, False]
    kept = Path(world.context.incident_dir(world.incidents()[-1]["id"])).glob("replaced-*/current_task.md")
    assert [path.read_text() for path in kept] == ["# Current Task\nKeep this.\n"]
    started = len(world.starts())
    assert world.end_of(world.start()) == 77  # and halted it stays, whoever starts it
    assert len(world.starts()) == started


def test_sigterm_ends_everything_also_what_left_its_terminal(make):
    world = make()
    write(world.state, {"mode": "orphan"})
    world.start()
    world.until_beating(1)
    assert len(world.processes()) >= 2
    assert world.stop() == 0
    assert world.processes() == []
    assert not Path(world.paths.supervisor_pid_path).exists()


def test_a_shell_that_names_the_agent_is_none_of_its_processes(make):
    world = make()
    stranger = subprocess.Popen(["sleep", "1000"], env={**os.environ, "AGENT_NAME": world.name})
    try:
        world.start()
        world.until_beating(1)
        assert world.stop() == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        deadline.wait(stranger)


def test_a_stop_before_the_launch_is_on_record_is_no_failure(monkeypatch):
    world = World(monkeypatch).adopt()
    try:
        os.makedirs(world.paths.runtime_dir, exist_ok=True)
        write(world.code, {"large.bin": os.urandom(100_000_000)})  # git is busy with it for a while
        entry = Path(SOURCE, "agentctl/entry.py")
        runner = subprocess.Popen(
            [sys.executable, "-I", "-S", entry, "runner", world.name], env={**os.environ, "AGENTCTL_RUNTIME": "direct"}
        )
        wait_until(lambda: os.path.exists(world.paths.launching_path), "the mark")
        runner.terminate()
        assert deadline.wait(runner, timeout=PATIENCE_SECONDS) == -signal.SIGTERM
        assert not os.path.exists(world.paths.launching_path)
        assert world.launches() == []
        assert world.rollback_once() == 0
        assert world.incidents() == []
    finally:
        world.end()
