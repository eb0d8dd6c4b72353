"""The story before every launch: guard, capture, snapshot, one try spent on disk. Starts nothing.

A tree that is no known generation becomes a candidate, with what is left of the tries of the one that failed before it;
a condemned one, one without tries, one that is held, or an unfinished rollback is refused, and the refusal goes to the
recovery process like any failure.
"""

from __future__ import annotations

import os
import time

from ..config.context import boot_id, new_id
from ..core import fast_json
from ..core.errors import AgentctlError, LaunchRefused
from ..generations import stale_locks
from ..generations.agent_context import AgentContext
from ..generations.lifecycle import identify, known_generation
from ..ledger import clock, models, writers
from ..ledger.database import Ledger
from ..ledger.incidents import counted_attempts, settle_last_launch
from ..ledger.models import CurrentLaunch, Generation, Launch
from ..recovery import policy
from ..state import agent_state

SWITCH_IS_FRESH_SECONDS = 60.0


def begin(context: AgentContext, ledger: Ledger, say=print) -> CurrentLaunch:
    """Do all that has to be on disk before the agent starts; raise LaunchRefused when it must not."""
    settle_last_launch(ledger)
    _guard_intent(context, ledger)
    _guard_tree(context, ledger)
    _repair_after_reboot(context, ledger)
    _take_what_was_given(context)
    switched = _take_switch_note(context, ledger)
    if switched is not None:
        generation, snapshot = switched
    else:
        _clear_stale_locks(context, ledger, say)
        ran = ledger.last_run()
        generation = identify(context, ledger, lambda before: _choose_tries(context, ledger, ran, before))
        generation = _renew(context, ledger, generation, ran)
        snapshot = ""
    _guard_generation(context, ledger, generation)
    if snapshot:
        return _spend(ledger, generation, snapshot)
    snapshot = agent_state.keep_before_launch(context, ledger, say)
    return _spend(ledger, generation, snapshot or generation.snapshot, is_of_now=bool(snapshot))


def _repair_after_reboot(context: AgentContext, ledger: Ledger) -> None:
    """A machine that went down took unsaved state along: mend what the agent resumes from."""
    last = ledger.last_run()
    if last is not None and last.boot_id != boot_id():
        from ..generations.repair_staging import repair_after_boot

        repair_after_boot(context.staging)
    if last is not None and last.end == models.REBOOTED:
        agent_state.repair_history(context, context.launch_dir(last.id))
        agent_state.repair_task(context, "the machine went down while the agent ran")


def _clear_stale_locks(context: AgentContext, ledger: Ledger, say) -> None:
    """What a git left that was killed with the agent would make every commit fail from now on."""
    moved = stale_locks.clear(context.repository, say)
    if moved:
        ledger.event("locks", f"moved aside: {', '.join(moved)}"[:2000])


def _take_what_was_given(context: AgentContext) -> None:
    """The task that came with a restart, and what the watchdog has of the conversation and the file has not.

    Neither is worth a launch: what goes wrong here is tried again at the next one.
    """
    try:
        agent_state.take_given_task(context)
        if os.path.exists(context.paths.store_path):
            agent_state.complete_history(context, f"{context.paths.incidents_dir}/history-{new_id()}")
    except (AgentctlError, OSError):
        return


def _guard_intent(context: AgentContext, ledger: Ledger) -> None:
    context.slots.check_mounted()
    has_intent = ledger.open_attempt() is not None or ledger.next_request() is not None or context.slots.is_moving
    halted = ledger.meta("halted")
    refusal = policy.refuse_launch(None, is_halted=bool(halted), has_intent=has_intent)
    if not refusal:
        return
    if halted:
        raise LaunchRefused(
            f"{refusal}: {halted}",
            "'agentctl why' tells the story; 'agentctl resume', 'agentctl rollback N' or 'agentctl bless N' clears it",
        )
    raise LaunchRefused(refusal, "it continues by itself; 'agentctl status' shows it")


def _guard_tree(context: AgentContext, ledger: Ledger) -> None:
    """A tree that is gone is a failure on record; where the slots are gone too, it is a file system not mounted."""
    if os.path.isdir(context.code_dir) or not os.path.isdir(context.slots.folder):
        return
    reason = f"the agent's tree {context.code_dir} is gone"
    good = ledger.last_known_good()
    if good is not None:
        _record_refusal(ledger, good, reason)
    raise LaunchRefused(reason, "the recovery process puts the last good one there")


def _record_refusal(ledger: Ledger, generation: Generation, refusal: str, trigger: str = "refused") -> None:
    writers.add_no_launch(
        ledger,
        new_id(),
        generation.number,
        at=time.time(),
        boot_id=boot_id(),
        end=models.REFUSED,
        trigger=trigger,
        reason=refusal,
    )


def is_overdue(generation: Generation, now: float) -> bool:
    """Tell whether its confirmation did not come in time; who asked to be paged only wants to know."""
    confirm_by = generation.confirm_by
    return confirm_by is not None and now >= confirm_by and generation.on_failure != "page"


def _choose_tries(
    context: AgentContext, ledger: Ledger, ran: Launch | None, before: Generation | None
) -> tuple[int, bool]:
    limits, fresh = models.RollbackLimits.of_settings(context.config.rollback), context.config.probation.tries
    unproven = policy.count_unproven(time.time(), limits, ledger.generations())
    return policy.choose_tries(fresh, ran, before, limit=limits.attempts, unproven=unproven)


def _renew(context: AgentContext, ledger: Ledger, generation: Generation, ran: Launch | None) -> Generation:
    """Give a candidate that handed its tries on new ones, where somebody has put it in again."""
    before, last = ledger.generation(ran.generation) if ran else None, ledger.last_launch()
    is_tried = last is not None and last.generation == generation.number  # it could not begin, or was refused
    if is_tried or not policy.is_put_in_anew(generation, ran, before):
        return generation
    tries, _ = _choose_tries(context, ledger, ran, before)
    writers.set_tries(ledger, generation.number, tries)
    return known_generation(ledger, generation.number)


def _find_hold(context: AgentContext, ledger: Ledger) -> models.Hold | None:
    """Tell whether candidates are held, by what was rolled back since a person lifted it last."""
    now, limits = time.time(), models.RollbackLimits.of_settings(context.config.rollback)
    return policy.find_hold(now, limits, counted_attempts(ledger, now, policy.DAY_SECONDS))


def _guard_generation(context: AgentContext, ledger: Ledger, generation: Generation) -> None:
    hold = _find_hold(context, ledger) if generation.status == "candidate" else None
    refusal = policy.refuse_launch(generation, is_halted=False, has_intent=False, hold=hold)
    trigger = "refused"
    if not refusal and is_overdue(generation, time.time()):
        refusal, trigger = "it was not confirmed in time ('agentctl confirm')", "not-confirmed"
    if not refusal:
        return
    last = ledger.last_launch()
    if last is not None and last.generation == generation.number and last.end == models.FAILED:
        refusal += f"; before that: {last.reason}"  # a failure that nobody answered: the brief has to tell of it
    _record_refusal(ledger, generation, refusal, trigger)
    raise LaunchRefused(
        f"not launching generation {generation.number}: {refusal}",
        policy.tell_way_in(generation),
    )


def _take_switch_note(context: AgentContext, ledger: Ledger) -> tuple[Generation, str] | None:
    """Trust what the recovery process has just put in place: scanning it again would cost as much as its size."""
    raw = ledger.meta("switched")
    if not raw:
        return None
    note = fast_json.loads(raw)
    if not isinstance(note, dict):
        return None
    is_fresh = note["boot_id"] == boot_id() and 0 <= time.time() - note["at"] < SWITCH_IS_FRESH_SECONDS
    if not is_fresh or note["inode"] != os.stat(context.code_dir).st_ino:
        return None
    generation = ledger.generation(note["generation"])
    return (generation, note["snapshot"]) if generation else None


def _spend(ledger: Ledger, generation: Generation, snapshot: str, *, is_of_now: bool = False) -> CurrentLaunch:
    """Spend one try and record the launch, in one transaction, before anything starts.

    `is_of_now` says that the snapshot was taken just now; after a rollback it is the one that was restored.
    """
    launch_id, now = new_id(), time.time()
    incident = ledger.open_incident()
    with ledger.transaction():
        if known_generation(ledger, generation.number).is_pruned:
            raise LaunchRefused(f"generation {generation.number} was pruned at this moment", "it is captured anew")
        if generation.status == "candidate":
            writers.set_tries(ledger, generation.number, generation.tries_left - 1)
        if is_of_now:
            _keep_snapshot(ledger, generation, snapshot)
        ledger.set_meta("switched", None)
        clock.note(ledger)
        writers.begin_launch(
            ledger,
            launch_id,
            generation.number,
            at=now,
            boot_id=boot_id(),
            snapshot=snapshot,
            incident=incident.id if incident else "",
        )
    return CurrentLaunch(
        id=launch_id,
        generation=known_generation(ledger, generation.number),
        snapshot=snapshot,
        incident=incident.id if incident else "",
        started_at=now,
    )


def _keep_snapshot(ledger: Ledger, generation: Generation, snapshot: str) -> None:
    """A new generation owns the state it started from; so does the good one that left that state behind.

    It left it if it ended cleanly, or if it was seen well and other code comes after it: then a crash says nothing
    about its state. One that crashes on unchanged code keeps the older state, for its own may be why.
    """
    if not generation.snapshot:
        writers.set_snapshot(ledger, generation.number, snapshot)
    last = ledger.last_run()
    if last is None:
        return
    is_other = last.generation != generation.number and last.first_beat_at is not None
    before = ledger.generation(last.generation)
    if (is_other or last.end in (models.STOPPED, models.ASKED)) and before and before.status == "good":
        writers.set_snapshot(ledger, before.number, snapshot)
