"""Docker Engine and Compose (v1 and v2) as commands: what runs, start, stop, images. The only place that calls them.

Every call says which engine, which project and which file; nothing is taken from the environment. Nothing here
removes a volume, an image or a container of the agent's.
"""

from __future__ import annotations

import os
import time

from ...core import fast_json
from ...core.errors import AgentctlError, CommandFailed
from ...host import command

PROGRAMS = ("/usr/bin/docker", "/usr/local/bin/docker", "/bin/docker")
PLUGIN_FOLDERS = ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins",
                  "/usr/local/libexec/docker/cli-plugins", "/usr/local/lib/docker/cli-plugins")  # fmt: skip
COMPOSE_PROGRAMS = ("/usr/bin/docker-compose", "/usr/local/bin/docker-compose")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_THERE = ("No such container", "No such image", "No such object", "no such image", "no such object")
AWAY = ("Cannot connect to the Docker daemon", "error during connect", "failed to connect to the docker API",
        "docker.errors.DockerException: Error while fetching server API version")  # fmt: skip
# How a build ends that ran while the engine was shut down: its containers are ended first.
CUT_OFF = ("returned a non-zero code: 137", "returned a non-zero code: 143", "exit code: 137", "exit code: 143",
           "code = Unavailable")  # fmt: skip
RUNNING = ("running", "paused", "restarting")
LIMIT_SECONDS = 60.0
STOP_MARGIN_SECONDS = 10.0
AGAIN_SECONDS = 0.2


class EngineAway(AgentctlError):
    """The engine does not answer: nothing is known about its containers, and no code is to blame."""

    trigger = "engine-away"


class NotThere(AgentctlError):
    """The engine has no such container or image."""


class Engine:
    """One Docker Engine, by the address of its socket."""

    def __init__(self, address: str, patience_seconds: float = 0.0) -> None:
        self.address = address
        self.patience_seconds = patience_seconds  # with one that does not answer: it may be restarted at this moment
        self.on_wait = lambda: False  # called at every wait; true ends it
        self.program = _find(PROGRAMS, "docker", "apt-get install docker.io docker-compose")
        home = os.environ.get("HOME") or "/root"
        self.settings = os.environ.get("DOCKER_CONFIG") or f"{home}/.docker"
        self.env = {"PATH": PATH, "HOME": home, "LC_ALL": "C", "DOCKER_HOST": address, "DOCKER_CONFIG": self.settings}
        self.env |= {} if _plugin("docker-buildx", self.settings) else {"DOCKER_BUILDKIT": "0"}

    def run(self, *words: str, limit_seconds: float = LIMIT_SECONDS, check: bool = True) -> command.Result:
        """Run `docker WORDS`; raise EngineAway, NotThere or CommandFailed if `check` and it failed."""
        deadline = time.monotonic() + self.patience_seconds
        while True:
            done = command.run([self.program, *words], env=self.env, limit_seconds=limit_seconds, check=False)
            if done.status == 0 or not is_away(done.stderr.decode("utf-8", "replace")):
                return self._judge(done, check)
            if time.monotonic() >= deadline or self.on_wait():
                return self._judge(done, check=True)
            time.sleep(AGAIN_SECONDS)

    def _judge(self, done: command.Result, check: bool) -> command.Result:
        if done.status == 0 or not check:
            return done
        said = done.stderr.decode("utf-8", "replace")
        if is_away(said):
            raise EngineAway(
                f"Docker Engine at {self.address} does not answer: {said.strip()[-300:]}",
                "'systemctl status docker'; agentctl config set compose.engine names another one",
            )
        if any(words in said for words in NOT_THERE):
            raise NotThere(said.strip()[-300:])
        if "no space left on device" in said.lower():  # the engine's words; ours for it are the kernel's
            raise CommandFailed(done.argv, done.status, done.stdout, done.stderr, "No space left on device")
        raise CommandFailed(done.argv, done.status, done.stdout, done.stderr)

    def start(
        self, *words: str, stdout_fd: int | None = None, stderr_fd: int | None = None, is_mute: bool = False
    ) -> command.Running:
        """Start `docker WORDS` and return it running; pipes stand where no descriptor was given, unless it is mute."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if is_mute:
            stdout_fd = stderr_fd = null
        try:
            return command.start(
                [self.program, *words], env=self.env, stdin_fd=null, stdout_fd=stdout_fd, stderr_fd=stderr_fd
            )
        finally:
            os.close(null)

    # -- containers -----------------------------------------------------------------------------------------

    def containers(self, project: str, service: str, states: tuple[str, ...] = ()) -> list[str]:
        """List the ids of a service's containers, the newest first, also those of `compose run`."""
        words = [word for state in states for word in ("--filter", f"status={state}")]
        return self.run(
            "ps",
            "--all",
            "--quiet",
            "--no-trunc",
            *words,
            "--filter",
            f"label=com.docker.compose.project={project}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        ).text.split()

    def inspect(self, container: str) -> dict:
        """Return what the engine knows of a container; raise NotThere if there is none."""
        return fast_json.loads(self.run("container", "inspect", container).text)[0]

    def end_all(self, project: str, service: str) -> list[str]:
        """Kill what runs of a service, and prove it: return the ids that run all the same."""
        running = self.containers(project, service, RUNNING)
        for container in running:
            self.end(container)
        return self.containers(project, service, RUNNING) if running else []

    def end(self, container: str) -> None:
        """Kill a container; one that is paused has to be woken for that."""
        if self.run("container", "kill", container, check=False).status == 0:
            self.run("container", "wait", container, limit_seconds=STOP_MARGIN_SECONDS, check=False)
            return
        self.run("container", "unpause", container, check=False)
        self.run("container", "kill", container, check=False)
        self.run("container", "wait", container, limit_seconds=STOP_MARGIN_SECONDS, check=False)

    @staticmethod
    def words_inside(container: str, argv: list[str], folder: str, variables: dict[str, str]) -> list[str]:
        """Return what has docker run a command in a container, in a folder there and with these variables."""
        told = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        return ["exec", "--workdir", folder, *told, container, "/usr/bin/env", "--", *argv]

    # -- Compose --------------------------------------------------------------------------------------------

    def compose(
        self, project: str, file: str, folder: str, *words: str, variables: dict[str, str], limit_seconds: float
    ) -> command.Result:
        """Run Compose on one project by the admin's file; nothing but `variables` comes from outside."""
        argv = [*self.find_compose(), "-p", project, "-f", file, "--project-directory", folder, *words]
        return self._judge(
            command.run(argv, env={**self.env, **variables}, limit_seconds=limit_seconds, check=False), True
        )

    def find_compose(self) -> list[str]:
        """Find Compose: the plugin (v2) where there is one, else the program of its own."""
        if _plugin("docker-compose", self.settings):
            return [self.program, "compose"]
        return [_find(COMPOSE_PROGRAMS, "docker-compose", "apt-get install docker-compose")]

    # -- images ---------------------------------------------------------------------------------------------

    def image(self, name: str) -> dict | None:
        """Return what the engine knows of an image, None if it has it not."""
        try:
            return fast_json.loads(self.run("image", "inspect", name).text)[0]
        except NotThere:
            return None

    def labelled(self, labels: dict[str, str]) -> str:
        """Return the id of the newest image that has these labels, '' if there is none."""
        words = [word for name, value in labels.items() for word in ("--filter", f"label={name}={value}")]
        return next(iter(self.run("image", "ls", "--quiet", "--no-trunc", *words).text.split()), "")

    def tag(self, image: str, name: str) -> None:
        """Give an image one more name; a name that was another's is moved, no image goes."""
        self.run("image", "tag", image, name)

    def build(
        self,
        folder: str,
        dockerfile: str,
        tag: str,
        *,
        labels: dict[str, str],
        arguments: dict[str, str],
        no_cache: bool,
        limit_seconds: float,
        on_idle=None,
    ) -> str:
        """Build an image from a folder, never asking a registry for a newer base; return its id.

        `on_idle` is called every second; where it returns true, the build is given up. One that ends as an engine's end
        would end it is done again, once the engine answers.
        """
        words = ["image", "build", "--quiet", "--tag", tag, "--file", f"{folder}/{dockerfile}"]
        words += ["--no-cache"] if no_cache else []
        for name, value in labels.items():
            words += ["--label", f"{name}={value}"]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        for is_again in (False, True):
            done = self.start(*words, folder).finish(limit_seconds=limit_seconds, check=False, on_idle=on_idle)
            said = done.stderr.decode("utf-8", "replace")
            if done.status == 0 or not (is_away(said) or any(how in said for how in CUT_OFF)):
                break
            self.run("version")  # raises, after some patience, where it is away
            if is_again:
                raise CommandFailed(done.argv, done.status, done.stdout, done.stderr)
        self._judge(done, True)
        built = self.image(tag)
        if built is None:
            raise AgentctlError(f"docker build of {tag} ended well, and there is no such image")
        return built["Id"]


def end_by_settings(find, name: str) -> str:
    """For the rescue, which has settings and nothing else: end the agent's containers, name those that run on."""
    engine = Engine(find("engine"))
    return ", ".join(engine.end_all(find("project") or name, find("service")))


def is_away(said: str) -> bool:
    """Tell by docker's own words, not by those of what runs in a build, whether the engine itself does not answer."""
    return any(line.removeprefix("ERROR: ").startswith(AWAY) for line in said.splitlines())


def _plugin(name: str, settings: str) -> str:
    folders = (f"{settings}/cli-plugins", *PLUGIN_FOLDERS)
    return next((f"{folder}/{name}" for folder in folders if os.access(f"{folder}/{name}", os.X_OK)), "")


def _find(paths: tuple[str, ...], name: str, hint: str) -> str:
    for path in paths:
        if os.access(path, os.X_OK):
            return path
    raise AgentctlError(f"{name} is not installed (looked at {', '.join(paths)})", hint)
