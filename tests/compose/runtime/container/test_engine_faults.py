"""What happens around the agent's container: the engine dies, images vanish, we are killed, others are there."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.host import procfs
from agentctl.runtime.container import docker, images
from agentctl.runtime.container.compose_project import ComposeProject
from compose.compose_world import ComposeWorld, assert_back, begin
from compose.images import AGENT
from integration.world import wait_until, write
from kit import deadline, effort
from kit.engine import BASE

ONE_TRY = {"probation": {"tries": 1}}
STEPS = effort.choose(range(1, 9), 2, "steps of a recovery")


# --- the image of the last known good is gone


def test_an_image_that_was_pruned_is_built_again_from_the_vault(make):
    world = make(ONE_TRY)
    begin(world)
    world.new_image("crash")
    before = world.photograph()
    gone = world.image_of(1)
    forget_image(world, 1)
    world.start()
    assert_back(world, before)
    assert world.image_of(1) not in ("", gone)
    assert "building the image of generation 1 anew" in world.log


def test_a_tag_of_another_time_is_not_taken_for_the_image_of_a_new_generation(make, engine):
    """An agent of that name was adopted before, with an image of its own; its tags are still there."""
    world = make(ONE_TRY)
    begin(world)
    engine.docker("tag", AGENT, f"{world.image_name}:g2")
    world.new_image("healthy")
    world.start()
    world.until_beating(2)
    world.assert_runs(2)
    assert world.image_of(2) != engine.ask("{{.Id}}", AGENT)


def test_an_image_that_cannot_be_made_again_ends_halted_with_nothing_moved(make, engine):
    base = f"lonely-{os.urandom(4).hex()}:1"
    engine.docker("build", "--network", "none", "--tag", base, "-",
                  input="FROM agentctl-agent:test\nENV LONELY=1\n")  # fmt: skip
    world = make(ONE_TRY, image=base)
    begin(world)
    world.new_image("healthy")
    before, head = world.photograph(), world.head()
    forget_image(world, 1)
    world.start()
    world.until_beating(2)
    engine.docker("image", "rm", "--force", base)
    engine.docker("kill", world.container()["Id"])
    incident = world.until_outcome("halted")
    assert "cannot be built again" in incident["reason"] + world.log
    assert world.head() == head
    world.assert_nothing_lost(before)
    engine.docker("tag", world.image_of(2), base)


def forget_image(world: ComposeWorld, number: int) -> None:
    """Remove a generation's image with all its names and what was made from it, as a prune does."""
    image = world.image_of(number)
    for container in world.engine.containers(world.project):
        world.engine.docker("rm", "--force", container)
    world.engine.docker("image", "rm", "--force", image)
    world.engine.docker("image", "prune", "--force")
    assert world.engine.docker("image", "inspect", image, check=False).returncode != 0


# --- the engine dies


def test_an_engine_that_is_killed_and_comes_back_has_its_agent_again(make, engine):
    world = make()
    world.start()
    first = world.until_beating(1)
    before = world.photograph()
    engine.kill()
    engine.start()
    world.until_beating(1, after=first["id"])
    world.assert_runs(1)
    assert {rung for rung, _ in world.rungs()} <= {"restart", "asked"}, "code is not moved for what the engine did"
    world.assert_conversation_back()
    world.assert_nothing_lost(before)


def test_an_engine_that_dies_in_a_rollback_does_not_end_it(make, engine):
    world = make(ONE_TRY)
    begin(world)
    world.new_image("crash")
    before = world.photograph()
    world.start()
    world.until(lambda: ("last known good", 1) in world.rungs(), "the rollback")
    engine.kill()
    engine.start()
    assert_back(world, before)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_engine_that_ends_in_a_build_builds_it_when_it_is_back(engine, tmp_path, how):
    """A build that is part of a recovery: it is waited for, and nothing is said to be impossible."""
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nRUN sleep 15\n")
    ours = docker.Engine(engine.host, patience_seconds=60.0)
    ours.env["DOCKER_BUILDKIT"] = "0"
    with ThreadPoolExecutor() as threads:
        building = threads.submit(ours.build, str(tmp_path), "Dockerfile", "cut-off:1", labels={}, arguments={},
                                  no_cache=True, limit_seconds=120.0)  # fmt: skip
        wait_until(lambda: is_building(engine), "the build's container")
        getattr(engine, how)()
        engine.start()
        assert building.result(deadline.SECONDS) == engine.ask("{{.Id}}", "cut-off:1")


def test_an_engine_that_ends_in_a_build_condemns_nobody(make, engine):
    world = make(ONE_TRY)
    begin(world)
    world.new_image("healthy", "RUN sleep 15\n")
    world.start()
    wait_until(lambda: is_building(engine), "the build's container")
    engine.stop()
    engine.start()
    world.until_beating(2, limit_seconds=90)
    assert world.generation(2)["status"] != "condemned"
    assert {rung for rung, _ in world.rungs()} <= {"restart"}
    world.assert_runs(2)


def is_building(engine) -> bool:
    return "sleep 15" in engine.docker("ps", "--no-trunc", "--format", "{{.Command}}").stdout


def test_an_engine_that_is_told_to_start_the_agent_again_hides_no_crash(make):
    world = make()
    file = Path(world.paths.compose_path)
    file.write_text(file.read_text().replace('restart: "no"', "restart: always"))
    world.start()
    launch = world.until_beating(1)
    os.kill(world.live()["pid"], signal.SIGKILL)
    world.until_beating(1, after=launch["id"])
    assert world.launches()[0]["trigger"] == "crash"
    assert len(world.starts()) == 2


def test_a_container_that_cannot_be_put_on_record_does_not_run_on(make):
    world = make()
    file = Path(world.paths.compose_path)
    file.write_text(file.read_text().replace('restart: "no"', 'restart: "no"\n    entrypoint: [sleep, "1000"]'))
    os.makedirs(world.paths.runtime_dir, exist_ok=True)
    place = ComposeProject(world.context)
    place.up(world.image_of(1), 1)
    assert world.container()["State"]["Running"]
    place._note_path = "/proc/agentctl/container.json"  # as on a full disk
    with pytest.raises(OSError, match=r"/proc/agentctl"):
        place.up(world.image_of(1), 2)
    assert world.engine.docker("ps", "--quiet", "--filter", f"label={world.project}").stdout == ""


# --- we die


@pytest.mark.parametrize("step", STEPS)
def test_we_may_be_killed_at_each_step_of_up(make, engine, step):
    """All of ours outside the container dies at the n-th thing that the engine does for us, then begins again."""
    world = make(ONE_TRY)
    begin(world)
    world.new_image("crash")
    before = world.photograph()
    events = subprocess.Popen(["docker", "events", "--format", "{{.Type}} {{.Action}}", "--filter", "type=container",
                               "--filter", "type=network"], env=engine.environment, stdout=subprocess.PIPE)  # fmt: skip
    try:
        running = world.start()
        for _ in range(step):
            deadline.read_line(events)
        world.kill_everything(running)
    finally:
        events.kill()
        deadline.communicate(events)
    world.start()
    assert_back(world, before)


def test_a_runner_that_is_aborted_in_a_build_has_failed_and_was_not_stopped(make):
    world = make(ONE_TRY)
    begin(world)
    world.new_image("healthy", "RUN sleep 600\n")
    before = world.photograph()
    running = world.start()
    world.until(lambda: "building the image of generation 2" in world.log, "the build")
    (runner,) = procfs.children(running.pid)
    os.kill(runner, signal.SIGABRT)  # as systemd does, and the supervisor, when no sign of life came in time
    assert assert_back(world, before)["trigger"] == "not-ready"


# --- others


def test_two_projects_side_by_side_leave_each_other_alone(make):
    one, other = make(ONE_TRY), make(ONE_TRY)
    begin(one)
    other.start()
    launch = other.until_beating(1)
    container, before = other.container()["Id"], other.photograph()
    one.new_image("crash")
    lost = one.photograph()
    one.start()
    assert_back(one, lost)
    assert other.container()["Id"] == container and other.until_beating(1)["id"] == launch["id"]
    assert other.incidents() == []
    other.assert_nothing_lost(before)
    assert other.stop() == 0
    assert one.container()


# --- the agent writes where it should not


def test_a_project_of_somebody_else_is_not_taken_over(make, monkeypatch, engine):
    one = make()
    one.start()
    launch = one.until_beating(1)
    other = ComposeWorld(monkeypatch, engine, {"compose": {"project": one.name}})
    try:
        with pytest.raises(AgentctlError, match=f"in project '{one.name}', and it is none of"):
            other.adopt()
    finally:
        other.end()
    assert one.live()["container"] == one.container()["Id"]
    assert [row["id"] for row in one.launches()] == [launch["id"]]
    images.write_files(one.context)  # its own are no reason: who adopts it anew finds them


def test_what_the_agent_writes_into_its_repository_is_not_what_counts(make):
    world = make(ONE_TRY)
    begin(world)
    world.commit(
        {
            "compose.yaml": "services: {agent: {image: evil, privileged: true}}\n",
            ".env": "AGENT_IMAGE=evil\n",
            "docker-compose.override.yml": "services: {agent: {privileged: true}}\n",
        },
        "mine now",
    )
    world.start()
    world.until_beating(2)
    facts = world.container()
    assert facts["Image"] == world.image_of(1) == world.image_of(2)
    assert not facts["HostConfig"]["Privileged"] and "evil" not in str(facts["Config"])


def test_the_admins_files_cannot_be_written_from_inside(make):
    world = make()
    write(world.state, {"mode": "run", "run.py": TRESPASS})
    world.start()
    told = world.state / "trespass"
    world.until(told.exists, "the agent's attempts")
    world.until(lambda: told.read_text().endswith("done\n"), "the last of them")
    assert told.read_text() == "done\n"


TRESPASS = """
import glob
for name in ("/srv/config/.env", "/srv/config/secret.env", "/etc/agentctl/x", "/opt/agentctl/lib/agentctl/entry.py"):
    try:
        open(name, "a").close()
        append(f"{STATE}/trespass", f"wrote {name}\\\\n")
    except OSError:
        pass
for name in ("/var/run/docker.sock", "/run/docker.sock", *glob.glob("/run/**/docker.sock", recursive=True)):
    if os.path.exists(name):
        append(f"{STATE}/trespass", f"sees {name}\\\\n")
append(f"{STATE}/trespass", "done\\\\n")
""".replace("\\\\", "\\")


def test_an_agent_that_spoils_the_runners_folder_comes_back_all_the_same(make):
    world = make()
    before = begin(world)
    write(world.state, {"mode": "run", "run.py": SPOIL})
    world.start()
    world.until((world.state / "spoiled").exists, "the agent to spoil it")
    world.assert_told_truly(world.until_outcome("recovered"), 1)
    world.assert_conversation_back()
    world.assert_nothing_lost(before)


SPOIL = """
import shutil
folder = os.environ["AGENTCTL_CONTAINER"]
for name in os.listdir(folder):
    path = os.path.join(folder, name)
    try:
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    except OSError:
        pass
os.unlink(f"{STATE}/mode")  # once is enough
append(f"{STATE}/spoiled", "1")
os.kill(os.getpid(), 9)
"""


def test_a_paused_container_is_a_hang_and_is_ended(make, engine):
    world = make()
    world.start()
    first = world.until_beating(1)
    before = world.photograph()
    engine.docker("pause", world.container()["Id"])
    world.until_beating(1, after=first["id"])
    world.assert_told_truly(world.until_outcome("recovered"), 1)
    world.assert_nothing_lost(before)
