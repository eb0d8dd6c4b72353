"""One trial, from its plan to its verdict: a candidate in a place apart from the running agent, held, and told of.

It runs in a process of its own, with a copy of the state, its own terminal, sockets and token, below a root of its
own (AGENTCTL_ROOT), so that agentctl called from inside finds no real agent. Its loop is the one of real life, which
ends by itself when the candidate has held for long enough; its watchdog is its own, and it has no jobs. Standard
output carries one JSON object a line for who asked; what the candidate prints goes into the log.
"""

from __future__ import annotations

import _signal as signal
import fcntl
import os
import sys
import time

from ..config.context import Context, boot_id, new_id
from ..config.load import load_last_valid
from ..config.sections import Config
from ..core import fast_json
from ..core.errors import AgentctlError, in_words
from ..core.identity import find_identity
from ..core.paths import AgentPaths
from ..host import command
from ..host.journald import Journal
from ..ledger import models, writers
from ..ledger.database import Ledger
from ..ledger.models import CurrentLaunch, Generation
from ..runtime.sandbox import bring_state, outside, seclude, take_state
from .container_loop import ContainerLoop
from .heartbeat import BEATS, KIND_SECONDS, ExpectedLife, expect, tell_missing
from .launch_loop import LaunchLoop
from .launch_result import LaunchResult

TELL_SECONDS = 1.0
SHOWN_LINES = 15
DOWN_SECONDS = 60.0


def main(name: str, plan_path: str) -> int:
    """Run one trial by its plan; return 0 if the candidate held."""
    with open(plan_path, encoding="utf-8") as file:
        plan = fast_json.loads(file.read())
    teller = TrialReport(os.dup(1))
    _log_to(plan["log"])
    held = os.open(plan["folder"], os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
    fcntl.flock(held, fcntl.LOCK_EX)  # so that the next trial does not take this one for a leftover
    work = _in_container if "image" in plan else _on_host
    return _verdict_of(teller, lambda: work(name, plan, teller))


def _verdict_of(teller: TrialReport, work) -> int:
    try:
        return work()
    except (AgentctlError, OSError) as error:
        teller.tell(ok=False, why=f"the trial could not be held: {in_words(error)}", lines=[])
        return 1


def _log_to(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.flush()


def _candidate(name: str, plan: dict, settings: Config) -> Context:
    """Open the candidate as an agent of its own: its worktree is the code, the copy is the state."""
    own = {
        "agent.code": plan["worktree"],
        "state.dir": f"{plan['folder']}/state",
        "state.extra": [],
        "agent.environment": {**settings.agent.environment, "AGENT_TRIAL": "1"},
    }
    paths = AgentPaths(f"{name}-trial", plan["scope"], {"AGENTCTL_ROOT": plan["run"]}, os.getuid())
    return Context(paths, Config({**settings.values, **own}, settings.given))


def _hold(context: Context, plan: dict, teller: TrialReport, make) -> int:
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


def _begin(ledger: Ledger, plan: dict, image: str = "") -> CurrentLaunch:
    """Record the launch in the trial's own ledger."""
    generation = Generation(
        number=plan["generation"],
        status="trial",
        commit_id=plan["commit"],
        image=image,
        vault_commit="",
        tree="",
        branch="",
        source="trial",
        created_at=time.time(),
        tries_left=0,
    )
    launch_id, now = new_id(), time.time()
    writers.begin_launch(ledger, launch_id, plan["generation"], at=now, boot_id=boot_id())
    return CurrentLaunch(id=launch_id, generation=generation, snapshot="", incident="", started_at=now)


class Trial(LaunchLoop):
    """A session that ends by itself: well, when the candidate has held for long enough."""

    def __init__(
        self, context: Context, ledger: Ledger, launch: CurrentLaunch, plan: dict, teller: TrialReport
    ) -> None:
        self.plan, self.teller = plan, teller
        super().__init__(context, ledger, launch, TrialNotifier(self), Journal("trial", to_stdout=True))
        self.has_held, self.complaint = False, ""

    def _open_doors(self) -> None:
        super()._open_doors()
        self.jobs = NoJobs()
        self.watch(self.context.config.agent.ready_timeout)

    def expected_life(self) -> ExpectedLife:
        """Return the life that good code has shown, as it was when the trial was asked for."""
        return expect(self.plan.get("good", 0), self.plan.get("lives", []))

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
        """The time is over: it has shown the life that is asked of it, or it still has its silence to fill."""
        missing = self.life.missing()
        is_silent = self.life.judged_by == BEATS and self.life.judge.counted == 0
        if missing and time.monotonic() - self.life.began >= KIND_SECONDS:
            self.fail("less-life", tell_missing(missing, self.life.auto.expected, 0, KIND_SECONDS))
            return
        if missing or is_silent:
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

    has_lent = False

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


# -- on the host -----------------------------------------------------------------------------------
# As the agent's user, secluded from what is not its own.


def _on_host(name: str, plan: dict, teller: TrialReport) -> int:
    take_state(plan, plan["extra"])
    lacks = seclude(plan)
    if lacks:
        teller.tell(lacks=lacks)
    extra = [] if lacks else plan["extra"]
    bring_state(plan, extra)
    context = _open_on_host(name, plan, outside(extra))
    return _hold(context, plan, teller, lambda ledger: Trial(context, ledger, _begin(ledger, plan), plan, teller))


def _open_on_host(name: str, plan: dict, aside: list[str]) -> Context:
    """Open the candidate with what it finds and writes in the copy of its state, and in the folders `aside`."""
    given = load_last_valid(plan["config"], plan["cache"])[0]
    copy = f"{plan['folder']}/state"
    values = _led_to(given.values, plan["state"].rstrip("/"), copy)
    sessions = {key: _own_sessions(values[key], [copy, *aside]) for key in ("resume.store", "resume.proof")}
    return _candidate(name, plan, Config({**values, **sessions}, given.given))


def _led_to(value, state: str, copy: str):
    """Return settings with the copy where they name the state folder: presets have it in commands and variables."""
    if isinstance(value, str):
        whole = value.replace(f"{state}/", f"{copy}/")
        return whole[: -len(state)] + copy if whole.endswith(state) else whole
    if isinstance(value, (list, tuple)):
        return [_led_to(item, state, copy) for item in value]
    if isinstance(value, dict):
        return {key: _led_to(item, state, copy) for key, item in value.items()}
    return value


def _own_sessions(patterns: list[str], copies: list[str]) -> list[str]:
    """Return the patterns of sessions that were copied. Others are the running agent's: not to be resumed twice."""
    copied = [
        p
        for p in patterns
        if not p.startswith(("/", "~")) or any(os.path.expanduser(p).startswith(f"{copy}/") for copy in copies)
    ]
    return copied or (["no-session-was-copied"] if patterns else [])


# -- in a container --------------------------------------------------------------------------------
# In a project of its own, on copies. Who asks for it may talk to the engine, so it does not run as the agent's user;
# what lies in folders of the agent's is written as the agent's user, and plan, sockets and log are in a folder that
# is not the agent's.


def _in_container(name: str, plan: dict, teller: TrialReport) -> int:
    context = None
    try:
        given = load_last_valid(plan["config"], plan["cache"])[0]
        user = find_identity(given.agent.user) if plan["scope"] == "system" else None
        command.call_as(user, _copy_state_as_agent, fast_json.dumps(plan))
        context = _open_in_container(name, plan, given)
        return _hold(
            context,
            plan,
            teller,
            lambda ledger: ContainerTrial(context, ledger, _begin(ledger, plan, image=plan["image"]), plan, teller),
        )
    finally:
        if context is not None:
            _take_down(context, plan)


def _copy_state_as_agent(plan: str) -> str:
    given = fast_json.loads(plan)
    take_state(given, [])
    bring_state(given, [])
    return ""


def _open_in_container(name: str, plan: dict, given: Config) -> Context:
    """Open the candidate in a project of its own; inside its container everything has the paths it always has."""
    own = {
        "compose.file": plan["file"], "compose.project": plan["project"],
        "compose.code": given.compose.code or given.agent.code,
        "compose.state": given.compose.state or given.state.dir,
    }  # fmt: skip
    return _candidate(name, plan, Config({**given.values, **own}, given.given))


class ContainerTrial(Trial, ContainerLoop):
    """A trial whose agent is in a container; its smoke check looks from inside."""

    def _start_smoke(self) -> command.Running:
        return self.start_probe(self.plan["smoke"], 1)

    def _tell_strays(self) -> None:
        """Who reviews the change sees what it changes."""

    def vouch(self) -> str:
        """A trial recovers nothing."""
        return ""


def _take_down(context: Context, plan: dict) -> None:
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
