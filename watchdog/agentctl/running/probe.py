"""Signs of life from agents that do not notify: a file, a command, output, hooks, a health address, time alive.

Each source ends in `Life.hear`, so that one judge decides for all of them. A probe that hangs is no sign of life.
"""

from __future__ import annotations

import os
import time

from ..errors import CommandFailed
from ..machine import command, process
from ..station import Station

BEAT = {"WATCHDOG": "1"}
READY = {"READY": "1"}


def make_probe(station: Station, session) -> Probe | None:
    """Start what `heartbeat.from` and `agent.ready` ask for; None where the agent does all by itself."""
    source, ready = station.config.heartbeat.from_, station.config.agent.ready
    posts = source == "notify" or (source == "http" and not station.config.heartbeat.url)
    if posts and ready == "notify":
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
        self.look_under_way = None
        self.soonest = self.every_seconds
        if self.source in ("hook", "process"):
            from .wedge import Wedge  # most agents need none of it

            session.wedge = Wedge(station, session)
            session.life.judge.phase = "idle"  # until a hook says that it has something to do
            self.store_seen = self._store()
        self.look()

    def look(self) -> None:
        """Look once and come again; soon until the first sign of life, for 'recovered' and the like wait for that."""
        is_new = not self.session.life.judge.is_ready
        if is_new:
            self._look_for_ready()
        else:
            self._look_for_beat()
        wait = min(self.every_seconds, 0.2 if is_new else self.soonest)
        self.session.loop.set_timer("probe", wait, self.look)

    def _look_for_ready(self) -> None:
        if isinstance(self.ready, (int, float)):
            if time.monotonic() - self.began >= self.ready:
                self.session.life.hear(READY | (BEAT if self.source == "output" else {}))
        elif isinstance(self.ready, (list, tuple)):
            self._run(list(self.ready), READY)
        else:  # "notify" from an agent that knows no notifications: its first sign of life is its word
            self._look_for(READY | BEAT)

    def _look_for_beat(self) -> None:
        self._look_for(BEAT)

    def _look_for(self, meaning: dict[str, str]) -> None:
        """Look at the configured source; what is found there means `meaning`."""
        if self.source == "file" and self._file_changed():
            self.session.life.hear(meaning)
        elif self.source == "output" and self.session.feed.last_output_at > self.output_seen_at:
            self.output_seen_at = self.session.feed.last_output_at
            self.session.life.hear(meaning)
        elif self.source == "http" and self.station.config.heartbeat.url:
            self._ask_address(meaning)
        elif self.source in ("hook", "process"):
            self._look_for_work(meaning)
        elif self.source == "command":
            self._run(list(self.station.config.heartbeat.command), meaning)

    def _look_for_work(self, meaning: dict[str, str]) -> None:
        """An idle agent is well while its process is there; a busy one while its hooks speak or its session grows."""
        if "READY" in meaning:
            return  # its first hook says so
        if process.is_stopped(self.session.pane.pane_pid):
            return
        store, seen = self._store(), self.store_seen
        self.store_seen, self.soonest = store, self.every_seconds
        if self.session.life.judge.phase == "idle" or store != seen:
            self.session.life.hear(meaning)
        else:
            self.soonest = self.session.wedge.look()

    def _store(self) -> tuple:
        from ..conversation.session_store import newest_change
        from .resumption import read_session, with_session

        patterns = with_session(self.station.config.resume.store, read_session(self.station))
        return newest_change(patterns, self.station.state_dir, self.station.home)

    def _ask_address(self, meaning: dict[str, str]) -> None:
        """Ask the agent's own health address; the next look ends one that got no answer."""
        from ..machine.http_look import HttpLook

        if self.look_under_way is not None:
            self.look_under_way.give_up()

        def answered(is_well: bool) -> None:
            self.look_under_way = None
            if is_well:
                self.session.life.hear(meaning)

        look = HttpLook(self.station.config.heartbeat.url, self.session.loop, answered)
        self.look_under_way = look if look.is_open else None

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
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            self.running = self.session.start_probe(argv, null)
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
            self.session.life.hear(meaning)

    def _give_up(self) -> None:
        if self.running is not None:
            try:
                os.kill(-self.running.pid, command.SIGKILL)
            except ProcessLookupError:
                return
