"""One agent's Compose project: start it, find it, prove that it is down, and what the engine knows of a failure."""

from __future__ import annotations

import os
import stat

from ...core import durable, fast_json
from ...core.errors import AgentctlError
from . import container_rules
from .docker import Engine, NotThere

UP_SECONDS = 300.0
STARTABLE = ("exited", "created")


class ComposeProject:
    """An agent as Compose knows it."""

    def __init__(self, context, *, patience_seconds: float = 0.0) -> None:
        settings = context.config.compose
        self.context, self.settings = context, settings
        self.engine = Engine(settings.engine, patience_seconds)
        self.project = container_rules.project_of(settings, context.paths.name)
        self.service = settings.service
        self.image_name = container_rules.image_of(settings, context.paths.name)
        self.file = settings.file or context.paths.compose_path
        self.folder = os.path.dirname(self.file)
        self._note_path = f"{context.paths.data_dir}/container.json"

    def variables(self, image: str) -> dict[str, str]:
        """Return the variables of the compose file for a container of this image."""
        context = self.context
        uid, gid = (context.user.uid, context.user.gid) if context.user else (os.geteuid(), os.getegid())
        return container_rules.variables(
            name=context.paths.name, image=image, uid=uid, gid=gid, code=context.code_dir,
            code_inside=self.settings.code, state=context.state_dir, state_inside=self.settings.state,
            run=context.paths.runtime_dir, config=self.folder)  # fmt: skip

    def up(self, image: str, generation: int) -> str:
        """Start the agent's container of `image`; return its id. A new generation begins in a fresh container."""
        self._check_file()
        variables = self.variables(image)
        note = {"image": image, "generation": generation, "stamp": self._stamp(variables)}
        try:
            container = self._start_again(note) or self._compose_up(generation, variables)
            durable.write(self._note_path, fast_json.dumps({**note, "id": container}).encode(), 0o600)
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
            found = fast_json.loads(durable.read(self._note_path) or b"{}")
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
        inside = (self.context.code_dir, self.context.state_dir)
        if any(os.path.realpath(self.file).startswith(f"{os.path.realpath(folder)}/") for folder in inside):
            raise AgentctlError(
                f"the compose file {self.file} is where the agent writes, so it is not used",
                f"copy it out: cp {self.file} {self.context.paths.compose_path}",
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


# -- evidence --------------------------------------------------------------------------------------
# What the engine knows of a container that failed, and what differs in the agent's repository. Never in the way.


LOG_LINES = 400
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", ".env")
LARGEST = 1 << 20


def of_container(context, *, wants_lines: bool) -> tuple[dict, list[str]]:
    """Return what the engine says of the agent's container, and its last lines where nobody else has them.

    Of what `docker inspect` tells only this is kept: the variables in it hold secrets.
    """
    try:
        place = ComposeProject(context)
        found = place.facts()
        if not found:
            return {"problem": "the container is gone"}, []
        state = found["State"]
        facts = {
            "id": found["Id"],
            "name": found["Name"].lstrip("/"),
            "image": found["Image"],
            "status": state["Status"],
            "exit_status": state["ExitCode"],
            "out_of_memory": state["OOMKilled"],
            "error": state["Error"],
            "started_at": state["StartedAt"],
            "ended_at": state["FinishedAt"],
            "health": state.get("Health", {}).get("Status", ""),
        }
        return facts, _lines(place, found) if wants_lines else []
    except (AgentctlError, OSError, KeyError) as error:
        return {"problem": getattr(error, "message", "") or str(error)}, []


def _lines(place: ComposeProject, found: dict) -> list[str]:
    said = place.engine.run(
        "container", "logs", "--tail", str(LOG_LINES), "--since", found["State"]["StartedAt"], found["Id"], check=False
    )
    return (said.stdout + said.stderr).decode("utf-8", "replace").splitlines()


# -- files of the admin's that the agent has, too -----------------------------------------------------------------


def remember_files(context) -> None:
    """Keep what the repository has of such files at adoption, so that only a change is told."""
    durable.write(_seen_path(context), fast_json.dumps(_of_repository(context.code_dir)).encode(), 0o600)


def strays(context) -> str:
    """Say which compose file or .env in the repository was changed and is not what counts, '' if none was."""
    file = context.config.compose.file or context.paths.compose_path
    here = _of_repository(context.code_dir)
    try:
        seen = fast_json.loads(durable.read(_seen_path(context)) or b"{}")
    except (OSError, ValueError):
        seen = {}
    folder = os.path.dirname(file)
    counts = {name: _print_of(file if name != ".env" else f"{folder}/.env") for name in NAMES}
    changed = [name for name in NAMES if here.get(name) != seen.get(name) and here.get(name) != counts[name]]
    return container_rules.describe_strays(changed, folder)


def _seen_path(context) -> str:
    return f"{context.paths.data_dir}/repository-files.json"


def _of_repository(code: str) -> dict[str, str]:
    found = {name: _print_of(f"{code}/{name}") for name in NAMES}
    return {name: told for name, told in found.items() if told}


def _print_of(path: str) -> str:
    """Return a fingerprint of a plain file, '' if it is none: the agent may have put anything there."""
    import hashlib

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        return "" if isinstance(error, FileNotFoundError) else "unreadable"
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            return "no plain file"
        return hashlib.sha256(os.read(fd, LARGEST)).hexdigest()
    finally:
        os.close(fd)
