"""The agent's signs of life in one launch: heard or looked for, judged, and passed on.

They come as notifications, through the API and from probes; one judge decides for all of them.
"""

from __future__ import annotations

import _socket as socket  # `socket` costs 10 ms of import (selectors, enum)
import errno
import os
import time

from ..config.context import Context
from ..core.errors import CommandFailed
from ..host import command, procfs
from ..ledger import writers
from ..runtime.status_file import LEAST_SECONDS_BETWEEN
from .heartbeat import Judge


class SignsOfLife:
    """What the session knows of how the agent is: ready since when, its last heartbeat, what did not count."""

    def __init__(self, session) -> None:
        self.session = session
        heartbeat = session.context.config.heartbeat
        self.judge = Judge(
            timeout_seconds=heartbeat.timeout,
            longest_wait_seconds=heartbeat.longest_wait,
            progress_required=heartbeat.progress == "required",
        )
        self.ready_at = self.first_beat_at = self.last_beat_at = None
        self.notes: list[str] = []
        self.is_extended = False

    def hear(self, fields: dict[str, str]) -> None:
        """Take one notification of the agent, whatever way it came, and pass on what counts."""
        session = self.session
        verdict = self.judge.judge(fields, time.monotonic())
        if "X_AGENTCTL_SESSION" in fields:
            from .resumption import hear_session

            hear_session(session, fields["X_AGENTCTL_SESSION"])
        if verdict.status:
            session.notifier.status(verdict.status)
        if verdict.note and verdict.note not in self.notes:
            self.notes.append(verdict.note)
            session.journal.warning(f"agentctl: a heartbeat does not count: {verdict.note}")
        if verdict.is_ready:
            self._become_ready()
        if verdict.extend_seconds > 0:
            self._extend(verdict.extend_seconds)
        if verdict.counts:
            self._beat()

    def silence(self) -> tuple[str, str]:
        """Return the trigger and the reason of an end that was made because nothing was heard for too long."""
        if self.ready_at is None:
            return "not-ready", f"it was not ready within {self.session.context.config.agent.ready_timeout:g}s"
        silent = time.time() - (self.last_beat_at or self.ready_at)
        reason = f"no heartbeat for {silent:.1f}s (limit {self.judge.timeout_seconds:g}s)"
        return "watchdog", f"{reason}; {self.notes[-1]}" if self.notes else reason

    def tell(self, ending) -> None:
        """Write what was heard into how the launch ended."""
        ending.ready_at, ending.first_beat_at, ending.last_beat_at = (
            self.ready_at, self.first_beat_at, self.last_beat_at)  # fmt: skip
        ending.beats, ending.phase, ending.progress = self.judge.counted, self.judge.phase, self.judge.progress
        ending.notes = self.notes

    def _become_ready(self) -> None:
        session = self.session
        self.ready_at = time.time()
        session.notifier.ready(f"generation {session.launch.generation.number}: running")
        session.record(lambda: writers.set_ready(session.ledger, session.launch.id, self.ready_at))
        is_candidate = session.launch.generation.status == "candidate"
        session.status.write(pid=session.pane.pane_pid, phase="probation" if is_candidate else "steady")
        session.after_ready()

    def _beat(self) -> None:
        session = self.session
        if self.is_extended:
            session.notifier.watchdog_usec(int(self.judge.timeout_seconds * 1e6))
            self.is_extended = False
        session.notifier.keepalive()
        self.last_beat_at = time.time()
        if self.first_beat_at is None and self.ready_at is not None:
            self.first_beat_at = self.last_beat_at
            self._first_beat()
        if not session.status.beat(
            self.last_beat_at, heartbeats=self.judge.counted, phase=self.judge.phase, progress=self.judge.progress
        ):
            session.loop.set_timer("status", LEAST_SECONDS_BETWEEN, session.status.write)

    def _first_beat(self) -> None:
        """The first heartbeat of this launch: only now is a recovery a recovery."""
        session, at = self.session, self.first_beat_at
        session.record(lambda: writers.set_first_beat(session.ledger, session.launch.id, at))
        session.jobs.settle_incident()

    def _extend(self, seconds: float) -> None:
        wanted = max(seconds, self.judge.timeout_seconds)
        if self.ready_at is None:
            self.session.notifier.extend(int(wanted * 1e6))
            return
        self.session.notifier.watchdog_usec(int(wanted * 1e6))
        self.is_extended = True
        self.session.status.write(silent_until_at=time.time() + wanted)


# -- probe -----------------------------------------------------------------------------------------
# Signs of life from agents that do not notify: a file, a command, output, hooks, a health address, time alive.
# Each source ends in `SignsOfLife.hear`, so that one judge decides for all of them. A probe that hangs is no sign of
# life.


BEAT = {"WATCHDOG": "1"}
READY = {"READY": "1"}


def make_probe(context: Context, session) -> Probe | None:
    """Start what `heartbeat.from` and `agent.ready` ask for; None where the agent does all by itself."""
    source, ready = context.config.heartbeat.from_, context.config.agent.ready
    posts = source == "notify" or (source == "http" and not context.config.heartbeat.url)
    if posts and ready == "notify":
        return None
    return Probe(context, session)


class Probe:
    """Looks at one agent at a quarter of its timeout, like a heartbeat would come."""

    def __init__(self, context: Context, session) -> None:
        self.context, self.session = context, session
        self.source = context.config.heartbeat.from_
        self.ready = context.config.agent.ready
        self.every_seconds = max(0.05, min(context.config.heartbeat.timeout / 4, 10.0))
        self.began = time.monotonic()
        self.file_seen_at = self._file_time()  # an old file is no sign of this launch
        self.output_seen_at = self.began
        self.running: command.Running | None = None
        self.look_under_way = None
        self.soonest = self.every_seconds
        if self.source in ("hook", "process"):
            from .wedged import Wedge  # most agents need none of it

            session.wedge = Wedge(context, session)
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
        elif self.source == "http" and self.context.config.heartbeat.url:
            self._ask_address(meaning)
        elif self.source in ("hook", "process"):
            self._look_for_work(meaning)
        elif self.source == "command":
            self._run(list(self.context.config.heartbeat.command), meaning)

    def _look_for_work(self, meaning: dict[str, str]) -> None:
        """An idle agent is well while its process is there; a busy one while its hooks speak or its session grows."""
        if "READY" in meaning:
            return  # its first hook says so
        if procfs.is_stopped(self.session.pane.pane_pid):
            return
        store, seen = self._store(), self.store_seen
        self.store_seen, self.soonest = store, self.every_seconds
        if self.session.life.judge.phase == "idle" or store != seen:
            self.session.life.hear(meaning)
        else:
            self.soonest = self.session.wedge.look()

    def _store(self) -> tuple:
        from .resumption import newest_change, read_session, with_session

        patterns = with_session(self.context.config.resume.store, read_session(self.context))
        return newest_change(patterns, self.context.state_dir, self.context.home)

    def _ask_address(self, meaning: dict[str, str]) -> None:
        """Ask the agent's own health address; the next look ends one that got no answer."""
        if self.look_under_way is not None:
            self.look_under_way.give_up()

        def answered(is_well: bool) -> None:
            self.look_under_way = None
            if is_well:
                self.session.life.hear(meaning)

        look = HttpLook(self.context.config.heartbeat.url, self.session.loop, answered)
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
            return os.stat(os.path.join(self.context.state_dir, self.context.config.heartbeat.file)).st_mtime_ns
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


# -- http look -------------------------------------------------------------------------------------
# One look at an agent's own health address: GET on loopback, never waiting; any answer 2xx is a sign of life.
# Driven by the launch's poll loop. No library: `http.client` would cost the runner 60 ms and 5 MiB.


MOST_BYTES = 4096


class HttpLook:
    """A GET under way; calls `answered(is_well)` once."""

    def __init__(self, url: str, loop, answered) -> None:
        self.loop, self.answered = loop, answered
        host, _, self.path = url.removeprefix("http://").partition("/")
        self.host, _, port = host.rpartition(":")
        self.received = b""
        name = self.host.strip("[]").replace("localhost", "127.0.0.1")
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.setblocking(False)
        failed = self.socket.connect_ex((name, int(port)))
        if failed not in (0, errno.EINPROGRESS):
            self._end(False)
            return
        self._ask()

    @property
    def is_open(self) -> bool:
        """Tell whether an answer is still to come."""
        return self.socket.fileno() >= 0

    def _ask(self) -> None:
        """Send at once: on loopback a connection stands when `connect` returns."""
        try:
            self.socket.send(f"GET /{self.path} HTTP/1.0\r\nHost: {self.host}\r\nConnection: close\r\n\r\n".encode())
        except OSError:
            self._end(False)
            return
        self.loop.watch(self.socket.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self.socket.recv(MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.received += data
        if b"\n" in self.received or not data or len(self.received) > MOST_BYTES:
            self.loop.forget(self.socket.fileno())
            self._end(is_well(self.received))

    def give_up(self) -> None:
        """End it without an answer."""
        if self.socket.fileno() >= 0:
            self.loop.forget(self.socket.fileno())
            self._end(False)

    def _end(self, well: bool) -> None:
        self.socket.close()
        self.answered(well)


def is_well(answer: bytes) -> bool:
    """Tell whether an answer's status line says 2xx."""
    words = answer.split(b"\n", 1)[0].split()
    return len(words) > 1 and words[0].startswith(b"HTTP/") and len(words[1]) == 3 and words[1].startswith(b"2")
