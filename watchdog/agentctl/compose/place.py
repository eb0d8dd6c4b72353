"""One agent's place at the engine: its project, its file, its container. Start it, find it, prove that it is down."""

from __future__ import annotations

import os
import stat

from .. import durable
from .. import lean_json as json
from ..errors import AgentctlError
from . import choices
from .engine import Engine, NotThere

UP_SECONDS = 300.0
STARTABLE = ("exited", "created")


class Place:
    """The agent of a station as Compose knows it."""

    def __init__(self, station, *, patience_seconds: float = 0.0) -> None:
        settings = station.config.compose
        self.station, self.settings = station, settings
        self.engine = Engine(settings.engine, patience_seconds)
        self.project = choices.project_of(settings, station.places.name)
        self.service = settings.service
        self.image_name = choices.image_of(settings, station.places.name)
        self.file = settings.file or station.places.compose_path
        self.folder = os.path.dirname(self.file)
        self._note_path = f"{station.places.data_dir}/container.json"

    def variables(self, image: str) -> dict[str, str]:
        """Return the variables of the compose file for a container of this image."""
        station = self.station
        uid, gid = (station.user.uid, station.user.gid) if station.user else (os.geteuid(), os.getegid())
        return choices.variables(
            name=station.places.name, image=image, uid=uid, gid=gid, code=station.code_dir,
            code_inside=self.settings.code, state=station.state_dir, state_inside=self.settings.state,
            run=station.places.runtime_dir, config=self.folder)  # fmt: skip

    def up(self, image: str, generation: int) -> str:
        """Start the agent's container of `image`; return its id. A new generation begins in a fresh container."""
        self._check_file()
        variables = self.variables(image)
        note = {"image": image, "generation": generation, "stamp": self._stamp(variables)}
        try:
            container = self._start_again(note) or self._compose_up(generation, variables)
            durable.write(self._note_path, json.dumps({**note, "id": container}).encode(), 0o600)
        except (AgentctlError, OSError):
            self.prove_stopped()  # what may have started has nobody who watches over it
            raise
        return container

    def _compose_up(self, generation: int, variables: dict[str, str]) -> str:
        words = ["up", "--detach", "--no-build", "--no-deps"]
        words += ["--force-recreate"] if self._note().get("generation") != generation else []
        self.engine.compose(
            self.project, self.file, self.folder, *words, self.service, variables=variables, limit_seconds=UP_SECONDS
        )
        container = self._newest()
        self._forbid_restart(container)
        return container

    def _start_again(self, note: dict) -> str:
        """Start the container that is there where nothing has changed: Compose would do the same, much slower."""
        known = self._note()
        container = known.get("id", "")
        if not container or {**note, "id": container} != known:
            return ""
        try:
            facts = self.engine.inspect(container)
            if facts["State"]["Status"] not in STARTABLE or facts["Image"] != note["image"]:
                return ""
            self.engine.run("container", "start", container)
        except AgentctlError:
            return ""  # Compose says what is wrong with it
        return container

    def _newest(self) -> str:
        found = self.engine.containers(self.project, self.service)
        if not found:
            raise AgentctlError(
                f"Compose has started no container of service '{self.service}' in project '{self.project}'",
                f"look at {self.file}",
            )
        facts = {container: self.engine.inspect(container) for container in found}
        return max(found, key=lambda c: (facts[c]["State"]["StartedAt"], facts[c]["Created"]))

    def _forbid_restart(self, container: str) -> None:
        """Take the compose file's `restart:` back: an engine that starts the agent by itself hides every crash."""
        policy = self.engine.inspect(container)["HostConfig"].get("RestartPolicy") or {}
        if policy.get("Name") not in (None, "", "no"):
            self.engine.run("container", "update", "--restart", "no", container)

    def _note(self) -> dict:
        try:
            found = json.loads(durable.read(self._note_path) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _stamp(self, variables: dict[str, str]) -> list:
        """What a container was made from: the admin's folder as it stands, and our variables."""
        facts = []
        for name in sorted(os.listdir(self.folder)):
            found = os.stat(f"{self.folder}/{name}")
            if stat.S_ISREG(found.st_mode):
                facts.append([name, found.st_size, found.st_mtime_ns, found.st_ino])
        return [facts, sorted(variables.items())]

    def _check_file(self) -> None:
        """The file that counts is the admin's: not there, or within the agent's reach, it is not used."""
        if not os.path.isfile(self.file):
            raise AgentctlError(
                f"the compose file {self.file} is missing",
                "agentctl config set compose.file PATH; 'agentctl init --runtime compose' writes one",
            )
        inside = (self.station.code_dir, self.station.state_dir)
        if any(os.path.realpath(self.file).startswith(f"{os.path.realpath(folder)}/") for folder in inside):
            raise AgentctlError(
                f"the compose file {self.file} is where the agent writes, so it is not used",
                f"copy it out: cp {self.file} {self.station.places.compose_path}",
            )

    # -- what is there --------------------------------------------------------------------------------------

    def known_container(self) -> str:
        """Return the id of the container that was started last, '' if there was none."""
        return str(self._note().get("id", ""))

    def facts(self) -> dict:
        """Return what the engine knows of the container that was started last, {} if it is gone."""
        container = self.known_container()
        try:
            return self.engine.inspect(container) if container else {}
        except NotThere:
            return {}

    def prove_stopped(self) -> None:
        """End every container of the agent's; raise AgentctlError where one runs all the same."""
        left = self.engine.end_all(self.project, self.service)
        if left:
            raise AgentctlError(
                f"containers of the agent do not end: {', '.join(c[:12] for c in left)}",
                "docker inspect tells what they hang at",
            )


def pid_here(facts: dict) -> int:
    """Return the container's first process if it is of our own pid namespace, else 0: a number may be another's."""
    pid = facts["State"]["Pid"] or 0
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
            return pid if facts["Id"] in file.read() else 0
    except OSError:
        return 0
