"""Signs of life from agents that do not notify: a file, a command, pane output, or plain time alive.

Each source ends in `session.hear`, so that one judge decides for all of them. A probe that hangs is no sign of life.
"""

from __future__ import annotations

import os
import time

from . import command
from .errors import CommandFailed
from .station import Station

BEAT = {"WATCHDOG": "1"}
READY = {"READY": "1"}


def make_probe(station: Station, session) -> Probe | None:
    """Start what `heartbeat.from` and `agent.ready` ask for; None where the agent does all by itself."""
    source, ready = station.config.heartbeat.from_, station.config.agent.ready
    if source in ("notify", "http") and ready == "notify":
        return None
    return Probe(station, session)


class Probe:
    """Looks at one agent at a quarter of its timeout, like a heartbeat would come."""

    def __init__(self, station: Station, session) -> None:
        self.station, self.session = station, session
        self.source = station.config.heartbeat.from_
        self.ready = station.config.agent.ready
        self.every_seconds = max(0.05, min(station.config.heartbeat.timeout / 4, 10.0))
        self.began = time.monotonic()
        self.file_seen_at = self._file_time()  # an old file is no sign of this launch
        self.output_seen_at = self.began
        self.running: command.Running | None = None
        self.look()

    def look(self) -> None:
        """Look once and come again."""
        if not self.session.judge.is_ready:
            self._look_for_ready()
        else:
            self._look_for_beat()
        wait = self.every_seconds if self.session.judge.is_ready else min(self.every_seconds, 0.2)
        self.session.loop.set_timer("probe", wait, self.look)

    def _look_for_ready(self) -> None:
        if isinstance(self.ready, (int, float)):
            if time.monotonic() - self.began >= self.ready:
                self.session.hear(READY | (BEAT if self.source == "output" else {}))
        elif isinstance(self.ready, (list, tuple)):
            self._run(list(self.ready), READY)
        else:  # "notify" from an agent that knows no notifications: its first sign of life is its word
            self._look_for(READY | BEAT)

    def _look_for_beat(self) -> None:
        self._look_for(BEAT)

    def _look_for(self, meaning: dict[str, str]) -> None:
        """Look at the configured source; what is found there means `meaning`."""
        if self.source == "file" and self._file_changed():
            self.session.hear(meaning)
        elif self.source == "output" and self.session.feed.last_output_at > self.output_seen_at:
            self.output_seen_at = self.session.feed.last_output_at
            self.session.hear(meaning)
        elif self.source == "command":
            self._run(list(self.station.config.heartbeat.command), meaning)

    def _file_changed(self) -> bool:
        changed_at = self._file_time()
        is_new = changed_at not in (0, self.file_seen_at)
        self.file_seen_at = changed_at
        return is_new

    def _file_time(self) -> int:
        """Return when the file changed last, 0 while there is none."""
        if self.source != "file":
            return 0
        try:
            return os.stat(os.path.join(self.station.state_dir, self.station.config.heartbeat.file)).st_mtime_ns
        except OSError:
            return 0

    def _run(self, argv: list[str], meaning: dict[str, str]) -> None:
        """Start the probe command as the agent's user; its end is read by the session's poll."""
        if self.running is not None:
            return
        env = {**self.session.launch_env, "AGENT_PID": str(self.session.pane.pane_pid)}
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            self.running = command.start(["/usr/bin/env", "--", *argv], env=env, cwd=self.station.code_dir,
                                         user=self.station.user, stdin_fd=null, stdout_fd=null, stderr_fd=null)
        except CommandFailed:
            return
        finally:
            os.close(null)
        ended = os.pidfd_open(self.running.pid)
        self.session.loop.watch(ended, lambda: self._ended(ended, meaning))
        self.session.loop.set_timer("probe-limit", max(1.0, self.every_seconds * 2), self._give_up)

    def _ended(self, pidfd: int, meaning: dict[str, str]) -> None:
        self.session.loop.forget(pidfd)
        os.close(pidfd)
        running, self.running = self.running, None
        if running is not None and os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1]) == 0:
            self.session.hear(meaning)

    def _give_up(self) -> None:
        if self.running is not None:
            try:
                os.kill(-self.running.pid, command.SIGKILL)
            except ProcessLookupError:
                return
