"""One launch while it lives: the agent in its tmux, its doors, its pane, its end. One poll loop, no threads.

It watches and relays. What must be on disk before the start was done by `launch`; what follows an end is decided
by the recovery process. The loop never waits for anything but its poll.
"""

from __future__ import annotations

import _signal as signal  # `signal` imports enum, 5 ms on the way to a running agent
import os
import select
import time

from ..config.context import Context
from ..core import durable
from ..core.errors import AgentctlError
from ..host import command, disk_space, procfs
from ..host.journald import Journal
from ..host.poll_loop import Loop
from ..host.sd_notify import Notifier, NotifyReceiver
from ..host.terminal_output import PaneFeed
from ..ledger import models
from ..ledger.database import Ledger
from ..ledger.models import CurrentLaunch
from ..runtime.agent_env import build_environment, choose_command, keeps_own_sessions
from ..runtime.status_file import StatusFile
from ..runtime.tmux import Tmux
from ..state import agent_state
from . import api
from .heartbeat import ExpectedLife, expect
from .job_queue import Jobs
from .launch_result import LaunchResult, judge_exit
from .signs_of_life import SignsOfLife, make_probe

SESSION_NAME = "agent"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGABRT)
TOLD_ALL_SECONDS = 0.3
RECORD_AGAIN_SECONDS = 5.0
ABORT_GRACE_SECONDS = 2.0  # for faulthandler to write every thread's stack after SIGABRT


class LaunchLoop:
    """Runs one launch to its end."""

    def __init__(
        self, context: Context, ledger: Ledger, launch: CurrentLaunch, notifier: Notifier, journal: Journal
    ) -> None:
        self.context, self.ledger, self.launch = context, ledger, launch
        self.notifier, self.journal = notifier, journal
        self.ending: LaunchResult | None = None
        self.loop, self.by_agent = Loop(), False
        self.life = SignsOfLife(self)
        self.pane_name, self.resumption, self.wedge, self.told_session = SESSION_NAME, None, None, ""
        self.processes: list[dict] = []

    # -- the story ------------------------------------------------------------------------------------------

    def run(self) -> LaunchResult:
        """Start the agent, serve until it has ended, and return how."""
        try:
            self._open_doors()
            self._start_agent()
            self._await_ready()
        except (AgentctlError, OSError) as error:
            hint = f" ({error.hint})" if isinstance(error, AgentctlError) and error.hint else ""
            end, trigger = getattr(error, "end", models.FAILED), getattr(error, "trigger", "cannot-launch")
            self.ending = LaunchResult(end, trigger, f"it could not be started: {error}{hint}")
        try:
            while self.ending is None:
                self.loop.serve_once(lambda: self.ending is not None)
        finally:
            self._close()
        return self._complete(self.ending)

    def _open_doors(self) -> None:
        paths = self.context.paths
        self._listen_to_signals()
        self.receiver = NotifyReceiver(paths.notify_socket_path, 0o600)
        self._give_to_agent(paths.notify_socket_path)
        self.loop.watch(self.receiver.fileno(), self._on_notifications)
        self.api = api.RunnerApi(paths.api_socket_path, self)
        self._give_to_agent(paths.api_socket_path)
        self.loop.watch(self.api.fileno(), self.api.accept)
        self._make_tmux_dir(paths.tmux_dir)
        self.feed = PaneFeed(paths.pane_fifo_path, self.context.owner, self.loop, self.journal)
        self.token = self._make_token(paths.token_path)
        self.jobs = Jobs(self.context, self)
        self.status = StatusFile(
            paths.live_status_path, self.launch.id, self.launch.generation.number, self.launch.started_at
        )

    def _start_agent(self) -> None:
        context, paths = self.context, self.context.paths
        env = build_environment(context, self.launch, os.environ)
        self.launch_env = env
        self.tmux = Tmux(paths.tmux_socket_path, context.user, env)
        argv = self._choose_command(env)
        self.pane = self.tmux.start(SESSION_NAME, argv, cwd=context.code_dir, env=env, pipe_fifo=paths.pane_fifo_path)
        self.loop.watch_end(self.pane.server_pid, self._on_server_end)
        self.loop.watch_end(self.pane.pane_pid, self._on_agent_end)
        self.status.write(pid=self.pane.pane_pid, phase="starting")
        number = self.launch.generation.number
        self.notifier.status(f"generation {number}: starting")
        self.journal.info(
            f"agentctl: launch {self.launch.id}, generation {number} "
            f"({self.launch.generation.status}, {self.launch.generation.commit_id[:12]})"
        )
        self.probe = make_probe(context, self)
        self.jobs.after_launch()

    def _await_ready(self) -> None:
        """The agent's time to become ready begins now, whatever came before it."""
        self.notifier.extend(int(self.context.config.agent.ready_timeout * 1e6))
        if self.notifier.has_lent:  # the manager would wait for what was lent, too
            self._end_unless_ready()

    def _end_unless_ready(self) -> None:
        left = self.notifier.patient_until - time.monotonic()
        if self.life.ready_at is not None or self.ending is not None:
            return
        if left > 0:
            self.loop.set_timer("ready", left, self._end_unless_ready)
        else:
            self._on_abort()

    def _choose_command(self, env: dict[str, str]) -> list[str]:
        if not keeps_own_sessions(self.context.config):
            return choose_command(self.context, env)
        from . import resumption  # most agents need none of it

        self.resumption = resumption.plan(self.context, self.ledger, self.launch)
        if self.resumption.session:
            env["AGENT_SESSION_ID"] = self.resumption.session
        return self.resumption.argv

    # -- what it says ---------------------------------------------------------------------------------------

    def _on_notifications(self) -> None:
        for message in self.receiver.receive():
            if message.uid in self._trusted_uids():
                self.life.hear(message.fields, max(0, message.pid))

    def _trusted_uids(self) -> set[int]:
        user = self.context.user
        return {0, os.geteuid(), user.uid if user else os.geteuid()}

    def after_ready(self) -> None:
        """Begin what waits for a ready agent."""
        self.jobs.after_ready()
        if self.resumption is not None:
            from .resumption import tell_after_ready

            tell_after_ready(self)

    def expected_life(self) -> ExpectedLife:
        """Return the life that good code has shown: its own earlier launches, or those of the last known good."""
        generation, good = self.launch.generation, self.ledger.last_known_good()
        number = good.number if good and generation.status == "candidate" else generation.number
        return expect(number, self.ledger.lives(number))

    def fail(self, trigger: str, reason: str) -> None:
        """End the agent as failed, with every stack."""
        self._abort_agent()
        self.ending = LaunchResult(models.FAILED, trigger, reason, exit_signal=signal.SIGABRT)

    def record(self, write) -> None:
        """Write to the ledger; a full disk is no reason to end an agent that works, so it is tried again."""
        try:
            disk_space.with_room(self.context, write, self.journal.warning)
        except disk_space.NoStorage as error:
            self.journal.warning(f"agentctl: cannot be written down yet: {error.message}")
            self.loop.set_timer(f"record {id(write)}", RECORD_AGAIN_SECONDS, lambda: self.record(write))

    # -- the end --------------------------------------------------------------------------------------------

    def _on_agent_end(self) -> None:
        status, number = self.tmux.exit_of(SESSION_NAME, meanwhile=self.feed.read)
        if status is None and not procfs.is_alive(self.pane.server_pid):
            self._on_server_end()  # it took the agent along
            return
        lived = time.time() - self.launch.started_at
        ending = judge_exit(status, number, is_ready=self.life.ready_at is not None, lived_seconds=lived)
        self.ending = self.wedge.ended(ending) if self.wedge else ending

    def _on_server_end(self) -> None:
        if procfs.is_alive(self.pane.pane_pid):
            self._kill_agent()
        self.ending = LaunchResult(models.FAILED, "tmux-killed", "its tmux server ended")

    def _on_signal(self) -> None:
        for number in os.read(self.wakeup, 64):
            if number == signal.SIGABRT:
                self._on_abort()
            elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self.stop()

    def _on_abort(self) -> None:
        """systemd's watchdog or start limit fired: make the agent tell where it hangs, then end."""
        trigger, reason = self.life.silence()
        if self.life.ready_at is not None and self.wedge and self.wedge.is_under_way():
            trigger, reason = "wedged", self.wedge.reason()
        self.fail(trigger, reason)

    def _abort_agent(self) -> None:
        """SIGABRT to the foreground group for every stack; what it said may be on its way in tmux when it is dead."""
        targets = procfs.in_front_of_shell(self.pane.pane_pid)
        procfs.signal_and_wake(targets, signal.SIGABRT)
        if self._wait_for_end(ABORT_GRACE_SECONDS, targets, told_all_seconds=TOLD_ALL_SECONDS):
            self.tmux.exit_of(
                SESSION_NAME,
                meanwhile=self.feed.read,
                limit_seconds=TOLD_ALL_SECONDS,
                answer_seconds=ABORT_GRACE_SECONDS,
            )

    def ask_to_end(self) -> None:
        """SIGTERM to the agent, waking what is stopped; nobody waits for it."""
        procfs.signal_and_wake(procfs.in_front_of_shell(self.pane.pane_pid), signal.SIGTERM)

    def stop(self) -> None:
        """End the agent the kind way: SIGTERM, time to save, then SIGKILL. Nothing of this is a failure."""
        self.notifier.stopping()
        self.journal.info("agentctl: stopping: asking the agent to save")
        began = time.monotonic()
        agent = procfs.in_front(self.pane.pane_pid)  # below a shell or npm, too
        procfs.signal_and_wake(agent, signal.SIGTERM)
        in_time = self._wait_for_end(self.context.config.agent.stop_grace, agent)
        self._kill_agent()
        took = time.monotonic() - began
        reason = f"stopped, saved and ended within {took:.1f}s" if in_time else f"stopped; killed after {took:.1f}s"
        self.ending = LaunchResult(models.STOPPED, "stop", reason)
        self.ending.by_agent = self.by_agent

    def _wait_for_end(self, limit_seconds: float, pids: list[int] | None = None, told_all_seconds: float = 0.0) -> bool:
        """Keep reading the pane until the processes (the agent's) have ended; False if they have not in time.

        With `told_all_seconds` also when something was written and nothing more for that long.
        """
        began = time.monotonic()
        while any(procfs.is_alive(pid) for pid in pids or [self.pane.pane_pid]):
            now = time.monotonic()
            has_told = self.feed.last_output_at > began and now - self.feed.last_output_at > told_all_seconds > 0
            if now >= began + limit_seconds or has_told:
                return False
            select.select([self.receiver, *([self.feed.fd] if self.feed.is_open else [])], [], [], 0.01)
            self.feed.read()
            self.receiver.receive()  # nobody judges it now, but who sends into a full socket waits
        return True

    def _kill_agent(self) -> None:
        procfs.end_all(lambda: procfs.with_variable("AGENT_LAUNCH_ID", self.launch.id))

    def _complete(self, ending: LaunchResult) -> LaunchResult:
        self.life.tell(ending)
        ending.processes = self.processes
        ending.lines = list(self.feed.lines) if hasattr(self, "feed") else []
        return ending

    def snapshot_at_stop(self) -> None:
        """Keep the state as the agent left it; after the end is on record, as it may take longer than a stop may."""
        try:
            agent_state.take_snapshot(self.context)
        except AgentctlError as error:
            self.journal.warning(f"agentctl: no snapshot at the stop: {error.message}")

    # -- asked from outside ---------------------------------------------------------------------------------

    def restart(self, by_agent: bool) -> None:
        """Save and start anew: what `agentctl restart` asks for, also from inside."""
        self.by_agent = by_agent
        if os.environ.get("AGENTCTL_RUNTIME") == "direct":
            self.stop()
            self.ending.end, self.ending.trigger, self.ending.reason = models.ASKED, "asked", "restart asked for"
            return
        from ..runtime.systemd import restart_without_waiting

        try:
            restart_without_waiting(self.context.paths)
        except AgentctlError as error:
            self.journal.warning(f"agentctl: the restart that was asked for is refused: {error.message}")

    def vouch(self) -> str:
        """Return '' if what runs is what was wanted: in tmux the launch itself says so."""
        return ""

    def running_facts(self) -> dict:
        """What an incident is told about what runs after it, beyond the generation."""
        return {}

    def start_probe(self, argv: list[str], null: int) -> command.Running:
        """Start a probe of the agent's, as its user and beside it."""
        env = {**self.launch_env, "AGENT_PID": str(self.pane.pane_pid)}
        return command.start(
            ["/usr/bin/env", "--", *argv],
            env=env,
            cwd=self.context.code_dir,
            user=self.context.user,
            stdin_fd=null,
            stdout_fd=null,
            stderr_fd=null,
        )

    # -- small parts ----------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        self.wakeup, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a stop that came since the try was spent
        self.loop.watch(self.wakeup, self._on_signal)

    def _make_tmux_dir(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if self.context.owner:
            os.chown(path, *self.context.owner)

    def _give_to_agent(self, path: str) -> None:
        """Let the agent's user in, and nobody else but root."""
        if self.context.owner:
            os.chown(path, *self.context.owner)

    def _make_token(self, path: str) -> str:
        """Leave this launch's token for the agent, readable by its user alone."""
        token = os.urandom(32).hex()
        durable.write(path, token.encode(), 0o600, self.context.owner)
        return token

    def _close(self) -> None:
        if hasattr(self, "pane"):
            self.tmux.end_server(self.pane.server_pid)
        elif hasattr(self, "tmux"):
            self.tmux.kill_server()
        if hasattr(self, "feed"):
            self.feed.drain()
        if hasattr(self, "jobs"):
            self.jobs.end()
