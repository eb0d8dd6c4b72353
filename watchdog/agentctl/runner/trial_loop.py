"""A candidate on trial: the same loop as in real life, which ends by itself when it has held long enough.

`trial_process` makes its surroundings and has it held here. Its watchdog is its own, and it has no jobs.
"""

from __future__ import annotations

import _signal as signal
import os
import time

from ..config.context import Context, boot_id, new_id
from ..config.load import load_last_valid
from ..config.sections import Config
from ..core import fast_json
from ..core.errors import AgentctlError
from ..core.identity import find_identity
from ..core.paths import AgentPaths
from ..host import command
from ..host.journald import Journal
from ..ledger import models, writers
from ..ledger.database import Ledger
from ..ledger.models import Launch
from ..runtime.sandbox import bring_state, take_state
from .container_loop import ContainerLoop
from .launch_loop import LaunchLoop
from .launch_result import LaunchResult

TELL_SECONDS = 1.0
SHOWN_LINES = 15


def candidate(name: str, plan: dict, settings: Config) -> Context:
    """Open the candidate as an agent of its own: its worktree is the code, the copy is the state."""
    own = {
        "agent.code": plan["worktree"],
        "state.dir": f"{plan['folder']}/state",
        "state.extra": [],
        "agent.environment": {**settings.agent.environment, "AGENT_TRIAL": "1"},
    }
    paths = AgentPaths(f"{name}-trial", plan["scope"], {"AGENTCTL_ROOT": plan["run"]}, os.getuid())
    return Context(paths, Config({**settings.values, **own}, settings.given))


def hold(context: Context, plan: dict, teller: TrialReport, make) -> int:
    """Hold the trial that `make(ledger)` makes, and tell how it went."""
    for folder, mode in (
        (context.paths.runtime_dir, 0o755 if "image" in plan else 0o700),
        (context.paths.data_dir, 0o700),
    ):
        os.makedirs(folder, mode=mode, exist_ok=True)
    trial = make(Ledger.create(context.paths.ledger_path))
    ending = trial.run()
    ok = trial.has_held and ending.end == models.STOPPED
    why = "" if ok else trial.complaint or ending.reason
    teller.tell(
        ok=ok,
        why=why,
        trigger="" if ok else ending.trigger,
        beats=ending.beats,
        lines=_last(ending.lines),
        ready_seconds=_since(trial.launch.started_at, ending.ready_at),
    )
    return 0 if ok else 1


def begin(ledger: Ledger, plan: dict, **more: str) -> Launch:
    """Record the launch in the trial's own ledger."""
    generation = {"number": plan["generation"], "status": "trial", "commit_id": plan["commit"], **more}
    launch_id, now = new_id(), time.time()
    writers.begin_launch(ledger, launch_id, plan["generation"], at=now, boot_id=boot_id())
    return Launch(launch_id, generation, "", "", now)


class Trial(LaunchLoop):
    """A session that ends by itself: well, when the candidate has held for long enough."""

    def __init__(self, context: Context, ledger: Ledger, launch: Launch, plan: dict, teller: TrialReport) -> None:
        super().__init__(context, ledger, launch, TrialNotifier(self), Journal("trial", to_stdout=True))
        self.plan, self.teller = plan, teller
        self.has_held, self.complaint = False, ""

    def _open_doors(self) -> None:
        super()._open_doors()
        self.jobs = NoJobs()
        self.watch(self.context.config.agent.ready_timeout)

    def watch(self, seconds: float) -> None:
        """Play systemd's part: no sign of life within `seconds` ends it, with every stack in the log."""
        self.loop.set_timer("watch", seconds, self._on_abort)

    def after_ready(self) -> None:
        """Tell who asked, and begin to wait for the end of the trial."""
        super().after_ready()
        self.teller.tell(ready=_since(self.launch.started_at, self.life.ready_at))
        self.loop.set_timer("held", self.plan["seconds"], self._held)
        self.loop.set_timer("tell", TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self.teller.tell(beats=self.life.judge.counted, seconds=_since(self.life.ready_at, time.time()))
        self.loop.set_timer("tell", TELL_SECONDS, self._tell)

    def _held(self) -> None:
        """The time is over: it has beaten, or it still has its silence to fill."""
        if self.life.judge.counted == 0:
            self.loop.set_timer("held", 0.1, self._held)
            return
        if self.plan["smoke"]:
            self._smoke()
        else:
            self._end_well()

    def _smoke(self) -> None:
        """Run the smoke check against the living candidate."""
        self.smoke = self._start_smoke()
        ended = os.pidfd_open(self.smoke.pid)
        self.loop.watch(ended, lambda: self._smoked(ended))
        self.loop.set_timer("smoke", self.plan["smoke_limit"], lambda: self._smoke_failed("took too long"))

    def _start_smoke(self) -> command.Running:
        env = {**self.launch_env, "AGENT_PID": str(self.pane.pane_pid)}
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return command.start(
                ["/usr/bin/env", "--", *self.plan["smoke"]],
                env=env,
                cwd=self.context.code_dir,
                stdin_fd=null,
                stdout_fd=1,
                stderr_fd=2,
            )
        finally:
            os.close(null)

    def _smoked(self, ended: int) -> None:
        self.loop.forget(ended)
        os.close(ended)
        self.loop.cancel("smoke")
        status = os.waitstatus_to_exitcode(os.waitpid(self.smoke.pid, 0)[1])
        if status == 0:
            self._end_well()
        else:
            self._smoke_failed(f"ended with {status}")

    def _smoke_failed(self, how: str) -> None:
        self.complaint = f"the smoke check {how}: {' '.join(self.plan['smoke'])}"
        self.stop()
        self.ending.end, self.ending.trigger = models.FAILED, "smoke"

    def _end_well(self) -> None:
        self.has_held = True
        self.stop()

    def _on_signal(self) -> None:
        for number in os.read(self.wakeup, 64):
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self.complaint = "the trial was interrupted"
                self.stop()

    def restart(self, by_agent: bool) -> None:
        """A candidate that wants to be restarted does not hold."""
        self.stop()
        self.ending = LaunchResult(models.ASKED, "asked", "it asked to be restarted")

    def _close(self) -> None:
        super()._close()
        self._kill_agent()


class TrialNotifier:
    """Stands where systemd is in real life: hears the signs of life and sets the deadline anew."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.seconds = 0.0

    def ready(self, status: str = "") -> None:
        """Set the first deadline."""
        self.seconds = self.trial.context.config.heartbeat.timeout
        self.keepalive()

    def keepalive(self) -> None:
        """Set the deadline anew, once it counts."""
        if self.seconds:
            self.trial.watch(self.seconds)

    def watchdog_usec(self, usec: int) -> None:
        """Take another time between two signs of life."""
        self.seconds = usec / 1e6
        self.trial.watch(self.seconds)

    def extend(self, usec: int) -> None:
        """Put the deadline off."""
        self.trial.watch(usec / 1e6)

    def status(self, text: str) -> None:
        """What the candidate says of itself is in the log."""

    def stopping(self) -> None:
        """Wait for no more signs of life."""
        self.trial.loop.cancel("watch")


class NoJobs:
    """A trial blesses nothing and saves nothing."""

    def after_launch(self) -> None:
        """Nothing follows."""

    def after_ready(self) -> None:
        """Nothing follows."""

    def settle_incident(self) -> None:
        """There is none."""

    def end(self) -> None:
        """Nothing runs."""


class TrialReport:
    """Writes what happens to who asked; once nobody listens, it says nothing more."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_inheritable(fd, False)

    def tell(self, **facts: object) -> None:
        """Write the facts as one line of JSON."""
        try:
            os.write(self.fd, fast_json.dumps(facts).encode() + b"\n")
        except OSError:
            return


def _last(lines: list[str]) -> list[str]:
    from ..recovery.evidence import find_stack

    return [line[:300] for line in (find_stack(lines) or lines)[-SHOWN_LINES:]]


def _since(start: float | None, end: float | None) -> float | None:
    return round(end - start, 2) if start is not None and end is not None else None


# -- container trial -------------------------------------------------------------------------------
# A candidate on trial in a container of its own: the same loop as in real life, in another project, on copies.
# Who asks for it may talk to the engine, so it does not run as the agent's user; what lies in folders of the agent's
# is written as the agent's user, and plan, sockets and log are in a folder that is not the agent's.


DOWN_SECONDS = 60.0


def main(name: str, plan: dict, teller: TrialReport) -> int:
    """Run one trial by its plan; return 0 if the candidate held."""
    context = None
    try:
        given = load_last_valid(plan["config"], plan["cache"])[0]
        user = find_identity(given.agent.user) if plan["scope"] == "system" else None
        command.call_as(user, _copy_state_as_agent, fast_json.dumps(plan))
        context = open_context(name, plan, given)
        return hold(
            context,
            plan,
            teller,
            lambda ledger: ContainerTrial(context, ledger, begin(ledger, plan, image=plan["image"]), plan, teller),
        )
    finally:
        if context is not None:
            take_down(context, plan)


def _copy_state_as_agent(plan: str) -> str:
    given = fast_json.loads(plan)
    take_state(given, [])
    bring_state(given, [])
    return ""


def open_context(name: str, plan: dict, given: Config) -> Context:
    """Open the candidate in a project of its own; inside its container everything has the paths it always has."""
    own = {
        "compose.file": plan["file"], "compose.project": plan["project"],
        "compose.code": given.compose.code or given.agent.code,
        "compose.state": given.compose.state or given.state.dir,
    }  # fmt: skip
    return candidate(name, plan, Config({**given.values, **own}, given.given))


class ContainerTrial(Trial, ContainerLoop):
    """A trial whose agent is in a container; its smoke check looks from inside."""

    def _start_smoke(self) -> command.Running:
        return self.start_probe(self.plan["smoke"], 1)

    def _tell_strays(self) -> None:
        """Who reviews the change sees what it changes."""

    def vouch(self) -> str:
        """A trial recovers nothing."""
        return ""


def take_down(context: Context, plan: dict) -> None:
    """Remove the trial's container and network; no volume and no image."""
    from ..runtime.container.compose_project import ComposeProject

    try:
        place = ComposeProject(context)
        place.prove_stopped()
        place.engine.compose(
            place.project,
            place.file,
            place.folder,
            "down",
            variables=place.variables(plan["image"]),
            limit_seconds=DOWN_SECONDS,
        )
    except AgentctlError as error:
        print(f"agentctl: what the trial leaves behind: {error.message}", flush=True)
