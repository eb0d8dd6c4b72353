"""Say what would follow a failure now, by asking the policy itself. Pure: it guesses nothing."""

from __future__ import annotations

from ..decisions import policy
from ..wording import duration
from .status_facts import Facts

LONGEST_CHAIN = 200
BETWEEN_SECONDS = 0.001


def world_after_failure(facts: Facts) -> policy.World:
    """Build what the one-shot would see if the agent failed at this moment."""
    settings = facts.config.rollback
    limits = policy.Limits(settings.restarts, settings.window, settings.attempts, settings.per_day)
    failed = {"end": policy.FAILED, "trigger": "crash", "reason": "a failure", "exit_status": 1}
    return policy.World(
        now=facts.now,
        limits=limits,
        launch={**facts.launch, **failed, "ended_at": facts.now},
        generations=[dict(generation) for generation in facts.generations],
        incident=None,
        attempts=list(facts.attempts),
        recent=list(facts.recent),
        paused_until=facts.paused_until,
    )


def foresee(world: policy.World) -> list[policy.Decision]:
    """Return what one failure after the other would lead to, up to the first that is no restart."""
    chain: list[policy.Decision] = []
    while len(chain) < LONGEST_CHAIN:
        decision = policy.decide(world)
        chain.append(decision)
        if decision.action != policy.RESTART:
            break
        attempt = {"at": world.now, "rung": decision.rung, "target": decision.target}
        world.attempts.append(attempt)
        world.recent.append(attempt)
        world.now += BETWEEN_SECONDS  # it is launched, and fails once more
        world.launch = {**world.launch, "ended_at": world.now}
        running = world.generation(decision.target)
        if running["status"] == "candidate":
            running["tries_left"] -= 1
    return chain


def describe(facts: Facts) -> str:
    """Say in one sentence what a failure now would lead to; '' where nothing can be said."""
    if facts.config is None or facts.launch is None:
        return ""
    chain = foresee(world_after_failure(facts))
    restarts, last = len(chain) - 1, chain[-1]
    end = _end(last, facts.launch["generation"])
    if not restarts:
        return f"a failure now: {end}"
    return f"a failure now: restart ({_left(facts, restarts)}), then {end}"


def _left(facts: Facts, restarts: int) -> str:
    running = next((g for g in facts.generations if g["number"] == facts.launch["generation"]), None)
    if running is not None and running["status"] == "candidate":
        return "1 try left" if restarts == 1 else f"{restarts} tries left"
    settings = facts.config.rollback
    return f"{restarts} of {settings.restarts} left in {duration(settings.window)}"


def _end(decision: policy.Decision, running: int) -> str:
    if decision.action == policy.NOTHING:
        return f"nothing is done ({decision.reason})"
    if decision.action != policy.ROLLBACK:
        why = decision.reason.partition("; ")[2]
        return "halted until a human acts" + (f" ({why})" if why else "")
    if decision.without_task:
        return f"generation {decision.target} without the task"
    if decision.target == running:
        return f"generation {running} put back whole, with its state"
    return f"generation {decision.target} ({decision.rung})"
