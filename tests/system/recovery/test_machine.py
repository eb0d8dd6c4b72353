"""The machine goes down, fills up, loses our records: the agent comes back, and nothing is lost."""

import random
import time

import pytest
from boxed_world import Before, World, manifest
from boxes import new_box

from kit import effort

WAYS_DOWN = ("reboot", "crash")


@pytest.fixture(scope="module")
def machine(box_root):
    """A box for these tests alone: others would not like its reboots."""
    with new_box(box_root) as box:
        yield box.boot()


def go_down(box, way):
    getattr(box, way)()
    if not box.is_up:
        box.boot()


def slow_one(box, name):
    """Make an agent whose rollback has to build an environment, and comes to an end the second time only."""
    flag = f"/srv/{name}.building"
    build = ["sh", "-c", f"test -e {flag} || {{ touch {flag}; sleep 1000; }}; mkdir .venv; cp uv.lock .venv/marker"]
    world = World(box, name, environment={"build": build}).make().start()
    script = "mkdir .venv; echo two >uv.lock; cp uv.lock .venv/marker"
    before = world.break_it("crash", script=script)
    world.wait_until(box.path(flag).exists, "the middle of the one-shot")
    return world, before


def check_slow_one(world, before):
    incident = world.wait_outcome()
    world.wait_steady(commit=world.good)
    world.check_incident(incident, "crash")
    before.check_nothing_is_lost(incident)
    world.check_resumed(before, incident, world.good)
    assert world.witnesses()[-1]["environment"] == "one\n"
    assert len([a for a in incident["attempts"] if a["rung"] != "restart"]) == 1
    world.stop()


# -- reboots --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS_DOWN)
def test_the_machine_goes_down_around_agents_of_all_kinds(machine, way):
    well = World(machine, f"well-{way}").make().start()
    trial = World(machine, f"trial-{way}", probation={"duration": "1h", "tries": 3}).make().start()
    stopped = World(machine, f"stopped-{way}").make().start()
    stopped.systemctl("stop", stopped.name)
    stopped.systemctl("disable", stopped.name)
    candidate = trial.commit(version="2")
    trial.systemctl("restart", trial.name)
    trial.wait_phase("probation", commit=candidate)
    launches = {world.name: world.status()["launch_id"] for world in (well, trial)}
    go_down(machine, way)

    witness = well.wait_launch(launches[well.name])
    assert witness["resumed"] == "1"
    assert (f"saved by {launches[well.name]}" in witness["task"]) == (way == "reboot")
    assert well.wait_steady(commit=well.good)["well"]
    assert well.incidents() == []

    trial.wait_launch(launches[trial.name])
    status = trial.wait_phase("probation", commit=candidate)
    assert status["tries_left"] >= 1
    assert trial.incidents() == []

    assert stopped.status()["phase"] == "stopped"
    for world in (well, trial):
        assert world.systemctl("is-enabled", world.name).stdout == "enabled\n"
        world.stop()


def test_the_power_goes_in_the_middle_of_a_rollback(machine):
    world, before = slow_one(machine, "slow-crash")
    machine.crash()
    machine.boot()
    check_slow_one(world, before)


def test_a_reboot_in_the_middle_of_a_rollback(machine):
    world, before = slow_one(machine, "slow-reboot")
    try:
        machine.reboot(45)  # less than a one-shot may take to stop
    finally:
        check_slow_one(world, before)


@pytest.mark.parametrize("seed", effort.choose(range(40), 1, "power, three agents"))
def test_the_power_goes_at_any_moment_of_a_rollback(machine, seed):
    """Three agents fail at once, so that one cut meets three moments."""
    chance = random.Random(seed)
    worlds = [World(machine, f"cut{seed}{n}") for n in range(3)]
    for world in worlds:
        world.make()
    for world in worlds:
        world.systemctl("start", "--no-block", world.name)
    for world in worlds:
        world.wait_steady()
    befores = [world.break_it("spoil-state", word, restart=False)
               for world, word in zip(worlds, ("crash", "crash-at-import", "exit-78"), strict=True)]  # fmt: skip
    machine.run(["systemctl", "restart", "--no-block", *(world.name for world in worlds)])
    time.sleep(chance.uniform(0.0, 1.5))
    machine.crash()
    machine.boot()
    for world, before in zip(worlds, befores, strict=True):
        status = world.wait_steady()
        world.wait_all_over()
        assert world.incidents() == [] or world.incidents()[0]["outcome"] == "recovered"
        assert status["commit"] == world.good
        assert world.head == world.good
        if world.incidents():
            assert "go on counting" in world.witnesses()[-1]["task"]
            before.check_nothing_is_lost(world.incidents()[0])
            assert world.history()[: len(before.history)] == before.history
            assert world.read("config/settings.txt") == "good\n"
        world.stop()


def test_the_machine_goes_down_right_after_a_failure(machine):
    world = World(machine, "after").make().start()
    before = world.break_it("crash-at-import", restart=False)
    # Until the next boot the one-shot only stands at its beginning.
    folder = f"/run/systemd/system/{world.name}-rollback.service.d"
    machine.run(["mkdir", "-p", folder])
    machine.path(f"{folder}/99-wait.conf").write_text("[Service]\nExecStartPre=/bin/sleep 1000\n")
    world.systemctl("daemon-reload")
    world.systemctl("restart", world.name, check=False)
    world.wait_until(lambda: world.unit("ActiveState", f"{world.name}-rollback") == "activating", "the one-shot")
    machine.crash()
    machine.boot()
    incident = world.wait_outcome()
    world.wait_steady(commit=world.good)
    before.check_nothing_is_lost(incident)
    world.check_resumed(before, incident, world.good)
    assert len(incident["attempts"]) == 1
    world.stop()


# -- our records ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_running", [True, False])
def test_a_ledger_of_junk_is_rebuilt(machine, is_running):
    world = World(machine, f"junk{int(is_running)}").make().start()
    better = world.commit(version="2")
    world.systemctl("restart", world.name)
    world.wait_steady(commit=better, last_known_good=2)
    world.wait_until(lambda: "is good now" in world.journal(), "the blessing")
    if not is_running:
        world.systemctl("stop", world.name)
    history = world.history()
    junk = b"this is no database\n" * 5000
    folder = machine.path(world.data)
    for path in folder.glob("ledger.db*"):
        path.write_bytes(junk)
    if is_running:
        world.tell("crash")
    else:
        refused = world.ctl("generations", check=False)
        assert refused.returncode == 1
        assert "Hint:" in refused.stderr
        world.systemctl("start", world.name)
    launch = world.wait_until(lambda: (found := world.witnesses()) and len(found) > 2 and found[-1],
                              "another launch")  # fmt: skip
    status = world.wait_steady(commit=better)
    assert status["well"]
    assert launch["resumed"] == "1"
    assert world.history()[: len(history)] == history
    numbers = {g["number"]: g["status"] for g in world.ask("generations")}
    assert numbers == {1: "good", 2: "good"}
    kept = list(folder.glob("ledger.db.broken-*"))
    assert any(path.read_bytes() == junk for path in kept)
    # and a rollback still works
    world.good = better
    before = world.break_it("crash", version="3")
    incident = world.incidents()[0] if world.incidents() else None
    world.wait_until(lambda: (i := world.incidents()) and i[0] != incident
                     and i[0]["outcome"] == "recovered", "the rollback")  # fmt: skip
    world.wait_steady(commit=better)
    before.check_nothing_is_lost(world.incidents()[0])
    world.stop()


# -- no room --------------------------------------------------------------------------------------


def fill(box, folder):
    box.run(["sh", "-c", f"dd if=/dev/zero of={folder}/full bs=64k; true"], check=False)
    box.run(["sh", "-c", f"dd if=/dev/zero of={folder}/fuller bs=512; true"], check=False)


@pytest.mark.parametrize("place", ["/var/lib/agentctl", "/srv"])
def test_a_full_disk_at_start(box_root, place):
    """Without a ballast it waits for room, and comes back by itself when there is."""
    with new_box(box_root, ext4={place: "24M"}) as box:
        box.boot()
        world = World(box, "tight", rollback={"ballast": "0"}).make().start()
        world.systemctl("stop", world.name)
        history = world.history()
        better = world.commit(version="2")
        world.shell('cd "$1"; head -c 300000 /dev/urandom >big.bin')
        before = Before(world, better)
        fill(box, place)
        world.systemctl("start", world.name, check=False)
        if place == "/srv":  # only the agent's tree is full: nothing of ours has to be written there
            world.wait_steady(commit=better)
        else:
            said = world.wait_until(
                lambda: (text := world.all_journals(200)) and "No space left" in text and "hint" in text.lower()
                and text, "the complaint with its hint")  # fmt: skip
            assert "Traceback" not in said, said
        assert world.history()[: len(history)] == history
        box.run(["rm", "-f", f"{place}/full", f"{place}/fuller"])
        world.wait_steady(commit=better)
        assert world.head == better
        assert manifest(box.path(world.code)) == before.tree
        assert world.history()[: len(history)] == history
