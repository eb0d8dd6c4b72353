"""What a human does: `agentctl rollback`, undo, a generation, halted and out of it."""

import itertools

import pytest
from boxed_world import Before, World, manifest

NUMBERS = itertools.count(1)


@pytest.fixture
def make(box):
    """Make a running agent of its own: `make(settings...)`."""
    made = []

    def start(**settings):
        made.append(World(box, f"c{next(NUMBERS)}", **settings).make().start())
        return made[-1]

    yield start
    for world in made:
        world.stop()


def improve(world, version):
    """Have a new generation prove itself; return its commit."""
    commit = world.commit(version=version)
    world.systemctl("restart", world.name)
    world.wait_steady(commit=commit, last_known_good=int(version))
    return commit


# -- agentctl rollback ----------------------------------------------------------------------------


def test_a_dry_run_tells_and_does_nothing(make):
    world = make()
    better = improve(world, "2")
    world.shell('cd "$1"; echo more >>notes.txt; echo new >new.txt')
    before, status = manifest(world.box.path(world.code)), world.status()
    plan = world.ask("rollback", "--dry-run")
    assert (plan["from"], plan["to"], plan["commit"]) == (2, 1, world.good)
    assert plan["commits_undone"] == [f"{world.git('rev-parse', '--short', better)} Version 2"]
    assert plan["uncommitted"] == ["new.txt", "notes.txt"]
    assert "Version 2" in world.ctl("rollback", "--dry-run").stdout
    assert manifest(world.box.path(world.code)) == before
    assert world.status()["launch_id"] == status["launch_id"]
    assert world.incidents() == []


def test_back_to_the_one_before_and_undo(make):
    world = make()
    better = improve(world, "2")
    world.shell('cd "$1"; echo more >>notes.txt; echo new >new.txt')
    before = Before(world, better)
    done = world.ctl("rollback", "--yes", "--reason", "I do not like it")
    assert "recovered: generation 2 -> 1" in done.stdout
    incident = world.check_rolled_back(before, "request:rollback")
    assert "I do not like it" in incident["reason"]
    assert "I do not like it" in world.witnesses()[-1]["brief"]
    statuses = {g["number"]: g["status"] for g in world.ask("generations")}
    assert statuses[2] == "good"
    world.ctl("rollback", "undo", "--yes")
    world.wait_until(lambda: len(world.incidents()) == 2, "the incident of the undo")
    launch = world.witnesses()[-1]
    assert launch["version"] == "2\n"
    assert launch["resumed"] == "1"
    tree = manifest(world.box.path(world.code))
    assert {path: tree.get(path) for path in before.tree} == before.tree
    assert world.head == better
    assert world.history()[: len(before.history)] == before.history
    again = world.ctl("rollback", "undo", "--yes", check=False)
    assert again.returncode == 1
    assert "undone already" in again.stderr
    assert world.wait_steady()["agent"]["alive"]


def test_back_to_a_generation_by_number(make):
    world = make()
    improve(world, "2")
    better = improve(world, "3")
    before = Before(world, better)
    world.ctl("rollback", "1", "--yes")
    world.check_rolled_back(before, "request:rollback")
    refused = world.ctl("rollback", "7", "--yes", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no generation 7" in refused.stderr
    assert "Hint:" in refused.stderr


def test_undo_of_a_rollback_after_a_failure_is_a_new_trial(make):
    world = make()
    before = world.break_it("crash")
    world.check_rolled_back(before, "crash")
    refused = world.ctl("rollback", "undo", "--yes", check=False)
    assert refused.returncode == 1 and "which is condemned" in refused.stderr and "--force" in refused.stderr
    assert len(world.incidents()) == 1
    failed = world.ctl("rollback", "undo", "--yes", "--force", check=False)
    assert failed.returncode == 1 and "generation 1 -> 2 did not hold" in failed.stderr, failed.stderr
    world.wait_until(lambda: len(world.incidents()) > 1, "the incident of the undo")
    world.wait_steady(commit=world.good)
    world.wait_all_over()
    assert {incident["outcome"] for incident in world.incidents()} <= {"recovered", "nothing-to-do"}
    kept = before.quarantine(world.incidents()[0]) | manifest(world.box.path(f"{world.code}/"))
    assert {path: kept.get(path) for path in ("trace.log",)} == {"trace.log": before.tree["trace.log"]}
    quarantined = before.quarantine(world.incidents()[0])
    kept = {path: facts for path, facts in before.tree.items() if path != "trace.log"}
    assert {path: quarantined.get(path) for path in kept} == kept


def test_the_environment_goes_back_with_the_code(box):
    world = World(box, "env").make_repository()
    world.shell('cd "$1"; mkdir -p .venv/bin; echo one >.venv/marker; ln -s ../marker .venv/bin/x')
    world.adopt().install().start()
    better = world.commit(version="2", script="echo two >.venv/marker; echo two >uv.lock")
    world.systemctl("restart", world.name)
    world.wait_steady(commit=better, last_known_good=2)
    assert world.witnesses()[-1]["environment"] == "two\n"
    world.good = better
    spoil = "echo three >.venv/marker; echo new >.venv/new; rm .venv/bin/x; echo three >uv.lock"
    before = world.break_it("crash", version="3", script=spoil)
    world.check_rolled_back(before, "crash")
    assert world.witnesses()[-1]["environment"] == "two\n"
    environment = manifest(world.box.path(f"{world.code}/.venv"))
    assert sorted(environment) == ["bin", "bin/x", "marker"]
    world.stop()


def test_the_environment_is_built_where_there_is_no_copy(box):
    build = ["sh", "-c", "mkdir .venv && cp uv.lock .venv/marker"]
    world = World(box, "built", environment={"build": build}).make_repository()
    world.adopt().install().start()
    script = "mkdir .venv; echo two >uv.lock; cp uv.lock .venv/marker"
    before = world.break_it("crash", script=script)
    world.check_rolled_back(before, "crash")
    assert world.witnesses()[-1]["environment"] == "one\n"
    world.stop()


# -- halted ---------------------------------------------------------------------------------------


def test_what_fails_again_and_again_goes_down_the_rungs_and_halts(box):
    alert = ["sh", "-c", "cat >>/srv/alerts"]
    world = World(box, "down", rollback={"restarts": 1, "alert": alert}).make().start()
    better = improve(world, "2")
    world.box.run(["touch", "/srv/alerts"])
    # Whatever starts from now on crashes: the fault is in nothing that goes back.
    path = world.box.path("/usr/local/sbin/python3")
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    try:
        world.tell("crash")
        incident = world.wait_outcome("halted")
        rungs = [(attempt["rung"], attempt["target"]) for attempt in incident["attempts"]]
        assert rungs[0] == ("restart", 2)
        assert ("older good", 1) in rungs
        status = world.wait_phase("halted")
        assert not status["well"]
        assert not status["agent"]["alive"]
        assert rungs == list(dict.fromkeys(rungs)), "a rung was tried twice"
        world.wait_until(lambda: world.box.path("/srv/alerts").read_text(), "the alert")
        # A human starts it: refused, with the reason and the way out.
        refused = world.systemctl("start", world.name, check=False)
        assert refused.returncode != 0
        said = world.wait_until(lambda: [line for line in world.journal().splitlines()
                                         if "agentctl resume" in line], "the hint")  # fmt: skip
        assert said
        told = world.ctl("start", check=False)
        assert told.returncode == 1
        assert "halted" in told.stderr
        assert "agentctl resume" in told.stderr
        world.wait_phase("halted")
        assert world.box.path("/srv/alerts").read_text().count("' is halted") == 1
        assert "What was decided" in world.box.path("/srv/alerts").read_text()
    finally:
        path.unlink()
    assert "halted" in world.ctl("resume").stdout
    world.systemctl("start", world.name)
    status = world.wait_steady()
    assert status["well"]
    assert better in {g["commit"] for g in world.ask("generations")}
    world.stop()


def test_good_code_that_fails_after_every_start_goes_back_to_older_good_code(make):
    world = make(rollback={"restarts": 1})
    improve(world, "2")
    decisions = []
    for count in (1, 2, 3):
        world.tell("crash")
        decisions.append(world.wait_outcome(count=count)["decision"])
        world.wait_steady()
    assert decisions == ["restart: restart", "rollback: last known good", "rollback: older good"]
    assert world.status()["generation"] == 1
    assert world.head == world.good


def test_pause_watches_and_does_not_act(make):
    world = make()
    runs = world.rollback_runs()
    world.ctl("pause")
    world.tell("crash")
    world.wait_until(lambda: world.unit("ActiveState") == "failed", "the failure to be seen")
    world.wait_until(lambda: world.rollback_runs() > runs, "the one-shot to begin")
    world.wait_until(lambda: world.unit("ActiveState", f"{world.name}-rollback") != "activating",
                     "the one-shot to end")  # fmt: skip
    assert world.incidents() == []
    assert world.status()["phase"] in ("paused", "stopped")
    assert "paused" in world.ctl("resume").stdout
    world.systemctl("start", world.name)
    world.wait_steady()
