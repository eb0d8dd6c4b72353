"""The agent's signs of life in one launch: heard or looked for, judged, and passed on.

They come as notifications, through the API and from probes; one judge decides for all of them.
"""

from __future__ import annotations

import os
import time

from ..config.context import Context
from ..core.errors import CommandFailed
from ..core.text import duration
from ..host import command, procfs
from ..ledger import writers
from ..runtime.status_file import LEAST_SECONDS_BETWEEN
from . import heartbeat
from .api import HttpLook
from .heartbeat import AUTO, BEATS, HOOKS, PROCESS, AutoJudge, Judge

FIRST_LOOKS_SECONDS = 0.2
AUTO_LOOK_SECONDS = 2.0
WAITS_SECONDS = 10.0  # after these it is told what an agent that is not ready waits for
MOST_LOOKED_AT = 2000
NOT_STATE = (".git", "__pycache__", "node_modules", ".venv", "venv")


class SignsOfLife:
    """What the session knows of how the agent is: ready since when, its last heartbeat, what did not count."""

    def __init__(self, session) -> None:
        self.session = session
        config, settings = session.context.config, session.context.config.heartbeat
        expected = session.expected_life()
        self.source, self.ready = heartbeat.rules_of(
            settings.from_,
            config.agent.ready,
            is_given="heartbeat.from" in config.given,
            is_of_old=session.ledger.meta("heartbeat.from") == heartbeat.NOTIFY,
        )
        self.judge = Judge(
            timeout_seconds=settings.timeout,
            longest_wait_seconds=settings.longest_wait,
            progress_required=settings.progress == "required",
            is_beat_ready=self.ready == AUTO,
        )
        self.auto = AutoJudge(timeout_seconds=settings.timeout, expected=expected)
        self.ready_at = self.first_beat_at = self.last_beat_at = self.last_sign_at = None
        self.began = self.began_at = 0.0  # monotonic, and by the clock: when the agent was started
        self.looked_at: float | None = None  # monotonic: when its process was last seen to be well
        self.heart_began = ""
        self.whole_life = ""  # as it was shown in the first seconds
        self.notes: list[str] = []
        self.is_extended = False

    def begin(self) -> None:
        """The agent is started: what is to be seen of it is to be seen from now on."""
        self.began, self.began_at = time.monotonic(), time.time()
        self.session.loop.set_timer("waits", WAITS_SECONDS, self._tell_awaited)
        if self.is_auto:
            self.session.loop.set_timer("life", heartbeat.KIND_SECONDS, self._record_life)

    @property
    def is_auto(self) -> bool:
        """Tell whether it is found out what life is judged by."""
        return self.source == AUTO

    def hear(self, fields: dict[str, str], sender: int | None = None) -> None:
        """Take one notification, whatever way it came, and pass on what counts; `sender` is its process.

        Without a sender it is what a probe of ours has found.
        """
        session, is_hook = self.session, "X_AGENTCTL_HOOK" in fields
        if self.is_auto and is_hook and heartbeat.HOOKS not in self.auto.shown:
            self.judge.phase = "idle"  # until a hook says that it has something to do
        verdict = self.judge.judge(fields, time.monotonic())
        if "X_AGENTCTL_SESSION" in fields:
            from .resumption import hear_session

            hear_session(session, fields["X_AGENTCTL_SESSION"])
        if verdict.status:
            session.notifier.status(verdict.status)
        if verdict.note and verdict.note not in self.notes:
            self.notes.append(verdict.note)
            session.journal.warning(f"agentctl: a heartbeat does not count: {verdict.note}")
        if sender is not None and fields.get("READY") == "1":
            self.auto.shown.add(heartbeat.NOTIFIED)
        if verdict.is_ready:
            self._become_ready()
        if verdict.extend_seconds > 0:
            self._extend(verdict.extend_seconds)
        if verdict.counts:
            self._hear_beat(sender, is_hook=is_hook)
            self._beat()

    def be_ready(self) -> None:
        """It has been alive for long enough, without a word of its own."""
        self.judge.be_ready(time.monotonic())
        self._become_ready()

    def _hear_beat(self, sender: int | None, *, is_hook: bool) -> None:
        if not self.is_auto or sender is None:
            return
        now, main = time.monotonic(), self.session.pane.pane_pid
        if is_hook:
            self.auto.hear_hook(now)
        elif self.auto.heart is None:
            stat = procfs.stat_fields(sender) if sender else []
            if self.auto.hear_beat(sender, now, main=main, parent=int(stat[1]) if len(stat) > 1 else 0):
                self.heart_began = _began(self.auto.heart)
                self._tell_judged_by()

    def look_at_process(self) -> float:
        """Look at the agent as nobody else speaks for it; return in how many seconds it has to be looked at again."""
        session, auto = self.session, self.auto
        if auto.heart and _began(auto.heart) != self.heart_began:
            auto.lose_heart()
            self._tell_judged_by()
        by = self.judged_by
        if by == PROCESS and not is_stopped(session.pane.pane_pid):
            self.looked_at = time.monotonic()
            self._beat(is_own=False)
        return FIRST_LOOKS_SECONDS if by == PROCESS and self.first_beat_at is None else AUTO_LOOK_SECONDS

    @property
    def judged_by(self) -> str:
        """Return what life is judged by now."""
        return self.auto.judged_by(is_busy=self.judge.phase == "working") if self.is_auto else BEATS

    def _tell_judged_by(self) -> None:
        by = self.judged_by
        told = f"the heartbeats of process {self.auto.heart}" if by == BEATS else "its process"
        self.session.journal.info(f"agentctl: life is judged by {told} from now on")
        self.session.status.write(judged_by=by)

    def missing(self) -> list[str]:
        """List the kinds of life that this launch has to show, and has not."""
        if not self.is_auto:
            return []
        self._look_for_traces()
        return self.auto.missing()

    def _look_for_traces(self) -> None:
        """Note what it has left on its terminal; if that is nothing, what of its state it has written."""
        feed, shown = self.session.feed, self.auto.shown
        if feed.drawn_at is not None:
            shown.add(heartbeat.OUTPUT)
        elif heartbeat.STATE not in shown and self._has_written():
            shown.add(heartbeat.STATE)

    def _has_written(self) -> bool:
        folders = {self.session.context.state_dir, self.session.context.code_dir}
        return any(changed_since(folder, self.began_at) for folder in folders)

    def _record_life(self) -> None:
        self._look_for_traces()
        life = self.whole_life = self.auto.life(is_whole=True)
        self.session.record(lambda: writers.set_life(self.session.ledger, self.session.launch.id, life))

    def _tell_awaited(self) -> None:
        if self.ready_at is not None:
            return
        what, command = heartbeat.tell_awaited(self.source, self.ready, self.auto.expected)
        session = self.session
        session.notifier.status(f"generation {session.launch.generation.number}: not ready yet; it waits for {what}")
        session.journal.warning(f"agentctl: not ready after {WAITS_SECONDS:g}s: it waits for {what}; {command}")
        session.status.write(waits_for=what, helps=command)

    def silence(self) -> tuple[str, str]:
        """Return the trigger and the reason of an end that was made because nothing was heard for too long."""
        if self.ready_at is None:
            what, helps = heartbeat.tell_awaited(self.source, self.ready, self.auto.expected)
            limit = duration(self.session.context.config.agent.ready_timeout)
            return "not-ready", f"it was not ready within {limit}: it waited for {what} ({helps})"
        silent = time.time() - (self.last_sign_at or self.ready_at)
        what = "its process was stopped" if self.judged_by == PROCESS else "no heartbeat"
        reason = f"{what} for {silent:.1f}s (limit {self.judge.timeout_seconds:g}s)"
        return "watchdog", f"{reason}; {self.notes[-1]}" if self.notes else reason

    def tell(self, ending) -> None:
        """Write what was heard into how the launch ended."""
        ending.ready_at, ending.first_beat_at, ending.last_beat_at = (
            self.ready_at, self.first_beat_at, self.last_beat_at)  # fmt: skip
        ending.beats, ending.phase, ending.progress = self.judge.counted, self.judge.phase, self.judge.progress
        ending.notes = self.notes
        if self.is_auto and not self.whole_life and hasattr(self.session, "feed"):
            self._look_for_traces()
        ending.life = self.whole_life or self.auto.life(is_whole=False)

    def _become_ready(self) -> None:
        session = self.session
        self.ready_at = time.time()
        session.notifier.ready(f"generation {session.launch.generation.number}: running")
        session.record(lambda: writers.set_ready(session.ledger, session.launch.id, self.ready_at))
        is_candidate = session.launch.generation.status == "candidate"
        session.status.write(
            pid=session.pane.pane_pid,
            phase="probation" if is_candidate else "steady",
            judged_by=self.judged_by,
            waits_for="",
            helps="",
        )
        session.after_ready()

    def _beat(self, *, is_own: bool = True) -> None:
        """Pass on a sign of life: a heartbeat of its own, or a look at its process."""
        session = self.session
        if self.is_extended:
            session.notifier.watchdog_usec(int(self.judge.timeout_seconds * 1e6))
            self.is_extended = False
        session.notifier.keepalive()
        self.last_sign_at = time.time()
        if is_own:
            self.last_beat_at = self.last_sign_at
        if self.first_beat_at is None and self.ready_at is not None:
            self.first_beat_at = self.last_sign_at
            self._first_beat()
        if not session.status.beat(
            self.last_sign_at, heartbeats=self.judge.counted, phase=self.judge.phase, progress=self.judge.progress
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


def is_stopped(pid: int) -> bool:
    """Tell whether the agent is stopped, below a shell too; that one of its children is may be what it wants."""
    return all(procfs.state(member) in ("T", "t") for member in procfs.in_front_of_shell(pid))


def _began(pid: int | None) -> str:
    """Return what tells a process from a later one of its number, '' if it is gone."""
    fields = procfs.stat_fields(pid) if pid else []
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def changed_since(folder: str, at: float) -> bool:
    """Tell whether something in a folder was written since; byte code, git and environments are not looked at."""
    left, folders = MOST_LOOKED_AT, [folder]
    while folders and left > 0:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    left -= 1
                    if left <= 0 or entry.name in NOT_STATE:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.stat(follow_symlinks=False).st_mtime >= at:
                        return True
        except OSError:
            continue  # it went away as we looked
    return False


# -- probe -----------------------------------------------------------------------------------------
# Signs of life from agents that do not notify: a file, a command, output, hooks, a health address, time alive.
# Each source ends in `SignsOfLife.hear`, so that one judge decides for all of them. A probe that hangs is no sign of
# life.


BEAT = {"WATCHDOG": "1"}
READY = {"READY": "1"}


def make_probe(context: Context, session) -> Probe | None:
    """Start what `heartbeat.from` and `agent.ready` ask for; None where the agent does all by itself."""
    session.life.begin()
    source, ready = session.life.source, session.life.ready
    posts = source == "notify" or (source == "http" and not context.config.heartbeat.url)
    if posts and ready == "notify":
        return None
    return Probe(context, session)


class Probe:
    """Looks at one agent at a quarter of its timeout, like a heartbeat would come."""

    def __init__(self, context: Context, session) -> None:
        self.context, self.session = context, session
        self.source, self.ready = session.life.source, session.life.ready
        self.every_seconds = max(0.05, min(context.config.heartbeat.timeout / 4, 10.0))
        self.began = time.monotonic()
        self.file_seen_at = self._file_time()  # an old file is no sign of this launch
        self.output_seen_at = self.began
        self.running: command.Running | None = None
        self.look_under_way = None
        self.soonest = self.every_seconds
        self.store_seen = ()
        if self.source in ("hook", "process"):
            session.life.judge.phase = "idle"  # until a hook says that it has something to do
            self._expect_work()
        self.look()

    def _expect_work(self) -> None:
        """Have what is needed to see that a busy agent gets nowhere."""
        from .wedged import Wedge  # most agents need none of it

        self.session.wedge = Wedge(self.context, self.session)
        self.store_seen = self._store()

    def look(self) -> None:
        """Look once and come again; soon until the first sign of life, for 'recovered' and the like wait for that."""
        is_new = not self.session.life.judge.is_ready
        if is_new:
            self._look_for_ready()
        else:
            self._look_for_beat()
        wait = min(self.every_seconds, FIRST_LOOKS_SECONDS if is_new else self.soonest)
        self.session.loop.set_timer("probe", wait, self.look)

    def _look_for_ready(self) -> None:
        if isinstance(self.ready, (int, float)):
            if time.monotonic() - self.began >= self.ready:
                if self.source == AUTO:
                    self.session.life.be_ready()
                else:
                    self.session.life.hear(READY | (BEAT if self.source == "output" else {}))
        elif isinstance(self.ready, (list, tuple)):
            self._run(list(self.ready), READY)
        elif self.ready == AUTO:
            is_well = not is_stopped(self.session.pane.pane_pid)
            if is_well and self.session.life.auto.is_ready(time.monotonic() - self.began):
                self.session.life.be_ready()
        else:  # "notify" from an agent that knows no notifications: its first sign of life is its word
            self._look_for(READY | BEAT)

    def _look_for_beat(self) -> None:
        self._look_for(BEAT)

    def _look_for(self, meaning: dict[str, str]) -> None:
        """Look at the configured source; what is found there means `meaning`."""
        if self.source == AUTO:
            self._look_at_auto(meaning)
        elif self.source == "file" and self._file_changed():
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

    def _look_at_auto(self, meaning: dict[str, str]) -> None:
        """Look at the process, and, while its hooks say that it is busy, for what it gets done."""
        if "READY" in meaning:
            return  # only its own word makes it ready
        self.soonest = self.session.life.look_at_process()
        if self.session.life.judged_by == HOOKS:
            if self.session.wedge is None:
                self._expect_work()
            self._look_for_work(meaning)

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
