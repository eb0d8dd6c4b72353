"""Decide what to do about one failure, one launch, one trial. Pure: no clock, no files, no systemd.

Silence means rollback; survival needs proof. Facts come in as plain rows of the ledger; `now` is an argument.
"""

from __future__ import annotations

from ..ledger.models import (
    ASKED,
    ENGINE_AWAY,
    FAILED,
    GOOD_STAYS,
    HALT,
    LOST,
    NO_MOVES,
    NO_ROOM,
    NOTHING,
    OFFLINE,
    PROMOTE,
    REBOOTED,
    REFUSED,
    RESTART,
    ROLLBACK,
    STOPPED,
    UNCOUNTED,
    UNDO,
    Attempt,
    Decision,
    Generation,
    Hold,
    Launch,
    PolicyInput,
    Request,
    RollbackLimits,
)

EXIT_CONFIG = 78  # EX_CONFIG: a plain restart cannot help
EXIT_RESTART = (0, 75)  # unasked: "restart me"
DAY_SECONDS = 86400.0
NO_GOOD_MOVES = (*NO_MOVES, UNDO, PROMOTE)  # rungs that put no good code in place


def decide(world: PolicyInput) -> Decision:
    """Choose the next rung from what is known."""
    if world.request is not None:
        return _decide_request(world, world.request)
    if world.is_halted:
        return Decision(action=HALT, reason="halted until a human acts", rung="halted")
    launch = world.launch
    given = answers(world)
    if given and world.paused_until <= world.now:
        return _decide_unanswered(world, given)
    if launch is None or launch.end in (STOPPED, REBOOTED):
        return Decision(action=NOTHING, reason="no failure is recorded")
    if launch.end == ASKED:  # no failure, so a pause does not keep the agent down
        return _decide_asked(world, launch)
    if world.paused_until > world.now:
        return Decision(action=NOTHING, reason="paused: watching, not acting")
    return _decide_failed(world, launch)


def answers(world: PolicyInput) -> list[Attempt]:
    """Attempts made after the last launch had ended: it is dealt with, and nothing was launched since."""
    launch = world.launch
    if launch is None or launch.ended_at is None:
        return []
    return [a for a in world.recent if _is_answer(a, launch.id, launch.ended_at)]


def _is_answer(attempt: Attempt, launch: str, ended_at: float) -> bool:
    """Tell by what is on record; the clock counts only for attempts from before that was noted."""
    return attempt.launch == launch if attempt.launch else attempt.at >= ended_at


def is_superseded(attempts: list[Attempt], launch: Launch | None) -> bool:
    """Tell whether an incident is over though nothing has beaten: what it put in place was replaced from outside."""
    last = next((a for a in reversed(attempts) if a.rung not in NO_MOVES), None)
    if last is None or launch is None or launch.ended_at is None:
        return False
    return launch.ended_at > last.at and launch.generation != last.target


def _decide_unanswered(world: PolicyInput, given: list[Attempt]) -> Decision:
    """What was decided was never launched: nothing is known against it, so it is launched, a few times."""
    if not world.failure:  # nobody has tried yet: this is a second trigger for the same failure
        return Decision(action=NOTHING, reason=f"it is answered: generation {given[-1].target} is to be launched")
    why = f"generation {given[-1].target} was to be launched, and no launch came of it"
    if len(given) <= world.limits.restarts:
        return Decision(action=RESTART, reason=why, rung="restart", target=given[-1].target)
    return _halt(f"{why}; tried {len(given)} times")


def _decide_request(world: PolicyInput, request: Request) -> Decision:
    if request.verb == OFFLINE:
        return _decide_offline(world, request)
    if request.verb == "promote":
        return _decide_promotion(world, request)
    if request.verb == "undo":
        return Decision(action=UNDO, reason=request.reason or "undo asked for", rung="by hand")
    current = world.generation(world.launch.generation) if world.launch else None
    named = request.target
    target = world.generation(int(named) if named.isdecimal() else None) if named else choose_manual_target(world)
    reason = request.reason or f"asked for by {request.author}"
    if target is None:
        return Decision(action=NOTHING, reason="no other good generation to go back to")
    by = _find_standing(world, target)
    if by:
        return Decision(
            action=NOTHING, reason=f"generation {target.number} was just put in place by {by}", answered_by=by
        )
    is_trial = current is not None and current.status == "candidate" and current.number != target.number
    return Decision(
        action=ROLLBACK,
        reason=reason,
        rung="by hand",
        target=target.number,
        condemn=current.number if current and is_trial else None,
    )


def _decide_offline(world: PolicyInput, request: Request) -> Decision:
    """The watchdog saw the agent offline; it was stopped for that, so its end is a failure whatever it says."""
    launch = world.launch
    if world.is_halted:
        return Decision(action=NOTHING, reason="halted until a human acts")
    if launch is None or launch.id != request.target:
        return Decision(action=NOTHING, reason="another launch runs since the watchdog saw the agent offline")
    if given := answers(world):
        return Decision(action=NOTHING, reason="its end is answered already", answered_by=given[-1].incident)
    if world.paused_until > world.now:
        return Decision(action=NOTHING, reason="paused: watching, not acting")
    return _decide_failed(world, launch.replace(end=FAILED, trigger=OFFLINE, reason=request.reason))


def _find_standing(world: PolicyInput, target: Generation) -> str:
    """Return the incident that has just put this very generation in place: a request made meanwhile wants no more."""
    last = next((a for a in reversed(answers(world)) if a.rung not in NO_MOVES), None)
    return last.incident if last and last.target == target.number and last.rung != "undo" else ""


def _decide_promotion(world: PolicyInput, request: Request) -> Decision:
    """A candidate that was made ready is put in place, unless the world has changed since."""
    target = world.generation(int(request.target))
    if world.is_halted or target is None or target.status != "candidate":
        return Decision(action=NOTHING, reason="the agent is halted, or it is no candidate any more")
    if world.is_by_agent and (hold := find_hold(world.now, world.limits, world.recent)):
        return Decision(action=NOTHING, reason=tell_hold(hold))
    return Decision(action=PROMOTE, reason=request.reason, rung="promote", target=target.number)


def choose_manual_target(world: PolicyInput) -> Generation | None:
    """What a rollback without a number means: last known good, or the one before where that is running."""
    current = world.launch.generation if world.launch else None
    return next((g for g in world.goods if g.number != current), None)


def _decide_asked(world: PolicyInput, launch: Launch) -> Decision:
    """The agent ended itself to be restarted: no failure, but a trial pays for it with a try."""
    running = world.generation(launch.generation)
    if running is None:
        return _next_rung(world, None, "asked to be restarted, and is no generation that is known")
    is_renewed = (
        world.has_changed and count_unproven(world.now, world.limits, world.generations) < world.limits.attempts
    )
    if running.status == "candidate" and running.tries_left <= 0 and not is_renewed:
        return _next_rung(world, running, "restarted itself until no try was left")
    if _asked_in_window(world, running) >= world.limits.restarts and _was_short(launch):
        return _next_rung(world, running, "kept restarting itself right after the start")
    return Decision(action=RESTART, reason="the agent asked to be restarted", rung="restart", target=running.number)


def _was_short(launch: Launch) -> bool:
    """A self-restart within half a minute of being ready is a loop in the making, not a change of code."""
    began = launch.ready_at or launch.started_at
    return (launch.ended_at or began) - began < 30.0


def _decide_failed(world: PolicyInput, launch: Launch) -> Decision:
    running = world.generation(launch.generation)
    why = launch.reason or launch.trigger or "it ended without a word"
    if running is None:
        return _next_rung(world, None, why)
    if launch.end == REFUSED and (good := _good_that_stays(world, running)):
        return Decision(action=ROLLBACK, reason=why, rung=GOOD_STAYS, target=good.number)
    if launch.trigger in ("cannot-launch", ENGINE_AWAY):
        return _decide_unlaunched(world, running, why)
    if launch.trigger == NO_ROOM:  # what is good has its image already, and need not wait for room
        return _next_rung(world, running, why).replace(condemn=None)
    if launch.end == REFUSED or launch.exit_status == EXIT_CONFIG or running.status == "condemned":
        return _next_rung(world, running, why)
    if launch.trigger in ("check-failed", "not-confirmed"):
        return _next_rung(world, running, why)
    if launch.trigger == "wedged" and running.status == "good":
        return _decide_wedged(world, running, why)
    if _is_open_rollback(world):
        return _next_rung(world, running, f"{why}, before it was seen well again")
    if running.status == "candidate":
        if running.tries_left > 0 and running.on_failure != "freeze":
            return Decision(action=RESTART, reason=why, rung="restart", target=running.number)
        return _next_rung(world, running, f"{why}; no tries left")
    if _restarts(world, running) < world.limits.restarts:
        return Decision(action=RESTART, reason=why, rung="restart", target=running.number)
    return _next_rung(world, running, f"{why}; restarted {world.limits.restarts} times already")


def _good_that_stays(world: PolicyInput, refused: Generation) -> Generation | None:
    """Find the good code that ran, or was put in place, before something was put over it that is not launched.

    That says nothing about the good code, and the other has changed nothing: no rung is gone down, no state goes back,
    nothing is used up. None if what is refused ran itself: then its failure is still to be answered.
    """
    if refused.status == "good":  # its tree is gone
        return None
    if any(_is_restart_of(attempt, refused) for attempt in world.attempts):  # it was tried, and could not begin
        return None
    if world.ran is None:
        return next(iter(world.goods), None)
    since = world.ran.ended_at or world.now
    moved = next((a.target for a in reversed(world.recent) if a.at >= since and a.rung not in NO_GOOD_MOVES), None)
    return next((g for number in (moved, world.ran.generation) for g in world.goods if g.number == number), None)


def _decide_unlaunched(world: PolicyInput, running: Generation, why: str) -> Decision:
    """We could not start it (disk full, no tmux): other code would not start either, so code is not moved."""
    if _restarts(world, running) < world.limits.restarts:
        return Decision(action=RESTART, reason=why, rung="restart", target=running.number)
    why = f"{why}; tried {world.limits.restarts} times"
    has_moved = any(a.rung not in NO_MOVES for a in world.attempts)
    if running.status == "condemned" and not has_moved and (good := _good_that_stays(world, running)):
        return Decision(
            action=ROLLBACK, reason=why, rung=GOOD_STAYS, target=good.number
        )  # what halts stands on good code
    return _halt(why)


def _decide_wedged(world: PolicyInput, running: Generation, why: str) -> Decision:
    """It works but gets nowhere, on code that was good: whoever it waits for is to blame, so code is not moved."""
    if _restarts(world, running) < world.limits.restarts:
        return Decision(action=RESTART, reason=why, rung="restart", target=running.number)
    return _halt(f"{why}; restarted {world.limits.restarts} times already, and its code is as it was when it was good")


def _is_open_rollback(world: PolicyInput) -> bool:
    """The last thing done in the open incident was to move code back, and it was not seen well since."""
    if not world.attempts or world.launch is None or world.launch.first_beat_at is not None:
        return False
    return world.attempts[-1].rung not in ("restart", GOOD_STAYS, "")


def _restarts(world: PolicyInput, generation: Generation) -> int:
    """Count within the window, and all of the open incident: it has not beaten since, however long a launch takes."""
    since = world.now - world.limits.window_seconds
    opened = sum(1 for a in world.attempts if _is_restart_of(a, generation))
    return max(opened, sum(1 for a in world.recent if _is_restart_of(a, generation) and a.at > since))


def _is_restart_of(attempt: Attempt, generation: Generation) -> bool:
    return attempt.rung == "restart" and attempt.target == generation.number


def _asked_in_window(world: PolicyInput, generation: Generation) -> int:
    since = world.now - world.limits.window_seconds
    return sum(1 for a in world.recent if a.rung == "asked" and a.target == generation.number and a.at > since)


def _next_rung(world: PolicyInput, failing: Generation | None, why: str) -> Decision:
    """Go down: the first rung that was not tried in this incident, within the budget, else halted."""
    if failing is not None and failing.status == "candidate" and failing.on_failure in ("freeze", "page"):
        return _stay(world, failing, why)
    moves = [a for a in world.recent if a.rung not in UNCOUNTED]
    is_left = failing is not None and failing.status != "good" and not failing.is_golden
    if not is_left and (spent := _tell_spent(world, moves)):
        return _halt(f"{why}; {spent}")
    tried = {(a.rung, a.target) for a in world.attempts}
    tried_targets = {target for rung, target in tried if rung not in ("restart", GOOD_STAYS)}
    since = world.now - world.limits.window_seconds
    if failing is not None and any(a.target == failing.number and a.at > since for a in moves):
        tried_targets.add(failing.number)  # it was put back already and beat, and failed again all the same
    for rung, target in _ladder(world):
        if rung == "golden without the task":
            if (rung, target.number) in tried:
                continue
        elif target.number in tried_targets:
            continue
        condemn = None
        if failing is not None and failing.number != target.number:
            condemn = failing.number if failing.status in ("candidate", "good") and not failing.is_golden else None
        return Decision(
            action=ROLLBACK,
            reason=why,
            rung=rung,
            target=target.number,
            condemn=condemn,
            without_task=rung == "golden without the task",
        )
    return _halt(f"{why}; nothing is left to go back to")


def _tell_spent(world: PolicyInput, moves: list[Attempt]) -> str:
    """Say that good code has been moved too often, '' if not: going back from a candidate is never too much.

    How many candidates there are is bounded where they are launched; what they used up is not the good code's fault.
    """
    limits = world.limits
    bounds = (limits.attempts, limits.window_seconds, "within the window"), (limits.per_day, DAY_SECONDS, "in a day")
    for limit, seconds, words in bounds:
        since = world.now - seconds
        of_candidates = sum(1 for g in world.generations if g.blessed_at is None and (g.condemned_at or 0) > since)
        count = sum(1 for a in moves if a.at > since) - of_candidates
        if count >= limit:
            return f"{count} rollbacks {words}, the limit is {limit}"
    return ""


def _stay(world: PolicyInput, failing: Generation, why: str) -> Decision:
    """Do what its promotion asked for instead of a rollback: freeze it, or page and try on with it."""
    if failing.on_failure == "page" and _restarts(world, failing) < world.limits.restarts:
        return Decision(action=RESTART, reason=why, rung="restart", target=failing.number)
    return _halt(f"{why}; not rolled back, as its promotion asked (--on-failure {failing.on_failure})")


def _ladder(world: PolicyInput) -> list[tuple[str, Generation]]:
    goods = world.goods
    ladder = [("last known good" if n == 0 else "older good", g) for n, g in enumerate(goods)]
    floor = world.golden or (min(goods, key=lambda g: g.number) if goods else None)
    if floor is not None:
        ladder += [("golden", floor), ("golden without the task", floor)]
    return ladder


def _halt(why: str) -> Decision:
    return Decision(action=HALT, reason=why, rung="halted")


# -- before a launch --------------------------------------------------------------------------------


def refuse_launch(generation: Generation | None, *, is_halted: bool, has_intent: bool, hold: Hold | None = None) -> str:
    """Return why this generation (None: any at all) must not be launched now, or ''. The guard of the runner."""
    if has_intent:
        return "a rollback is under way or was interrupted; it has to end first"
    if is_halted:
        return "halted: stopped until a human acts"
    if generation is None:
        return ""
    if generation.status == "condemned":
        return f"its tree was condemned as generation {generation.number}: {generation.reason}"
    is_spent = generation.status == "candidate" and generation.tries_left <= 0
    if is_spent and generation.on_failure != "page":
        return f"generation {generation.number} has no tries left"
    is_promoted = generation.change != ""  # was judged when it was asked for
    if generation.status == "candidate" and hold is not None and not is_promoted:
        return tell_hold(hold)
    return ""


def find_hold(now: float, limits: RollbackLimits, recent: list[Attempt]) -> Hold | None:
    """Tell whether so many rollbacks were made that candidates are held, and until when."""
    for limit, seconds in ((limits.attempts, limits.window_seconds), (limits.per_day, DAY_SECONDS)):
        made = sorted(a.at for a in recent if a.rung not in UNCOUNTED and a.at > now - seconds)
        if len(made) >= limit:
            return Hold(count=len(made), limit=limit, seconds=seconds, until=made[-limit] + seconds)
    return None


def tell_hold(hold: Hold) -> str:
    """Say why candidates are held."""
    minutes = round(hold.seconds / 60)
    span = f"{minutes // 60}h" if minutes % 60 == 0 and minutes else f"{minutes}m" if minutes else f"{hold.seconds:g}s"
    times = "1 rollback" if hold.count == 1 else f"{hold.count} rollbacks"
    return f"held: {times} within {span}, the limit is {hold.limit}, and the good code stays"


def tell_way_in(refused: Generation) -> str:
    """Name the one command that has a generation launched that is refused."""
    if refused.status == "condemned":
        return f"'agentctl bless {refused.number}' if it is good after all"
    return "'agentctl rollback undo --yes' puts it in place and launches it at once"


def count_unproven(now: float, limits: RollbackLimits, generations: list[Generation]) -> int:
    """Count the candidates that came within the window without a promotion, and are not blessed."""
    since = now - limits.window_seconds
    return sum(1 for g in generations if g.blessed_at is None and not g.change and g.created_at > since)


def choose_tries(
    fresh: int, ran: Launch | None, before: Generation | None, *, limit: int, unproven: int
) -> tuple[int, bool]:
    """Return the tries that a tree begins with which no generation is, and whether they are the rest of another's.

    Tries belong to the lineage: `before`, what `ran` last, hands on what it has left when it failed, whatever the tree
    looks like by then. Who was stopped, or asked to be restarted, has new ones, within `limit`.
    """
    if ran is None or before is None or before.status != "candidate":
        return fresh, False
    if ran.end in (STOPPED, ASKED) and unproven < limit:
        return fresh, False
    return min(fresh, before.tries_left), True


def is_put_in_anew(generation: Generation, ran: Launch | None, before: Generation | None) -> bool:
    """Tell whether a candidate without tries was put over good code by somebody: it never had a verdict, so a trial."""
    is_spent = generation.status == "candidate" and generation.tries_left <= 0
    is_over_good = before is not None and before.status == "good"
    return is_spent and is_over_good and ran is not None and ran.end in (STOPPED, ASKED)


def find_stumble(trial: list[Launch], number: int) -> Launch | None:
    """Return the failure that generation `number` goes on from while it is no good one, None if there was none.

    `trial` are the launches since the last good code ran, newest first.
    """
    for launch in trial:
        if launch.end in (FAILED, LOST) and launch.trigger not in ("cannot-launch", ENGINE_AWAY, NO_ROOM):
            return launch
        if launch.end in (STOPPED, ASKED) and launch.generation != number:
            return None  # somebody began something new
    return None


def is_proven(
    *,
    now: float,
    ready_at: float | None,
    beats: int,
    progressed: bool,
    reports_progress: bool,
    duration_seconds: float,
    heartbeats: int,
) -> bool:
    """Tell whether a trial has lasted and shown enough; the required checks come after this."""
    if ready_at is None or now - ready_at < duration_seconds or beats < heartbeats:
        return False
    return progressed or not reports_progress
