"""Render a status for people: is it well, why not, and what happens next; at most 80 columns. Pure."""

from __future__ import annotations

from ..core.text import ago, duration, local, wrap
from ..ledger import models
from ..recovery import policy
from .status_facts import StatusFacts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LABEL_WIDTH = 12


def render(document: dict, now: float) -> str:
    """Return the text of a status."""
    lines = wrap(_headline(document), rest="  ")
    for problem in document["problems"]:
        lines += wrap(problem["message"], _label("problem"))
        if problem["hint"]:
            lines += wrap(problem["hint"], _label("hint"))
    lines += _row("running" if document["agent"]["alive"] else "in place", _generation(document))
    lines += _row("container", _container(document["agent"]))
    lines += _row("changed", _changed(document))
    lines += _row("since", _since(document, now))
    lines += _row("heartbeat", _heartbeat(document, now))
    lines += _row("watchdog", _watchdog(document, now))
    lines += _row("good", _good(document))
    for number, sentence in enumerate(document["next"]):
        lines += _row("" if number else "next", sentence)
    lines += _row("not run", _held(document.get("held"), now))
    lines += _row("incident", _incident(document["last_incident"], now))
    over = "; ".join(f"{kind}: {told}" for kind, told in document["over_budget"].items())
    lines += _row("budget", over and f"{over} (agentctl prune)")
    return "\n".join(lines)


def _label(text: str) -> str:
    return f"  {text}".ljust(LABEL_WIDTH)


def _row(label: str, text: str) -> list[str]:
    return wrap(text, _label(label)) if text else []


def _headline(document: dict) -> str:
    if document["well"]:
        return f"{document['name']} is well: {document['phase']}"
    phase, because = document["phase"], document["because"]
    told = because if because.startswith(phase) else f"{phase}: {because}"
    return f"{document['name']} is NOT well: {told}"


def _generation(document: dict) -> str:
    if document["generation"] is None:
        return ""
    told = f"generation {document['generation']}"
    if document["generation_status"]:
        told += f" ({document['generation_status']})"
    if document["commit"]:
        told += f", commit {document['commit'][:12]}"
    return told + (f" on {document['branch']}" if document["branch"] else "")


def _changed(document: dict[str, Any]) -> str:
    """Name the commit that is in place and is not the one that was launched: it may run already, by exec."""
    head, running = document.get("head"), document.get("commit")
    if document["started_at"] is None or not head or not running or head == running:
        return ""
    return f"the code is at commit {head[:12]} by now: no generation yet, its trial begins with 'agentctl restart'"


def _held(held: dict[str, Any] | None, now: float) -> str:
    if held is None:
        return ""
    number, reason, until, hint = (held.get(key) for key in ("generation", "reason", "until", "hint"))
    ends = f" until {local(until)}" if until is not None and until > now else ""
    return f"generation {number}{ends}: {reason}; {hint}"


def _container(agent: dict) -> str:
    if not agent["container"]:
        return ""
    return f"{agent['container'][:12]} of image {agent['image'].removeprefix('sha256:')[:12]}"


def _since(document: dict, now: float) -> str:
    if document["started_at"] is not None:
        at = document["started_at"]
        pid = document["agent"]["pid"]
        process = f", process {pid}" if pid else ""
        return f"{local(at)} ({ago(at, now)}){process}, launch {document['launch_id']}"
    at = document["stopped_at"]
    return f"stopped {local(at)} ({ago(at, now)})" if at is not None else ""


def _heartbeat(document: dict, now: float) -> str:
    at, limit = document["last_heartbeat_at"], document["heartbeat_limit_seconds"]
    if document.get("judged_by") == "process":  # known of what runs only
        seen = f"its process is well, looked {ago(at, now)}; " if at is not None else ""
        return f"{seen}it sends no heartbeats, so a hang cannot be seen"
    allowed = f" (limit {duration(limit)})" if limit else ""
    if at is None:
        return f"none yet{allowed}" if document["agent"]["alive"] else ""
    told = f"{ago(at, now)}{allowed}"
    if document["agent"]["alive"]:
        told += f", {document['heartbeats']} so far" if document["heartbeats"] else ""
        told += f", {document['agent']['phase']}" if document["agent"]["phase"] else ""
    return told


def _watchdog(document: dict, now: float) -> str:
    told = document["watchdog"]
    if not told["running"]:
        return ""
    if told["at"] is None:
        return "has not looked yet"
    why = f": {told['reason']}" if told["reason"] else ""
    seconds = told["offline_in_seconds"]
    is_close = told["state"] in ("late", "grace") and seconds is not None and seconds > 0
    return f"{told['state']}{why}, looked {ago(told['at'], now)}" + (
        f"; offline in {duration(seconds)}" if is_close else "")  # fmt: skip


def _good(document: dict) -> str:
    good, golden = document["last_known_good"], document["golden"]
    if good is None:
        return ""
    return f"last known good: generation {good}" + (f"; golden: {golden}" if golden else "")


def _incident(incident: dict | None, now: float) -> str:
    if incident is None:
        return ""
    move = ""
    if incident["from"] is not None and incident["to"] is not None:
        move = f", {incident['from']} -> {incident['to']}"
        if incident["from"] == incident["to"]:
            move = f", {incident['to']} again"
    outcome = incident["outcome"] or "not over yet"
    seconds = f" in {duration(incident['seconds'])}" if incident["outcome"] == "recovered" else ""
    when = ago(incident["at"], now)
    return f"{when}: {incident['trigger']}{move}: {outcome}{seconds} (agentctl why)"


# -- status next -----------------------------------------------------------------------------------
# Say why an agent is not well and what happens next, in whole sentences. Pure.
# The future is not guessed: it comes from the settings, the ledger and the policy.


STALE_FACTOR = 2.0  # systemd acts at the limit itself; twice that means that nobody has acted
LONGEST_PAUSE_SECONDS = 90 * 86400.0  # what is said to last longer has no end in mind


def why_not_well(facts: StatusFacts, document: dict) -> str:
    """Return what is wrong, '' if the agent is well."""
    phase = document["phase"]
    if phase in ("steady", "probation"):
        return _why_not_fresh(facts, document) or (_why_not_clean(facts) if phase == "probation" else "")
    waits_for = facts.live.get("waits_for")
    told = {
        "halted": f"halted until a human acts: {facts.halted}",
        "paused": f"{_until(facts)}: watched, not acted upon",
        "rolling-back": "a rollback is under way",
        "starting": f"starting: it waits for {waits_for}" if waits_for else "it is starting",
        "stopped": _why_stopped(facts),
    }
    return told[phase]


def _until(facts: StatusFacts) -> str:
    is_without_end = facts.paused_until - facts.now > LONGEST_PAUSE_SECONDS
    return "paused" if is_without_end else f"paused until {local(facts.paused_until)}"


def _why_not_fresh(facts: StatusFacts, document: dict) -> str:
    if not document["agent"]["alive"]:
        return "its process is gone; the runner is about to say so"
    if not facts.has_ledger:
        return "its ledger cannot be read"
    limit = silence_limit(facts)
    since = document["last_heartbeat_at"] or document["ready_at"]
    if limit is None or since is None or facts.now - since <= limit:
        return ""
    return f"no heartbeat for {duration(facts.now - since)} (limit {duration(limit)})"


def _why_not_clean(facts: StatusFacts) -> str:
    """A candidate that has failed is not well until it is blessed, however well it looks now."""
    if facts.launch is None:
        return ""
    stumble = policy.find_stumble([one for one in facts.trial if one.end], facts.launch.generation)
    return f"it has failed on probation: {stumble.reason or stumble.trigger}" if stumble else ""


def silence_limit(facts: StatusFacts) -> float | None:
    """Return how long a silence is no reason to worry; an agent that announced a wait has longer."""
    if facts.config is None:
        return None
    settings = facts.config.heartbeat
    if (facts.live.get("silent_until_at") or 0) > facts.now:
        return None  # the runner granted this silence
    twice = settings.timeout * STALE_FACTOR
    if facts.live.get("agent_phase") == "waiting":
        return max(twice, settings.longest_wait + settings.timeout)
    return twice


def _why_stopped(facts: StatusFacts) -> str:
    launch = facts.launch
    if not facts.has_ledger:
        return "it does not run, as far as can be seen"
    if launch is None:
        return "it was never started"
    told = {
        models.RUNNING: "its runner ended without a word",
        models.STOPPED: "stopped by a human, or with the machine",
        models.REBOOTED: "the machine went down while it ran",
        models.ASKED: "it asked to be restarted",
    }
    return told.get(launch.end, f"it failed: {launch.reason or launch.trigger}")


def sentences(facts: StatusFacts, document: dict) -> list[str]:
    """Return what happens next, in order of what comes first."""
    tell = {
        "steady": _when_running,
        "probation": _when_on_probation,
        "starting": _when_starting,
        "rolling-back": _when_rolling_back,
        "paused": lambda *_: ["agentctl resume ends the pause"],
        "halted": _when_halted,
        "stopped": _when_stopped,
    }
    return [text for text in tell[document["phase"]](facts, document) if text]


def _when_running(facts: StatusFacts, _document: dict) -> list[str]:
    waiting = ""
    if facts.incident is not None and not facts.incident.outcome:
        waiting = f"incident {facts.incident.id} ends with the first heartbeat"
    return [waiting, describe(facts)]


def _when_on_probation(facts: StatusFacts, document: dict) -> list[str]:
    if document["generation_status"] == "condemned":
        return ["this generation is condemned: a failure, or a restart, goes back"]
    left = document["tries_left"]
    tries = "" if left is None else "; 1 try left" if left == 1 else f"; {left} tries left"
    trial = f"on probation: {_until_good(facts, document)}{tries}"
    return [trial, *_when_running(facts, document)]


def _until_good(facts: StatusFacts, document: dict) -> str:
    if facts.config is None or document["ready_at"] is None:
        return "good when it has lasted and kept beating"
    if unless := _unless_confirmed(facts, document):
        return unless
    if lacks := facts.live.get("lacks"):
        return f"good once it shows what good code shows: {lacks}"
    settings, is_of_process = facts.config.probation, facts.live.get("judged_by") not in (None, "beats")
    seconds = settings.duration - (facts.now - document["ready_at"])
    beats = 0 if is_of_process else settings.heartbeats - document["heartbeats"]
    keeps = "stays alive" if is_of_process else "keeps beating"
    checks = len(settings.required)
    then = f", then {checks} required check{'s' if checks > 1 else ''}" if checks else ""
    if seconds > 0:
        return f"good in about {duration(max(1, round(seconds)))} if it {keeps}{then}"
    if beats > 0:
        return f"good after {beats} more heartbeat{'s' if beats > 1 else ''}{then}"
    return "it has lasted; " + ("its checks are run now" if checks else "it is being blessed")


def _unless_confirmed(facts: StatusFacts, document: dict) -> str:
    running = next((g for g in facts.generations if g.number == document["generation"]), None)
    if running is None or not running.confirm_by:
        return ""
    return f"it goes back unless 'agentctl confirm' comes by {local(running.confirm_by)}"


def _when_starting(facts: StatusFacts, document: dict) -> list[str]:
    if facts.config is None or document["started_at"] is None:
        return []
    left = facts.config.agent.ready_timeout - (facts.now - document["started_at"])
    if left <= 0:
        return ["it should have been ready by now; the next thing is its end"]
    helps = facts.live.get("helps")
    return [
        f"if that never comes: {helps}" if helps else "",
        f"it has {duration(max(1, round(left)))} left to become ready",
        _unless_confirmed(facts, document),
        describe(facts),
    ]


def _when_rolling_back(facts: StatusFacts, _document: dict) -> list[str]:
    if facts.intent is None:
        return ["it is being decided what follows the failure"]
    target, rung = facts.intent.target, facts.intent.rung
    step = f", step '{facts.step}'" if facts.step else ""
    doing = f"to generation {target} ({rung}){step}; then it is started"
    if facts.is_rolling_back:
        return [doing]
    return [doing, "nobody works on it at the moment: the next start goes on with it"]


def _when_halted(_facts: StatusFacts, _document: dict) -> list[str]:
    return [
        "agentctl why tells the story",
        "agentctl resume tries again; agentctl rollback N or agentctl bless N decides for it",
    ]


def _when_stopped(facts: StatusFacts, document: dict) -> list[str]:
    if not facts.has_ledger:
        return []
    end = facts.launch.end if facts.launch else models.STOPPED
    if end in (models.STOPPED, models.REBOOTED):
        return [f"agentctl start starts generation {document['generation']}"]
    return ["the recovery process decides what follows; agentctl start has it look at once"]


# -- forecast --------------------------------------------------------------------------------------
# Say what would follow a failure now, by asking the policy itself. Pure: it guesses nothing.


LONGEST_CHAIN = 200
BETWEEN_SECONDS = 0.001


def world_after_failure(facts: StatusFacts) -> models.PolicyInput:
    """Build what the recovery process would see if the agent failed at this moment."""
    return models.PolicyInput(
        now=facts.now,
        limits=models.RollbackLimits.of_settings(facts.config.rollback),
        launch=facts.launch.replace(
            end=models.FAILED, trigger="crash", reason="a failure", exit_status=1, ended_at=facts.now
        ),
        generations=list(facts.generations),
        incident=None,
        attempts=list(facts.attempts),
        recent=list(facts.recent),
        paused_until=facts.paused_until,
    )


def foresee(world: models.PolicyInput) -> list[models.Decision]:
    """Return what one failure after the other would lead to, up to the first that is no restart."""
    chain: list[models.Decision] = []
    while len(chain) < LONGEST_CHAIN:
        decision = policy.decide(world)
        chain.append(decision)
        if decision.action != models.RESTART:
            break
        world = _after_failing_again(world, decision)
    return chain


def _after_failing_again(world: models.PolicyInput, decision: models.Decision) -> models.PolicyInput:
    attempt = models.Attempt(
        incident="", number=0, at=world.now, rung=decision.rung, target=decision.target, reason="", is_open=0
    )
    now = world.now + BETWEEN_SECONDS  # it is launched, and fails once more
    return world.replace(
        now=now,
        attempts=[*world.attempts, attempt],
        recent=[*world.recent, attempt],
        launch=world.launch.replace(ended_at=now),
        generations=[_with_a_try_spent(g) if g.number == decision.target else g for g in world.generations],
    )


def _with_a_try_spent(generation: models.Generation) -> models.Generation:
    return generation.replace(tries_left=generation.tries_left - (generation.status == "candidate"))


def describe(facts: StatusFacts) -> str:
    """Say in one sentence what a failure now would lead to; '' where nothing can be said."""
    if facts.config is None or facts.launch is None:
        return ""
    chain = foresee(world_after_failure(facts))
    restarts, last = len(chain) - 1, chain[-1]
    end = _end(last, facts.launch.generation)
    if not restarts:
        return f"a failure now: {end}"
    return f"a failure now: restart ({_left(facts, restarts)}), then {end}"


def _left(facts: StatusFacts, restarts: int) -> str:
    running = next((g for g in facts.generations if g.number == facts.launch.generation), None)
    if running is not None and running.status == "candidate":
        return "1 try left" if restarts == 1 else f"{restarts} tries left"
    settings = facts.config.rollback
    return f"{restarts} of {settings.restarts} left in {duration(settings.window)}"


def _end(decision: models.Decision, running: int) -> str:
    if decision.action == models.NOTHING:
        return f"nothing is done ({decision.reason})"
    if decision.action != models.ROLLBACK:
        why = decision.reason.partition("; ")[2]
        return "halted until a human acts" + (f" ({why})" if why else "")
    if decision.without_task:
        return f"generation {decision.target} without the task"
    if decision.target == running:
        return f"generation {running} put back whole, with its state"
    return f"generation {decision.target} ({decision.rung})"
