"""Set-up 2 as shipped: agentctl in a container, the engine's socket behind the proxy, the agent in a third one."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from agentctl.generations.agent_context import AgentContext
from compose.compose_world import OWNER, ComposeWorld, assert_back
from compose.images import AGENT, DOCKER, WATCHDOG

INSIDE = "unix:///run/agentctl-engine/docker.sock"


class ContainedWorld(ComposeWorld):
    """A world whose supervisor is the service `watchdog` of compose.proxy.yaml."""

    def adopt(self) -> ContainedWorld:
        paths = self.paths
        for folder in (paths.data_dir, paths.runtime_dir, paths.config_dir):
            os.makedirs(folder)
        self.extra = self.folder / "root.yaml"
        self.extra.write_text(f"services: {{watchdog: {{environment: {{AGENTCTL_ROOT: {self.folder}/r}}}}}}\n")
        self.compose("up", "-d", "engine")
        knock = f"import socket; socket.socket(socket.AF_UNIX).connect('{INSIDE.removeprefix('unix://')}')"
        self.until(
            lambda: self.compose("exec", "-T", "engine", "python3", "-c", knock, check=False).returncode == 0,
            "the proxy to listen",
        )
        init = ["--runtime", "compose", "--engine", INSIDE, "--no-hooks", "--user", OWNER, "--image", AGENT,
                "--state-dir", str(self.state), str(self.code), "--", "python3", "agent.py"]  # fmt: skip
        calls = [["init", *init], *(["config", "set", *pair] for pair in self.wanted())]
        script = " && ".join(shlex.join(["agentctl", "--name", self.name, *words]) for words in calls)
        self.compose("run", "--rm", "-T", "--entrypoint", "sh", "watchdog", "-ec", script)
        self.context = AgentContext.open(self.name)
        return self

    def wanted(self) -> list[tuple[str, str]]:
        """The settings that `init` takes no option for."""
        return [(f"{section}.{key}", value if isinstance(value, str) else json.dumps(value))
                for section, values in self.settings.items() for key, value in values.items()
                if (section, key) not in (("agent", "runtime"), ("compose", "engine"))]  # fmt: skip

    def compose(self, *words, check: bool = True):
        call = ["docker", "compose", "-p", f"{self.name}-watchdog", "-f", DOCKER / "compose.proxy.yaml"]
        env = {"AGENT_NAME": self.name, "AGENT_HOME": self.folder, "AGENT_DATA_DIR": self.paths.data_dir,
               "AGENT_RUN_DIR": self.paths.runtime_dir, "AGENT_CONFIG_DIR": self.paths.config_dir,
               "DOCKER_SOCKET": self.engine.folder / "sock", "AGENTCTL_WATCHDOG_IMAGE": WATCHDOG}  # fmt: skip
        env = {name: str(value) for name, value in env.items()}
        return self.engine.run([*map(str, (*call, "-f", self.extra, *words))], env=env, check=check)

    def start(self) -> None:
        self.compose("up", "-d")

    def stop(self) -> int:
        self.compose("stop", "watchdog")
        return int(self.engine.ask("{{.State.ExitCode}}", self.watchdog))

    @property
    def watchdog(self) -> str:
        return self.compose("ps", "--all", "--quiet", "watchdog").stdout.strip()

    @property
    def log(self) -> str:
        return self.compose("logs", "--no-color", check=False).stdout

    def end(self) -> None:
        self.compose("down", "--volumes", check=False)
        super().end()


@pytest.fixture
def contained(monkeypatch, engine, agent_image, watchdog_image):
    world = ContainedWorld(monkeypatch, engine, {"probation": {"tries": 1}})
    try:
        yield world.adopt()
    finally:
        world.end()


def test_a_watchdog_in_a_container_rolls_back_and_survives_its_own_death(contained):
    world = contained
    world.start()
    first = world.until_beating(1)
    world.until(lambda: len(world.history()) > 3, "a conversation")
    before = world.photograph()

    pid = int(world.engine.ask("{{.State.Pid}}", world.watchdog))
    os.kill(pid, signal.SIGKILL)  # the engine starts it again: restart: always
    world.until_beating(1, after=first["id"])
    world.assert_runs(1)
    world.assert_conversation_back()
    world.assert_nothing_lost(before)

    assert_out_of_reach(world)
    assert world.stop() == 0
    world.new_image("crash")
    before = world.photograph()
    world.start()
    assert_back(world, before)
    assert world.image_of(2) not in ("", world.image_of(1))


def assert_out_of_reach(world: ContainedWorld) -> None:
    """Neither Docker's socket nor the proxy's is within the agent's reach, nor Docker's own within the watchdog's."""
    facts = world.container()
    assert not [m for m in facts["Mounts"] if "docker" in m["Source"] or "engine" in m["Source"]], facts["Mounts"]
    found = world.engine.docker("exec", facts["Id"], "find", "/run", "/var/run", "/srv", "-name", "*.sock", check=False)
    assert {Path(line).name for line in found.stdout.split()} <= {"api.sock", "watchdog.sock", "watchdog-handover.sock"}
    watchdog = json.loads(world.engine.ask("{{json .}}", world.watchdog))
    assert not [m for m in watchdog["Mounts"] if m["Source"].endswith("/sock") or "docker.sock" in m["Destination"]]
    assert "refused" not in world.compose("logs", "engine").stdout, "what agentctl needs is let through"
    link = f"{world.paths.data_dir}/link"
    words = shlex.join(["create", "--label", world.project, "--volume", f"{link}:/x", AGENT])
    made = world.compose("exec", "-T", "watchdog", "sh", "-c", f"ln -s /etc {link}; docker {words}", check=False)
    os.unlink(link)
    assert f"{link} is not a folder of the agent" in made.stderr, "a link out of any of the folders is seen"
