"""What happens inside and around the agent's container: stacks, checks, trials, other verbs; on a real engine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentctl import rescue
from agentctl.runtime.container import container_rules
from compose.compose_world import ComposeWorld
from compose.images import AGENT
from integration.world import SOURCE, git, write
from kit import deadline

BLESSED = {"probation": {"duration": "0s", "heartbeats": 3}}
# What it says is no word of docker's about the engine or the container.
CHECK = ["sh", "-c", "test -e /opt/agentctl -a ! -e bad || { echo 'connection refused; No such object' >&2; exit 1; }"]


@pytest.fixture
def world(monkeypatch, engine, agent_image, request):
    world = ComposeWorld(monkeypatch, engine, getattr(request, "param", None)).adopt()
    world.start()
    world.until_beating(1)
    yield world
    world.end()


def library(world) -> str:
    """Return a folder with our code and what `change` needs, that the agent's user may read wherever the tests lie."""
    folder = world.folder / "library"
    if not folder.exists():
        shutil.copytree(f"{SOURCE}/agentctl", folder / "agentctl", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(Path(SOURCE).parent / "packaging/docker", folder / "agentctl/docker")
        for name in ("git", "gitdb", "smmap"):
            shutil.copytree(Path(importlib.util.find_spec(name).origin).parent, folder / name)
    return str(folder)


def agentctl(world, *words: str, check: bool = True) -> str:
    """Call agentctl outside, as a person would."""
    program = "import sys; from agentctl.cli.main import main; sys.exit(main())"
    done = deadline.run(
        [sys.executable, "-c", program, "--name", world.name, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": library(world)},
        timeout=500,
    )
    assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def image_name(world) -> str:
    """Return the name that the agent's images are tagged with."""
    return container_rules.image_of(SimpleNamespace(image=""), world.name)


def inside(world, *words: str):
    """Run a command in the agent's container; return (exit status, what it said)."""
    done = world.engine.docker("exec", world.live()["container"], *words, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_hang_tells_its_stack_through_the_containers_init(world):
    assert world.stop() == 0  # it looks for what to do when it starts
    write(world.state, {"run.py": "os.unlink(f'{STATE}/mode')\nstuck_in_the_work_loop()\n", "mode": "run"})
    world.start()
    incident = world.until_outcome("recovered")
    evidence = world.evidence(incident)
    assert incident["trigger"] == "watchdog" and incident["launch"] == world.launches()[1]["id"]
    assert any("in stuck_in_the_work_loop" in line for line in evidence["stack"])
    assert evidence["container"]["image"] == world.image_of(1)
    assert evidence["runs"]["image"] == world.image_of(1) == world.container()["Image"]
    assert "stuck_in_the_work_loop" in agentctl(world, "why")


@pytest.mark.parametrize("world", [{"probation": {**BLESSED["probation"], "tries": 1, "required": [CHECK]}}],
                         indirect=True, ids=["required"])  # fmt: skip
def test_a_required_check_looks_from_inside_and_in_the_code(world):
    world.commit({"good": "yes"})
    agentctl(world, "restart", "--no-wait")
    world.until(lambda: world.status_of(2) == "good", "the good one to be blessed")
    assert world.engine.ask("{{.Id}}", f"{image_name(world)}:lkg") == world.image_of(2)
    world.commit({"bad": "yes"})
    agentctl(world, "restart", "--no-wait")
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "check-failed" and "test -e /opt/agentctl" in incident["reason"]
    assert world.status_of(3) == "condemned"


def test_a_change_is_tried_in_a_container_of_its_own_and_promoted_with_its_image(world):
    image, running = world.image_of(1), world.live()["container"]
    agentctl(world, "config", "set", "change.lint", "[]")
    agentctl(world, "change", "start", "feature/better")
    tree = json.loads(agentctl(world, "--json", "change", "list"))[0]["worktree"]
    write(tree, {"Dockerfile": "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nLABEL better=yes\n"})
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "a better image")
    world.give()
    agentctl(world, "change", "check", "feature/better")
    starts = len(world.starts())
    tried = json.loads(agentctl(world, "--json", "change", "try", "feature/better", "--for", "3s"))
    assert tried["ok"] and tried["beats"] > 2
    assert len(world.starts()) == starts, "the trial wrote into its copy"
    assert world.live()["container"] == running, "the agent ran on"
    built = world.engine.ask("{{.Id}}", f"{image_name(world)}:try-{tried['commit'][:12]}")
    assert built and built != image
    assert "-try-" not in world.engine.docker("ps", "--all", "--format", "{{.Names}}").stdout
    agentctl(world, "change", "review", "feature/better", "--note", "looked at")
    agentctl(world, "change", "promote", "feature/better")
    world.until_beating(2)
    assert world.image_of(2) == built == world.container()["Image"]
    agentctl(world, "rollback", "--yes")
    world.until_beating(1)
    assert world.container()["Image"] == image
    world.assert_conversation_back()


def test_a_candidate_that_fails_on_trial_disturbs_nobody(world):
    running = world.live()["container"]
    agentctl(world, "config", "set", "change.lint", "[]")
    agentctl(world, "change", "start", "feature/bad")
    tree = json.loads(agentctl(world, "--json", "change", "list"))[0]["worktree"]
    write(tree, {"behaviour.py": "MODE = 'crash'\n"})
    git(tree, "commit", "-qam", "crashes")
    world.give()
    agentctl(world, "change", "check", "feature/bad")
    said = agentctl(world, "change", "try", "feature/bad", "--for", "1s", check=False)
    assert "told to crash" in said
    assert (world.live()["container"], world.incidents()) == (running, [])


def test_the_verbs_inside(world):
    world.until(lambda: inside(world, "agentctl", "status")[0] == 0, "a heartbeat that is seen from inside")
    status, said = inside(world, "agentctl", "status", "--json")
    assert json.loads(said)["well"] and json.loads(said)["launch_id"] == world.live()["launch_id"]
    status, said = inside(world, "agentctl", "rollback")
    assert status == 1 and "outside" in said
    assert inside(world, "test", "!", "-e", "/var/run/docker.sock") == (0, "")
    assert inside(world, "sh", "-c", "find / -name ledger.db 2>/dev/null | grep .") == (1, "")
    launch = world.live()["launch_id"]
    asked = inside(world, "agentctl", "--name", world.name, "restart")
    assert asked == (0, "restart asked for\n") or asked[0] == 137, asked  # the container may end before it does
    world.until_beating(1, after=launch)
    assert world.incidents() == []


def test_a_container_that_was_removed_comes_back(world):
    first = world.launches()[-1]
    world.engine.docker("rm", "--force", world.live()["container"])
    world.until_beating(1, after=first["id"])
    assert "removed" in world.until_outcome("recovered")["reason"]  # the engine kills it first; that is not told
    world.assert_conversation_back()


def test_a_container_started_by_hand_without_a_runner_starts_nothing(world):
    container = world.live()["container"]
    assert world.stop() == 0
    starts = len(world.starts())
    world.engine.docker("start", container)
    code = world.engine.docker("wait", container).stdout.strip()
    assert code == "65" and len(world.starts()) == starts


@pytest.mark.parametrize("world", [{"probation": {"tries": 1}}], indirect=True, ids=["one try"])
def test_an_engine_that_ends_is_not_the_candidates_fault(world):
    world.commit({"another": "tree"})
    agentctl(world, "restart", "--no-wait")
    launch = world.until_beating(2)
    world.engine.stop()
    world.engine.start()
    world.until_beating(2, after=launch["id"])
    row = world.one("SELECT * FROM launches WHERE id=?", launch["id"])
    assert (row["end"], row["trigger"]) == ("failed", "engine-away")
    assert world.status_of(2) == "candidate"
    world.assert_conversation_back()


def test_init_at_the_command_line_writes_the_admins_files_and_takes_an_image(monkeypatch, engine, agent_image):
    world = ComposeWorld(monkeypatch, engine)
    try:
        words = (
            "init",
            "--runtime",
            "compose",
            "--engine",
            engine.host,
            "--image",
            AGENT,
            "--user",
            world.owner,
            "--state-dir",
            str(world.state),
            "--no-hooks",
            str(world.code),
            "--",
            "python3",
            "agent.py",
        )
        agentctl(world, *words)
        folder = Path(world.paths.config_dir)
        text = (folder / "compose.yaml").read_text()
        assert f"{{AGENT_CODE_DIR:-{world.code}}}" in text and f"{{AGENT_IMAGE:-{image_name(world)}:lkg}}" in text
        assert [(folder / name).stat().st_mode & 0o777 for name in (".env", "secret.env")] == [0o600, 0o600]
        world.start()
        world.until_beating(1)
        assert world.container()["Image"] == agent_image == world.image_of(1)
        said = agentctl(world, "init", "--image", "x", str(world.code), "--", "true", check=False)
        assert "are for --runtime compose" in said
    finally:
        world.end()


@pytest.mark.parametrize("world", [{"probation": {"tries": 1}}], indirect=True, ids=["one try"])
def test_an_undo_whose_image_cannot_be_had_leaves_the_agent_as_it_is(world):
    world.new_image("healthy", "RUN exit 3\n")
    agentctl(world, "restart", "--no-wait")
    incident = world.until_outcome("recovered")
    assert incident["trigger"] == "build-failed"
    launch, image = world.until_beating(1), world.container()["Image"]
    said = agentctl(world, "rollback", "undo", "--yes", "--force", check=False)
    world.until_beating(1, after=launch["id"])
    assert world.container()["Image"] == image
    told = world.incidents()[-1]
    assert (told["outcome"], "cannot be built again" in told["reason"]) == ("nothing-to-do", True), (told, said)
    assert "could not be had" in agentctl(world, "why")
    assert json.loads(agentctl(world, "--json", "status"))["phase"] == "steady"


def test_the_rescue_moves_nothing_under_a_running_container(world):
    settings = {"values": {"compose.engine": world.engine.host, "compose.project": "", "compose.service": "agent"}}
    container, supervisor = world.live()["container"], world.supervisors[-1]
    world.kill_everything(supervisor)
    assert world.engine.ask("{{.State.Running}}", container) == "true", "it outlives what kept it"
    assert rescue.end_containers(settings, world.name) == ""
    assert world.engine.ask("{{.State.Running}}", container) == "false"
    settings["values"]["compose.engine"] = "unix:///nowhere/docker.sock"
    assert "does not answer" in rescue.end_containers(settings, world.name)
