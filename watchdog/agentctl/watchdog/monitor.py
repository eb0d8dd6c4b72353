"""The watch: look at the agent, judge, note what changed, and where it is offline start the recovery process.

It sends systemd's keepalive from this very loop, so a watch that hangs is a watchdog that is restarted. It decides
nothing about code: that is the recovery process's.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

from ..core.errors import AgentctlError
from ..ledger.database import sqlite3
from ..ledger.models import PHASES
from ..runtime import runner_client, status_file
from . import actions, availability, observation, periods

ACT_AGAIN_SECONDS = 25 * 60.0  # longer than the recovery process may take
ACT_RETRY_SECONDS = 15.0  # where it could not be started
ALIVE_SECONDS = 30.0
TELL_SECONDS = 4.0
LONGEST_BETWEEN_SECONDS = 2.0
FORWARD_SECONDS = 0.2


def steady() -> float:
    """Return the clock that goes on while the machine sleeps and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Monitor:
    """Watches one agent of this machine, and keeps the times of all that are heard of."""

    def __init__(self, server, notifier) -> None:
        self.server, self.notifier = server, notifier
        self.context, self.store, self.lives = server.context, server.store, server.lives
        settings = self.context.config
        self.limits = availability.OfflineLimits(
            settings.heartbeat.timeout, settings.offline.after, settings.offline.grace
        )
        self.every_seconds = min(max(settings.offline.after / 20, 0.1), LONGEST_BETWEEN_SECONDS)
        self.pending: list[str] = []
        self.seen = observation.Seen()
        self._looked_at = steady()
        self._awake_at = time.monotonic()
        self._count: tuple | None = None
        self._silence: float | None = None
        self._acted: tuple[str, float] | None = None
        self._alive_at = self._written_at = 0.0
        self._written: tuple = ()
        self._forwarding: asyncio.Task | None = None
        self._forward: dict | None = None
        self._told = ""

    # -- the story ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch for ever."""
        await self.server.blocking(self._bridge_own_absence)
        while True:
            try:
                await self.look()
            except (AgentctlError, OSError) as error:
                self._say_once(f"cannot look at the agent: {error}")
            self.notifier.keepalive()
            await asyncio.sleep(self.every_seconds)

    async def look(self) -> None:
        """Look once: observe, judge, note, act."""
        now, awake = steady(), time.monotonic()
        passed, asleep = now - self._looked_at, (now - self._looked_at) - (awake - self._awake_at)
        self._looked_at, self._awake_at = now, awake
        if availability.is_gap(passed, asleep, self.every_seconds):
            self._bridge("the machine slept" if asleep > 1 else "the watchdog did not run", passed, now)
        self.seen = await self.server.blocking(observation.look, self.context, self.seen)
        own = self.lives.own
        self.hear_runner(own, now, time.time())
        judgement = await self._judge(own, now)
        self._note(own, judgement, now)
        self._judge_others(now)
        if judgement.state == availability.OFFLINE:
            await self._act(judgement, now)
        self._write_status(own, judgement)

    def facts(self) -> dict:
        """Return what the API tells of the watched agent besides its life."""
        judged = self.lives.own.judgement
        return {
            "paused_until_at": self.seen.paused_until if self.seen.paused_until > time.time() else None,
            "halted": self.seen.halted or None, "problem": self.seen.problem or None,
            "offline_in_seconds": judged.offline_in_seconds if judged else None,
            "generation": self.seen.launch.generation if self.seen.launch else None,
        }  # fmt: skip

    # -- hearing ------------------------------------------------------------------------------------------------

    def hear_runner(self, own, now: float, wall: float) -> None:
        """The runner's live status is its heartbeat to us: what it has counted since the last look is new.

        Its wall clock instants are compared with ours only when they are new; after that a clock may jump.
        """
        live, seen = self.seen.live, self.seen
        if seen.launch_id != own.launch_id:
            own.begin(seen.launch_id)
            self._count, self._silence = None, None
        if not seen.is_live_of_launch:
            return
        count = (live.get("heartbeats"), live.get("last_heartbeat_at"))
        if count != self._count and live.get("last_heartbeat_at"):
            is_first = self._count is None
            age = wall - live["last_heartbeat_at"]
            is_fresh = not is_first or 0 <= age < self.limits.timeout_seconds
            if is_fresh:
                self.lives.total += 0 if is_first else 1
                own.beat(now, live["last_heartbeat_at"], {
                    "heartbeats": live.get("heartbeats") or 0, "phase": live.get("agent_phase"),
                    "progress": live.get("progress")})  # fmt: skip
            self._count = count
        announced = live.get("silent_until_at")
        if announced != self._silence:
            left = (announced or wall) - wall
            own.silent_until_at = now + min(max(left, 0.0), self.context.config.heartbeat.longest_wait)
            self._silence = announced

    def forward(self, launch_id: str, facts: dict) -> None:
        """Pass a heartbeat that came to us on to the agent's runner; the newest counts, nobody waits."""
        self._forward = {"launch_id": launch_id, **{k: v for k, v in facts.items() if v is not None and v != ""}}
        if self._forwarding is None or self._forwarding.done():
            self._forwarding = asyncio.create_task(self._pass_on())

    async def _pass_on(self) -> None:
        while self._forward is not None:
            body, self._forward = self._forward, None
            path = self.context.paths.api_socket_path
            try:
                await self.server.blocking(runner_client.ask, path, "POST", "/health", body, 2.0)
            except (AgentctlError, ValueError):
                return  # its own launch is over, or it hangs: its unit's watchdog sees that
            await asyncio.sleep(FORWARD_SECONDS)

    # -- judging ------------------------------------------------------------------------------------------------

    async def _judge(self, own, now: float) -> availability.Judgement:
        if self.seen.problem:
            return availability.Judgement(availability.UNKNOWN, self.seen.problem)
        is_recovering, why_not = observation.why_not_expected(self.context, self.seen)
        facts = availability.PresenceFacts(
            watched_since=own.watched_since, beat_at=own.beat_at, is_recovering=is_recovering,
            silent_until_at=own.silent_until_at, why_not_expected=why_not)  # fmt: skip
        if why_not or is_recovering:
            own.watched_since = now  # what comes after it has its whole patience again
            return availability.decide(facts, self.limits, now)
        if (first := availability.decide(facts, self.limits, now)).state not in (
            availability.GRACE,
            availability.OFFLINE,
        ):
            return first
        facts.pressure = observation.pressure()
        facts.is_process_gone = observation.is_process_gone(self.seen)
        facts.is_unanswered = await self.server.blocking(observation.is_unanswered, self.context)
        if own.progress is not None and own.phase == PHASES[0]:
            patience = max(self.limits.after_seconds, self.limits.timeout_seconds)  # a slow agent may beat seldom
            facts.has_no_progress = now - own.progressed_at > patience
        return availability.decide(facts, self.limits, now)

    def _judge_others(self, now: float) -> None:
        """Agents of other machines: their silence is noted, and acting is for those who are near them."""
        timeout = self.limits.timeout_seconds
        for life in list(self.lives.by_name.values()):
            is_fine = life.period is not None and life.period.kind == periods.UP
            if life.is_own or (is_fine and now - life.beat_at <= timeout):
                continue
            facts = availability.PresenceFacts(
                watched_since=life.watched_since, beat_at=life.beat_at, is_unanswered=True
            )  # nobody else can be asked about it
            self._note(life, availability.decide(facts, self.limits, now), now)

    # -- noting -------------------------------------------------------------------------------------------------

    def _note(self, life, judgement: availability.Judgement, now: float) -> None:
        before, life.judgement = life.judgement, judgement
        kind = periods.KIND_OF[judgement.state]
        for period in periods.follow(life.period, kind, judgement.reason, time.time(), now):
            self._keep(life, period)
        if before is not None and before.state == judgement.state:
            return
        if life.is_own or (before is not None and judgement.state in (availability.OFFLINE, availability.WELL)):
            self.server.note(judgement.state, "; ".join(judgement.evidence) or judgement.reason, life.name)
        if life.is_own and judgement.state == availability.WELL and self._acted and self._acted[0] != life.launch_id:
            self.server.note("recovered", f"launch {life.launch_id} beats")
            self._acted = None

    def _keep(self, life, period: periods.Period) -> None:
        if period.ended_at is not None and period is life.period:
            self.store.end_period(life.name, period.ended_at, period.seconds)
            return
        self.store.add_period(life.name, period)
        if period.ended_at is None:
            life.period = period

    def _bridge(self, why: str, passed: float, now: float) -> None:
        """Nobody watched for a while: that time is unknown, and everybody has a whole patience again."""
        self.server.say(f"{why} for {passed:.1f}s: that time is unknown")
        for life in self.lives.by_name.values():
            for period in periods.bridge(life.period, why, passed, time.time(), now):
                self._keep(life, period)
            life.period, life.watched_since = None, now

    def _bridge_own_absence(self) -> None:
        """End what was open when the watchdog ended; until now nobody watched."""
        told = status_file.read(self.context.paths.watchdog_status_path).get("at") or 0.0
        now = time.time()
        try:
            alive_at = min(now, max(told, float(self.store.meta("alive_at") or 0)))
            for row in self.store.open_periods():
                ended_at = max(row["began_at"], alive_at)
                self.store.end_period(row["agent"], ended_at, ended_at - row["began_at"])
                gap = periods.Period(periods.UNKNOWN, "the watchdog was not running", ended_at)
                self.store.add_period(row["agent"], gap.close(max(now, ended_at), now - ended_at))
        except AgentctlError as error:
            self._say_once(error.message)

    # -- acting -------------------------------------------------------------------------------------------------

    async def _act(self, judgement: availability.Judgement, now: float) -> None:
        """Start the recovery process for an agent that is offline, once for a launch, unless somebody works on it."""
        launch = self.seen.launch
        if self.seen.paused_until > time.time():
            self._say_once(f"offline, but paused: {judgement.reason}")
            return
        if self._acted is not None and self._acted[0] == launch.id and now - self._acted[1] < ACT_AGAIN_SECONDS:
            return
        self._acted = (launch.id, now)
        evidence = "; ".join(judgement.evidence)
        try:
            await self.server.blocking(actions.ask_offline, self.context, launch, f"offline: {evidence}")
        except (AgentctlError, OSError, sqlite3.Error) as error:
            self._acted = (launch.id, now - ACT_AGAIN_SECONDS + ACT_RETRY_SECONDS)
            self._say_once(f"offline, but the recovery process cannot be started: {error}")
            return
        self.server.note("rollback", f"started for launch {launch.id}: {evidence}")

    def _write_status(self, own, judgement: availability.Judgement) -> None:
        """Leave for `agentctl status` what the watchdog thinks, and for its own next start that it was here."""
        now = time.time()
        what = (judgement.state, judgement.reason if judgement.state != availability.LATE else "", self.store.problem)
        if what == self._written and 0 <= now - self._written_at < TELL_SECONDS:
            return
        self._written, self._written_at = what, now
        document = {
            "pid": os.getpid(), "at": now, "state": judgement.state, "reason": judgement.reason,
            "since_at": own.period.began_at if own.period else None, "last_heartbeat_at": own.beat_wall,
            "offline_in_seconds": judgement.offline_in_seconds, "store_problem": self.store.problem,
            "set_aside": self.store.kept_as, "listen": self.context.config.watchdog.listen,
        }  # fmt: skip
        path = self.context.paths.watchdog_status_path
        try:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(f"{path}.new", path)
        except OSError as error:
            self._say_once(f"cannot write {path}: {error}")
        if steady() - self._alive_at > ALIVE_SECONDS:
            self._alive_at = steady()
            self.store.set_meta("alive_at", str(now))

    def _say_once(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.server.say(text)
