"""Work beside the running agent, each in a child process of low priority: bless, standby, rescue branch.

The session starts them and hears of their end; none of them can hold up a heartbeat.
"""

from __future__ import annotations

import os
import sys
import time

from ..core.errors import AgentctlError
from ..core.paths import ENTRY_PATH
from ..host import command, disk_space
from ..ledger import models
from ..recovery import policy
from .heartbeat import BEATS, KIND_SECONDS, KINDS, tell_missing
from .launch_result import LaunchResult

SIGUSR1 = 10  # `signal` costs an enum import
PROBATION_LOOK_SECONDS = 0.5
BALLAST_LOOK_SECONDS = 15.0
SAVE_TRIES = 3
SAVE_AGAIN_SECONDS = 5.0


class Jobs:
    """The children of one session."""

    def __init__(self, context, session) -> None:
        self.context, self.session = context, session
        self.running: dict[str, command.Running] = {}
        self.waiting: list[tuple[str, str]] = []  # jobs for changes, one after the other
        self.is_work_saved = session.launch.incident == ""
        self.save_tries_left = SAVE_TRIES
        self.is_settled = False

    # -- when ----------------------------------------------------------------------------------------------

    def after_launch(self) -> None:
        """A rollback leaves one thing to do that needs time: commit the condemned work onto its rescue branch."""
        confirm_by = self.session.launch.generation.confirm_by
        if confirm_by is not None:
            left = min(max(0.0, confirm_by - time.time()), self._time_to_confirm())
            self.session.loop.set_timer("confirm", left, self._look_at_confirmation)
        if not self.is_work_saved:
            self._start("save-work", self._work_saved, self.session.launch.incident)

    def _time_to_confirm(self) -> float:
        """Return what the promotion gave: a clock that was set back, as after a power cut, cannot make it more."""
        row = self.session.ledger.change(self.session.launch.generation.change)
        return (row.promotion.get("confirm_seconds") if row else None) or float("inf")

    def after_ready(self) -> None:
        """Begin what a launch that is ready leaves to be done beside it."""
        generation = self.session.launch.generation
        self._look_at_ballast()
        if generation.status == "candidate":
            self.session.loop.set_timer("probation", PROBATION_LOOK_SECONDS, self._check_probation)
        elif self.is_work_saved:
            self._start("standby", lambda _status: None, str(generation.number))

    def settle_incident(self) -> None:
        """Write `recovered`, once the first heartbeat is here and the condemned work is saved."""
        session = self.session
        if self.is_settled or session.life.first_beat_at is None or not self.is_work_saved:
            return
        self.is_settled = True
        if not session.launch.incident:
            return
        session.record(self._write_recovered)

    def _write_recovered(self) -> None:
        from ..ledger.incidents import recover

        session = self.session
        why_not = session.vouch()
        if why_not:
            session.stop()
            session.ending = LaunchResult(models.FAILED, "not-as-wanted", why_not)
            return
        if facts := session.running_facts():
            session.ledger.add_evidence(session.launch.incident, runs=facts)
        recover(session.ledger, session.launch, session.life.first_beat_at)
        session.journal.info(
            f"agentctl: incident {session.launch.incident}: recovered on generation {session.launch.generation.number}"
        )

    # -- what ----------------------------------------------------------------------------------------------

    def _check_probation(self) -> None:
        session, settings = self.session, self.context.config.probation
        judge, missing = session.life.judge, session.life.missing()
        lacks = " or ".join(KINDS[kind] for kind in missing)
        if lacks != session.status.facts.get("lacks", ""):
            session.status.write(lacks=lacks)
        if missing:
            self._look_again_for(missing)
            return
        is_of_process = session.life.judged_by != BEATS  # its process has lasted, and nothing else is asked of it
        heartbeats = 0 if is_of_process else settings.heartbeats
        last_sign = (session.life.looked_at if is_of_process else judge.last_counted_at) or 0.0
        is_proven = policy.is_proven(  # by a clock that nobody can set, and up to the last beat: silence proves nothing
            now=last_sign if heartbeats or is_of_process else time.monotonic(),
            ready_at=judge.ready_at,
            beats=judge.counted,
            progressed=judge.progressed or judge.phase != "working",
            reports_progress=judge.progress is not None,
            duration_seconds=settings.duration,
            heartbeats=heartbeats,
        )
        if not is_proven or self._is_unconfirmed():
            session.loop.set_timer("probation", PROBATION_LOOK_SECONDS, self._check_probation)
            return
        self._start("bless", self._blessed, str(session.launch.generation.number), session.launch.id)

    def _look_again_for(self, missing: list[str]) -> None:
        """A candidate has its trial, and half a minute at least, for showing the kind of life that good code shows."""
        session, life = self.session, self.session.life
        has_seconds = max(self.context.config.probation.duration, KIND_SECONDS)
        if time.monotonic() - life.began < has_seconds:
            session.loop.set_timer("probation", PROBATION_LOOK_SECONDS, self._check_probation)
            return
        number = session.launch.generation.number
        session.fail("less-life", tell_missing(missing, life.auto.expected, number, has_seconds))

    def _look_at_confirmation(self) -> None:
        """The time is over: what nobody has confirmed goes back, however well it looks."""
        session = self.session
        generation = session.ledger.generation(session.launch.generation.number)
        if generation is None or generation.confirm_by is None:
            return
        if generation.on_failure == "page":
            self._start("page", lambda _status: None, str(generation.number))
            return
        session.stop()
        session.ending = LaunchResult(
            models.FAILED, "not-confirmed", "it was not confirmed in time ('agentctl confirm')"
        )

    def _is_unconfirmed(self) -> bool:
        number = self.session.launch.generation.number
        row = self.session.ledger.generation(number)
        return row is not None and row.confirm_by is not None

    def _blessed(self, status: int) -> None:
        session = self.session
        if status == 0:
            blessed = session.ledger.generation(session.launch.generation.number)
            session.launch = session.launch.replace(generation=blessed)
            session.status.write(phase="steady")
            session.journal.info(f"agentctl: generation {session.launch.generation.number} is good now")
            return
        if status == 3:
            reason = session.ledger.meta(f"check {session.launch.id}") or "a required check failed"
            session.stop()
            session.ending = LaunchResult(models.FAILED, "check-failed", reason)
            return
        session.journal.warning(f"agentctl: blessing did not work (status {status}); trying again")
        session.loop.set_timer("probation", 10.0, self._check_probation)

    def _work_saved(self, status: int) -> None:
        self.save_tries_left -= 1
        if status != 0 and self.save_tries_left > 0:  # somebody else at work in the repository, most likely
            self.session.loop.set_timer("save-work", SAVE_AGAIN_SECONDS, self.after_launch)
            return
        if status != 0:
            self.session.journal.warning(
                "agentctl: the condemned work could not be committed to its rescue branch; it is whole in quarantine"
            )
        self.is_work_saved = True
        self.settle_incident()
        if self.session.life.ready_at is not None and self.session.launch.generation.status == "good":
            self._start("standby", lambda _status: None, str(self.session.launch.generation.number))

    def start_for_change(self, job: str, name: str) -> None:
        """Do for the agent what its user may not: snapshot the state, or prepare a promotion."""
        if job in self.running:
            if (job, name) not in self.waiting:
                self.waiting.append((job, name))
            return
        self._start(job, self._prepared if job == "promote" else lambda _status: None, name)

    def _prepared(self, status: int) -> None:
        """The request is on disk; the recovery process does it, and stops this agent for it."""
        if status != 0:
            return
        try:
            if os.environ.get("AGENTCTL_RUNTIME") == "direct":
                os.kill(os.getppid(), SIGUSR1)  # the supervisor
                return
            from ..runtime.systemd import start_rollback_without_waiting

            start_rollback_without_waiting(self.context.paths)
        except AgentctlError as error:
            self.session.journal.warning(f"agentctl: the recovery process could not be started: {error.message}")

    def _look_at_ballast(self) -> None:
        """Make the ballast where there is room for it (again): two system calls now and then."""
        if disk_space.ballast_of(self.context).is_wanted():
            self._start("ballast", self._ballast_made)
        else:
            self.session.loop.set_timer("ballast", BALLAST_LOOK_SECONDS, self._look_at_ballast)

    def _ballast_made(self, status: int) -> None:
        if status == 0:  # else it told why, and would tell it again and again
            self.session.loop.set_timer("ballast", BALLAST_LOOK_SECONDS, self._look_at_ballast)

    # -- how -----------------------------------------------------------------------------------------------

    def _start(self, job: str, done, *args: str) -> None:
        if job in self.running:
            return
        argv = [sys.executable, "-I", "-S", ENTRY_PATH, "job", self.context.paths.name, job, *args]
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        # Marked as the launch's own, so that whoever ends the launch ends its jobs too.
        env = {**os.environ, "AGENT_NAME": self.context.paths.name, "AGENT_LAUNCH_ID": self.session.launch.id}
        running = command.start(argv, env=env, own_session=True, stdin_fd=null, stdout_fd=1, stderr_fd=2)
        os.close(null)
        self.running[job] = running
        pidfd = os.pidfd_open(running.pid)
        self.session.loop.watch(pidfd, lambda: self._ended(job, pidfd, done))

    def _ended(self, job: str, pidfd: int, done) -> None:
        self.session.loop.forget(pidfd)
        os.close(pidfd)
        running = self.running.pop(job)
        done(os.waitstatus_to_exitcode(os.waitpid(running.pid, 0)[1]))
        following = next((one for one in self.waiting if one[0] == job), None)
        if following is not None:
            self.waiting.remove(following)
            self.start_for_change(*following)

    def end(self) -> None:
        """End what still runs: every job is safe to be killed and is done again later."""
        for running in self.running.values():
            running.kill()
        self.running.clear()
