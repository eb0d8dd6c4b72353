"""The foreground: runner and recovery process as children of `agentctl supervise`, for machines without systemd.

It plays systemd's part: start limit and watchdog by the notification protocol, SIGABRT, the recovery process after
every failure, the relaunch after its success. It decides nothing about code.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from ..config.context import Context, Lock
from ..core.errors import EXIT_HALTED, EXIT_LOCK_HELD, EXIT_NO_STORAGE, EXIT_RELAUNCH, EXIT_STAY_DOWN, AgentctlError
from ..core.paths import ENTRY_PATH
from ..host import command, procfs
from ..host.mount_namespace import call_libc
from ..host.sd_notify import NotifyReceiver

ABORT_SECONDS = 15.0
STOP_MARGIN_SECONDS = 15.0  # as in the unit: the runner ends the agent itself, within stop_grace
PR_SET_CHILD_SUBREAPER = 36


class Supervisor:
    """One agent, supervised in the foreground."""

    def __init__(self, context: Context, name: str, say) -> None:
        self.context, self.name, self.say = context, name, say
        self.is_stopping = False
        self.wants_rollback = False
        self.running: command.Running | None = None
        self.ends_by: float | None = None  # once the runner is asked to end: a hung one would never

    def run(self) -> int:
        """Keep the agent alive until a signal ends it or it is halted; return the exit status."""
        paths = self.context.paths
        os.makedirs(paths.runtime_dir, mode=0o755, exist_ok=True)
        with Lock(f"{paths.data_dir}/supervise.lock", f"a supervisor of '{self.name}'").take():
            _adopt_orphans()
            self._listen()
            self.receiver = NotifyReceiver(f"{paths.runtime_dir}/supervise.sock", 0o600)
            with open(paths.supervisor_pid_path, "w") as file:
                file.write(f"{os.getpid()}\n")
            try:
                return self._keep_alive()
            finally:
                os.unlink(paths.supervisor_pid_path)
                self.receiver.close()

    def _keep_alive(self) -> int:
        while True:
            status = self._run_runner()
            self._sweep()
            if self.is_stopping:
                return 0
            if status == 0 and not self.wants_rollback:
                return 0
            self.wants_rollback = False
            outcome = self._run_child("rollback", status)
            while outcome == EXIT_NO_STORAGE and self._wait_for_storage():
                outcome = self._run_child("rollback")
            if self.is_stopping:
                return 0
            if outcome == EXIT_HALTED:
                self._alert()
                return EXIT_HALTED
            if outcome == EXIT_STAY_DOWN:
                return 0
            if outcome not in (EXIT_RELAUNCH, EXIT_LOCK_HELD) and self._run_child("rescue", outcome):
                return outcome

    # -- the runner under watch -----------------------------------------------------------------------------

    def _run_runner(self) -> int:
        settings = self.context.config
        running = self._start("runner")
        ended = os.pidfd_open(running.pid)
        limit = settings.agent.ready_timeout
        deadline, is_ready = time.monotonic() + limit, False
        self.ends_by = None
        timeout = settings.heartbeat.timeout
        try:
            while True:
                wait = max(0.0, min(deadline, self.ends_by or deadline) - time.monotonic())
                ready, _, _ = select.select([ended, self.receiver.fileno(), self.wakeup], [], [], wait)
                if ended in ready:
                    return self._reap(running)
                if self.wakeup in ready:
                    self._on_signal(running)
                for message in self.receiver.receive() if self.receiver.fileno() in ready else []:
                    if message.pid != running.pid:
                        continue  # as NotifyAccess=main: what the agent sends here must not keep it alive
                    fields = message.fields
                    timeout = _new_timeout(fields, timeout)
                    if fields.get("READY") == "1":
                        is_ready = True
                    if "EXTEND_TIMEOUT_USEC" in fields and not is_ready:
                        deadline = max(deadline, time.monotonic() + int(fields["EXTEND_TIMEOUT_USEC"]) / 1e6)
                    if is_ready and ({"READY", "WATCHDOG", "WATCHDOG_USEC"} & fields.keys()):
                        deadline = time.monotonic() + timeout
                if self.ends_by is not None:
                    deadline = max(deadline, self.ends_by)
                    if time.monotonic() >= self.ends_by:
                        self.say("agentctl: the runner does not end: SIGKILL")
                        procfs.signal_quietly(running.pid, signal.SIGKILL)
                        return self._reap(running)
                if time.monotonic() >= deadline and not self.is_stopping:
                    self._abort(running, ended)
                    return self._reap(running)
        finally:
            os.close(ended)

    def _abort(self, running: command.Running, ended: int) -> None:
        self.say("agentctl: no sign of life in time: SIGABRT to the runner")
        procfs.signal_quietly(running.pid, signal.SIGABRT)
        if not select.select([ended], [], [], ABORT_SECONDS)[0]:
            procfs.signal_quietly(running.pid, signal.SIGKILL)

    def _on_signal(self, running: command.Running) -> None:
        for number in os.read(self.wakeup, 64):
            if number == signal.SIGUSR1:
                self.wants_rollback = True
            elif number != signal.SIGCHLD:
                self.is_stopping = True
            else:
                continue
            grace = self.context.config.agent.stop_grace + STOP_MARGIN_SECONDS
            self.ends_by = self.ends_by or time.monotonic() + grace
            procfs.signal_quietly(running.pid, signal.SIGTERM)

    def _reap(self, running: command.Running) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1])
        self.running = None
        return status

    # -- children -------------------------------------------------------------------------------------------

    def _run_child(self, part: str, status: int = 0) -> int:
        running = self._start(part, status)
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == running.pid:
                return os.waitstatus_to_exitcode(status)

    def _wait_for_storage(self) -> bool:
        """Have the rescue tell and wait; False if that failed or we are to stop."""
        running = self._start("rescue", EXIT_NO_STORAGE)
        ended = os.pidfd_open(running.pid)
        try:
            while ended not in select.select([ended, self.wakeup], [], [])[0]:
                if any(number not in (signal.SIGUSR1, signal.SIGCHLD) for number in os.read(self.wakeup, 64)):
                    self.is_stopping = True
                    procfs.signal_quietly(running.pid, signal.SIGKILL)
        finally:
            os.close(ended)
        return self._reap(running) == 0 and not self.is_stopping

    def _start(self, part: str, status: int = 0) -> command.Running:
        env = {**os.environ, "AGENTCTL_RUNTIME": "direct", "NOTIFY_SOCKET": self.receiver.path}
        env.pop("INVOCATION_ID", None)
        if status:  # as systemd tells who is started because another unit failed
            env["MONITOR_EXIT_STATUS"], env["MONITOR_SERVICE_RESULT"] = str(status), "exit-code"
            env["MONITOR_INVOCATION_ID"] = os.urandom(16).hex()
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.running = command.start(
                [sys.executable, "-I", "-S", ENTRY_PATH, part, self.name],
                env=env,
                stdin_fd=null,
                stdout_fd=1,
                stderr_fd=2,
            )
        finally:
            os.close(null)
        return self.running

    def _sweep(self) -> None:
        """What systemd does with the cgroup: end everything the launch left behind, and reap it."""
        left = procfs.end_all(self._find_left_over, limit_seconds=10)
        if left:
            self.say(f"agentctl: processes of the agent do not end: {left}")
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return

    def _find_left_over(self) -> list[int]:
        """List the processes that name the agent, and every child: orphans come to us, whatever they forgot."""
        named = [
            p for p in procfs.with_variable("AGENT_NAME", self.name) if _is_of_a_launch(p, self.context.paths.root)
        ]
        return [*named, *(p for p in procfs.children(os.getpid()) if p not in named)]

    def _alert(self) -> None:
        from ..host.alert_command import send

        send(self.context, "halted")

    def _listen(self) -> None:
        self.wakeup, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)


def _is_of_a_launch(pid: int, root: str) -> bool:
    """Tell an agent's process from a shell that exports AGENT_NAME, and from one of the same name elsewhere."""
    variables = procfs.variables(pid)
    return "AGENT_LAUNCH_ID" in variables and variables.get("AGENTCTL_ROOT", "") == root


def _new_timeout(fields: dict[str, str], timeout: float) -> float:
    raw = fields.get("WATCHDOG_USEC", "")
    return int(raw) / 1e6 if raw.isdigit() else timeout


def _adopt_orphans() -> None:
    """Become the parent of what the agent leaves behind, or it would escape to PID 1."""
    try:
        call_libc("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, what="prctl(PR_SET_CHILD_SUBREAPER)")
    except OSError as error:
        raise AgentctlError(f"{error.filename} was refused: orphans of the agent could escape") from error
