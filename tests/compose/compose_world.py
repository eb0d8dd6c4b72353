"""A world whose agent runs in a container: adopted with the runtime `compose`, on a real engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from agentctl.changes import adopt
from agentctl.host import procfs
from agentctl.runtime.container import container_rules
from compose.images import AGENT
from integration.world import World, merged, write
from kit.engine import Engine
from kit.manifest import manifest, missing

OWNER = "nobody"
DOCKERFILE = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"
PATIENCE_SECONDS = 180.0  # an engine and its containers on a machine that has much else to do
IN_A_CONTAINER = {  # a machine that stands still for some seconds makes nobody late
    "agent": {"runtime": "compose", "ready_timeout": "25s", "stop_grace": "10s"},
    "heartbeat": {"timeout": "8s", "longest_wait": "16s"},
}
BEHAVIOUR = """
import pathlib

MODE_OF_IMAGE = pathlib.Path("/opt/mode")  # what the image brings along, as a library would be
MODE = MODE_OF_IMAGE.read_text().strip() if MODE_OF_IMAGE.exists() else "healthy"
"""
TASK = "# Current Task\nKeep going.\n\n## Conversation Context\n\n## Pending Actions\n- [ ] go on\n\n## State\n"


class ComposeWorld(World):
    """One agent in a container, adopted and breakable."""

    def __init__(
        self, monkeypatch, engine: Engine, settings: dict | None = None, *, which: str = "v2", image: str = AGENT
    ) -> None:
        """`which` Compose is used is told by the docker settings that agentctl finds; `image` is what is built on."""
        monkeypatch.setenv("DOCKER_CONFIG", str(engine.folder / ("config" if which == "v2" else "none")))
        own = {"compose": {"engine": engine.host, "base_image": image}}
        super().__init__(monkeypatch, merged(merged(IN_A_CONTAINER, own), settings or {}), owner=OWNER)
        self.engine, self.project = engine, f"com.docker.compose.project={self.name}"
        self.commit({"behaviour.py": BEHAVIOUR, "Dockerfile": DOCKERFILE, "notes/kept.txt": "kept\n"}, "in a container")
        write(self.state, {"current_task.md": TASK})
        self.first = self.head()
        self.give()

    def adopt(self) -> ComposeWorld:
        self.context = adopt.adopt(
            self.paths,
            str(self.code),
            ["python3", "agent.py"],
            user=self.owner,
            state_dir=str(self.state),
            settings=self.settings,
        )
        return self

    def commit(self, files: dict[str, str | bytes], message: str = "change") -> str:
        made = super().commit(files, message)
        self.give()
        return made

    def new_image(self, mode: str = "healthy", more: str = "") -> str:
        """Commit another Dockerfile, whose image has the agent behave that way; return the commit."""
        lines = f"{DOCKERFILE}USER root\nRUN echo {mode} > /opt/mode\nUSER agent\n{more}"
        return self.commit({"Dockerfile": lines}, mode)

    def start(self):
        os.environ.update(self.environment)  # of the world that was made last otherwise
        return super().start()

    def kill_everything(self, supervisor) -> None:
        """SIGKILL the supervisor and all that it started outside the container: runner, one-shot, docker, Compose."""
        tree = [supervisor.pid]
        for pid in tree:
            procfs.signal_quietly(pid, signal.SIGSTOP)  # or it would start another meanwhile
            tree += procfs.children(pid)
        for pid in tree:
            procfs.signal_quietly(pid, signal.SIGKILL)
        self.end_of(supervisor)

    # -- look -----------------------------------------------------------------------------------------------

    def container(self) -> dict:
        """Return what the engine knows of the one container of the agent that runs."""
        asked = [self.engine.docker("inspect", name, check=False) for name in self.engine.containers(self.project)]
        found = [json.loads(done.stdout)[0] for done in asked if done.returncode == 0]  # one may be gone meanwhile
        running = [facts for facts in found if facts["State"]["Running"]]
        assert len(running) == 1, [(facts["Name"], facts["State"]["Status"]) for facts in found]
        return running[0]

    @property
    def image_name(self) -> str:
        return container_rules.image_of(self.context.config.compose, self.name)

    def generation(self, number: int) -> dict:
        return self.one("SELECT * FROM generations WHERE number=?", number)

    def image_of(self, number: int) -> str:
        return (self.generation(number) or {"image": ""})["image"]

    def photograph(self) -> dict:
        """Remember what is in the volumes now."""
        return {"code": manifest(self.code, without=(".git",)), "state": manifest(self.state),
                "history": self.history(), "config": manifest(self.paths.config_dir)}  # fmt: skip

    def until(self, ask, what: str, limit_seconds: float = PATIENCE_SECONDS):
        return super().until(ask, what, max(limit_seconds, PATIENCE_SECONDS))

    # -- hold -----------------------------------------------------------------------------------------------

    def assert_nothing_lost(self, before: dict) -> None:
        """Each file of before is in the volumes or, whole, in a quarantine; the conversation went on, unbroken."""
        kept = [manifest(place) for place in (self.code, *Path(self.context.slots.folder).glob("quarantine/*/tree"))]
        lost = missing(before["code"], *kept)
        assert {name: what for name, what in lost.items() if "__pycache__" not in name} == {}
        changing = {"starts", "history.jsonl", "saved", "current_task.md"}  # the last is mended where the agent died
        assert {name for name in missing(before["state"], manifest(self.state)) if name not in changing} == set()
        assert self.history()[: len(before["history"])] == before["history"]
        assert missing(before["config"], manifest(self.paths.config_dir)) == {}

    def assert_conversation_back(self) -> None:
        """The newest start resumed: the task was there, and the history goes on."""
        start = self.starts()[-1]
        assert start["resumed"] == "1" and "Keep going." in start["task"]
        count = len(self.history())
        self.until(lambda: len(self.history()) > count, "the history to go on")

    def assert_told_truly(self, incident: dict, number: int) -> None:
        """The incident says what runs."""
        assert (incident["outcome"], incident["generation_to"]) == ("recovered", number)
        self.assert_runs(number)

    def assert_runs(self, number: int) -> None:
        """What runs is what the ledger, the live status and the engine say, to the image's id."""
        launch, facts = self.until_beating(number), self.container()
        assert facts["Image"] == self.image_of(number) == self.live()["image"]
        assert facts["Id"] == self.live()["container"]
        assert launch["id"] == self.live()["launch_id"]
        assert self.starts()[-1]["launch"] == launch["id"]

    def end(self) -> None:
        super().end()
        for name in self.engine.containers(self.project):
            self.engine.docker("rm", "--force", name, check=False)


def begin(world: ComposeWorld) -> dict:
    """Start the agent, wait until it works and has a conversation; return what is in its volumes, stopped."""
    world.start()
    world.until_beating(1)
    world.until(lambda: len(world.history()) > 3, "a conversation")
    assert world.stop() == 0
    return world.photograph()


def assert_back(world: ComposeWorld, before: dict, number: int = 1) -> dict:
    """The agent is well on that generation, nothing is lost, and the incident tells the truth; return it."""
    incident = world.until_outcome("recovered")
    world.assert_told_truly(incident, number)
    world.assert_conversation_back()
    world.assert_nothing_lost(before)
    return incident
