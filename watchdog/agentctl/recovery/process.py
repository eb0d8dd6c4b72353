"""The recovery process: the one thing that moves code or state back. Observe, decide, act, record.

It is level-triggered: it re-reads the ledger until nothing is wanted, so it may be started at any time, by anyone,
twice, or in the middle of its own unfinished work. It never starts the agent; its exit status tells who does.
"""

from __future__ import annotations

import _sqlite3 as sqlite3  # the package around it imports what is not used here
import os
import time

from ..config.context import Lock, boot_id, find_paths
from ..core import fast_json
from ..core.errors import (
    EXIT_FAILED,
    EXIT_HALTED,
    EXIT_NO_STORAGE,
    EXIT_RELAUNCH,
    EXIT_STAY_DOWN,
    AgentctlError,
    CannotGoOn,
    TooNew,
    in_words,
    is_no_storage,
)
from ..generations import rebuild_ledger
from ..generations.agent_context import AgentContext
from ..generations.slots import ask_ignored
from ..host import disk_space
from ..host.journald import Journal, open_journal
from ..ledger import incidents, models, writers
from ..ledger.database import Ledger
from ..ledger.models import Launch, Request
from . import evidence, policy
from .execution import Execution
from .executor import carry_out, why_no_undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

LOCK_WAIT_SECONDS = 120.0
STOP_WAIT_SECONDS = 60.0
JUST_STOPPED_SECONDS = 30.0


def main(name: str) -> int:
    """Run the routine for one agent; return its unit's exit status."""
    journal = open_journal(f"{name}-rollback", find_paths(name))
    try:
        context = AgentContext.open(name, lenient=True)
        paths = context.paths
        # The runner holds the second lock while it lives: having it proves that nothing is launched meanwhile.
        with (
            Lock(paths.rollback_lock_path, "a rollback").take(wait_seconds=LOCK_WAIT_SECONDS),
            Lock(paths.agent_lock_path, f"agent '{name}'").take(wait_seconds=STOP_WAIT_SECONDS),
        ):
            disk_space.look_ahead(context, journal.warning)
            return disk_space.with_room(context, lambda: _until_nothing_is_wanted(context, journal), journal.warning)
    except (AgentctlError, OSError, sqlite3.Error) as error:
        journal.error(in_words(error))
        # On a full disk the rescue is to tell and to wait: other code would not start either.
        return EXIT_NO_STORAGE if is_no_storage(error) else getattr(error, "exit_code", EXIT_FAILED)


def _until_nothing_is_wanted(context: AgentContext, journal: Journal) -> int:
    context.slots.check_mounted()
    try:
        ledger = rebuild_ledger.open_or_rebuild(context, journal.warning)
    except TooNew as error:
        _leave_alone(context, error, journal)
        return EXIT_RELAUNCH
    if context.slots.is_moving and ledger.open_attempt() is None:  # of a rescue, or the ledger that knew is lost
        _finish_move(context, journal)
    while True:
        attempt = Execution.unfinished(context, ledger)
        if attempt is not None:
            journal.warning(f"agentctl: going on with the interrupted rollback of incident {attempt.incident}")
            try:
                carry_on(attempt, journal)
            except CannotGoOn as error:
                return _halt_where_it_is(attempt, error, journal)
            if ledger.next_request() is None:
                return EXIT_RELAUNCH  # the failure that led here is answered; deciding again would go down a rung
            continue
        last = ledger.last_launch()
        if last is not None and last.end == models.RUNNING:
            _close_cut_off(ledger, last)
        if os.path.exists(context.paths.launching_path):
            _record_unbegun(ledger)
            os.unlink(context.paths.launching_path)
            last = ledger.last_launch()
        if last is not None and disk_space.has_hindered(context, trigger=last.trigger, reason=last.reason):
            raise disk_space.no_storage(context, AgentctlError(last.reason))  # another launch would end the same way
        world = observe(context, ledger)
        status = act(context, ledger, world, policy.decide(world), journal)
        if ledger.next_request() is None:
            return status


def _leave_alone(context: AgentContext, newer: TooNew, journal: Journal) -> None:
    """Beside records that are too new for us: end a switch that is half done, and tell of it."""
    from ..host.alert_command import send_once

    if context.slots.is_moving:
        _finish_move(context, journal)
    journal.error(f"agentctl: no rollback is possible, the agent is started again as it is: {in_words(newer)}")
    send_once(context, "told-newer", f"failing, and started again without a rollback: {newer.message}; {newer.hint}")


def _finish_move(context: AgentContext, journal: Journal) -> None:
    journal.warning(f"agentctl: finishing a switch that was cut off: {context.slots.finish_move()}")


def carry_on(attempt: Execution, journal: Journal) -> None:
    """Go on with what was cut off: a promotion has other steps than a rollback."""
    if attempt.rung == models.PROMOTE:
        promotions().carry_out(attempt, journal)
    else:
        carry_out(attempt, journal)


def promotions() -> ModuleType:
    """Return the module of promotions: few recoveries have to do with one."""
    from . import promotion

    return promotion


def _close_cut_off(ledger: Ledger, last: Launch) -> None:
    """The agent's lock is ours, so the launch that looks alive is not."""
    if last.boot_id == boot_id():
        incidents.close_lost(ledger, last)
    else:
        incidents.settle_last_launch(ledger)


def _record_unbegun(ledger: Ledger) -> None:
    """A runner that was killed before its launch was on record is a failure, though the last one on record is none."""
    last = ledger.last_launch()
    good = ledger.last_known_good()
    wanted = last.generation if last else good.number if good else None
    if wanted is not None and (last is None or last.end in (models.STOPPED, models.REBOOTED)):
        incidents.record_unlaunched(ledger, wanted, "the runner was killed before it had begun")


def observe(context: AgentContext, ledger: Ledger) -> models.PolicyInput:
    """Read everything a decision needs."""
    now = time.time()
    opened = ledger.open_incident()
    attempts = ledger.attempts(opened.id) if opened else []
    launch, request = ledger.last_launch(), ledger.next_request()
    if policy.is_superseded(attempts, launch):
        opened, attempts = None, []
    return models.PolicyInput(
        now=now,
        limits=models.RollbackLimits.of_settings(context.config.rollback),
        launch=launch,
        generations=ledger.generations(),
        incident=opened,
        attempts=attempts,
        recent=incidents.counted_attempts(ledger, now, policy.DAY_SECONDS),
        request=request,
        is_halted=bool(ledger.meta("halted")),
        paused_until=float(ledger.meta("paused_until") or 0),
        failure=_new_failure(ledger),
        ran=ledger.last_run(),
        has_changed=_has_changed(context, ledger, launch),
        is_by_agent=request is not None and _is_by_agent(ledger, request),
    )


def _has_changed(context: AgentContext, ledger: Ledger, launch: Launch | None) -> bool:
    """Look whether a candidate without tries that restarted itself has changed its code: nobody else is asked."""
    running = ledger.generation(launch.generation) if launch else None
    if launch is None or launch.end != models.ASKED or running is None:
        return False
    if running.status != "candidate" or running.tries_left > 0:
        return False
    from ..generations import lifecycle

    return lifecycle.has_changed(context, ledger, running)


def _is_by_agent(ledger: Ledger, request: Request) -> bool:
    """Tell whether the agent itself asked for a promotion."""
    target = ledger.generation(int(request.target)) if request.verb == models.PROMOTE else None
    change = ledger.change(target.change) if target is not None else None
    return bool(change and change.promotion.get("by_agent"))


def _new_failure(ledger: Ledger) -> str:
    """Name the run of the agent whose failure called us and is not answered yet, '' if there is none.

    systemd tells every run of ours about the agent's last one, also a run that a person or the watchdog started.
    """
    if os.environ.get("MONITOR_SERVICE_RESULT", "success") == "success":
        return ""
    failed = os.environ.get("MONITOR_INVOCATION_ID", "unknown")
    return "" if failed == ledger.meta("answered") else failed


def act(
    context: AgentContext, ledger: Ledger, world: models.PolicyInput, decision: models.Decision, journal: Journal
) -> int:
    """Carry a decision out; return the exit status that follows from it."""
    if decision.action == models.UNDO and (why_not := why_no_undo(context, ledger)):
        decision = models.Decision(action=models.NOTHING, reason=why_not)
    if decision.action == models.NOTHING:
        if world.request is None and world.paused_until <= world.now and disk_space.is_called_for(context):
            raise disk_space.no_storage(context, AgentctlError("there was none to record what failed"))
        finish_restart(context, ledger, world, journal)
        return _nothing(ledger, world, decision, journal)
    if decision.action == models.HALT:
        if not world.is_halted and world.launch is not None:
            keep_scene(context, ledger, world, decision)
        return _halt(ledger, world, decision, journal)
    if decision.action == models.PROMOTE and world.request is not None:
        promotion = promotions()
        row = promotion.intend(ledger, world.request, decision.target, decision.reason)
        journal.info(f"agentctl: putting generation {decision.target} in place: {decision.reason}")
        promotion.carry_out(Execution(context, ledger, row), journal)
        return EXIT_RELAUNCH
    asked_by = world.launch if world.launch and world.launch.end == models.ASKED else None
    if asked_by is not None and decision.action == models.RESTART and not policy.answers(world):
        # A self-restart is no incident, but it is counted: a loop of them has to be seen.
        writers.note_asked(ledger, asked_by.id, at=time.time(), target=decision.target, reason=decision.reason)
        return EXIT_RELAUNCH
    is_asked_later = decision.action == models.RESTART or context.slots.is_inside
    asked = None if is_asked_later else ask_ignored(context.staging, context.code_dir)
    attempt = Execution.decide(context, ledger, world, decision)
    attempt.ignored_inquiry = asked
    journal.info(f"agentctl: incident {attempt.incident}: {describe(world, decision)}")
    try:
        carry_out(attempt, journal)
    except CannotGoOn as error:
        return _halt_where_it_is(attempt, error, journal)
    if decision.action == models.RESTART:
        page_if_asked(context, world)
    return EXIT_RELAUNCH


def finish_restart(context: AgentContext, ledger: Ledger, world: models.PolicyInput, journal: Journal) -> None:
    """Do what is left of a restart that was decided and cut off: it has no intent that would be gone on with."""
    given = policy.answers(world)
    if given and given[-1].rung == models.RESTART:
        carry_out(Execution(context, ledger, given[-1]), journal)


def page_if_asked(context: AgentContext, world: models.PolicyInput) -> None:
    """A promotion with --on-failure page wants a human to know of its first failure."""
    running = world.generation(world.launch.generation) if world.launch else None
    if running is None or running.on_failure != "page" or running.status != "candidate" or world.attempts:
        return
    from ..host.alert_command import send

    send(context, f"failing on probation (generation {running.number}) and not rolled back, as asked")


def keep_scene(context: AgentContext, ledger: Ledger, world: models.PolicyInput, decision: models.Decision) -> None:
    """Keep the evidence of what ends halted: nothing else will look at it."""
    trigger = world.launch.trigger if world.launch else "unknown"
    incident_id = incidents.open_for(ledger, world.launch, trigger=trigger, reason=decision.reason)
    try:
        facts = evidence.collect(context, ledger, incident_id, len(world.attempts) + 1)[0]
        writers.set_evidence(ledger, incident_id, fast_json.dumps(facts))
    except (AgentctlError, OSError, ValueError):
        return  # halted without its evidence is better than not halted


def describe(world: models.PolicyInput, decision: models.Decision) -> str:
    """Say a decision in one line for the journal."""
    current = world.launch.generation if world.launch else "?"
    if decision.action == models.RESTART:
        return f"restarting generation {decision.target}: {decision.reason}"
    if decision.action == models.UNDO:
        return f"undoing the last rollback: {decision.reason}"
    return f"rolling back {current} -> {decision.target} ({decision.rung}): {decision.reason}"


def _nothing(ledger: Ledger, world: models.PolicyInput, decision: models.Decision, journal: Journal) -> int:
    journal.info(f"agentctl: nothing to do: {decision.reason}")
    if world.request is not None:
        if world.request.verb == "promote":
            promotions().put_back(ledger, world.request, decision.reason)
        writers.answer_request(ledger, world.request.number, decision.answered_by or "nothing-to-do")
        return EXIT_RELAUNCH
    if world.paused_until > world.now:
        return EXIT_STAY_DOWN
    if os.environ.get("MONITOR_EXIT_STATUS") == str(EXIT_NO_STORAGE):
        return EXIT_RELAUNCH  # there was no room to record that a launch failed for want of it; now there is
    if world.launch is None and ledger.meta("rebuilt_at"):
        # What failed was lost with the old ledger. Once: were it to fail without a record again, it stays down.
        ledger.set_meta("rebuilt_at", None)
        return EXIT_RELAUNCH
    # systemd started us for a failure that is none (a stop that took too long, a dependency): what is down stays down.
    # Started by hand, the unit has stopped a healthy agent on its way in, or its relaunch, and brings it back.
    is_wanted = not world.failure and (_is_just_stopped(world) or policy.answers(world))
    return EXIT_RELAUNCH if is_wanted or not os.environ.get("MONITOR_UNIT") else EXIT_STAY_DOWN


def _is_just_stopped(world: models.PolicyInput) -> bool:
    launch = world.launch
    if launch is None or launch.end != models.STOPPED or launch.ended_at is None:
        return False
    return 0 <= world.now - launch.ended_at < JUST_STOPPED_SECONDS


def _halt(ledger: Ledger, world: models.PolicyInput, decision: models.Decision, journal: Journal) -> int:
    if not world.is_halted:
        trigger = world.launch.trigger if world.launch else "unknown"
        with ledger.transaction():
            incident_id = incidents.open_for(ledger, world.launch, trigger=trigger, reason=decision.reason)
            ledger.set_meta("halted", f"{decision.reason} (incident {incident_id})")
            writers.end_incident(ledger, incident_id, "halted", at=time.time(), decision="halted")
            ledger.event("halted", decision.reason)
            if world.request is not None:  # the watchdog's: what it asked for is answered by this
                writers.answer_request(ledger, world.request.number, incident_id)
    halted = ledger.meta("halted")
    journal.error(f"agentctl: halted: {halted}. 'agentctl why' tells the story.")
    if os.environ.get("MONITOR_UNIT") and ledger.meta("halted_told") == halted:
        return EXIT_STAY_DOWN  # a start by hand that was refused; the alert has gone out already
    ledger.set_meta("halted_told", halted)
    return EXIT_HALTED


def _halt_where_it_is(attempt: Execution, error: CannotGoOn, journal: Journal) -> int:
    """End an attempt before anything was moved: the agent stays down, and nothing of it is touched.

    What a human asked for is only not done: what was there before is started again.
    """
    ledger, is_asked = attempt.ledger, attempt.rung in ("undo", "by hand")
    with ledger.transaction():
        writers.close_attempt(ledger, attempt.incident, attempt.number, rung="halted")
        writers.set_reason(ledger, attempt.incident, f"{attempt.reason}; then: {error.message}")
    if is_asked:
        incidents.end(ledger, attempt.incident, "nothing-to-do", time.time())
        journal.error(f"agentctl: not done, as nothing could be moved: {in_words(error)}")
        return EXIT_RELAUNCH
    reason = error.message + (f" ({error.hint})" if error.hint else "")
    return _halt(
        ledger,
        observe(attempt.context, ledger),
        models.Decision(action=models.HALT, reason=reason, rung="halted"),
        journal,
    )
