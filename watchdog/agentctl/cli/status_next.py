"""Say why an agent is not well and what happens next, in whole sentences. Pure.

The future is not guessed: it comes from the settings, the ledger and the policy.
"""

from __future__ import annotations

from ..decisions import policy
from ..wording import duration, local
from . import forecast
from .status_facts import Facts

STALE_FACTOR = 2.0  # systemd acts at the limit itself; twice that means that nobody has acted
LONGEST_PAUSE_SECONDS = 90 * 86400.0  # what is said to last longer has no end in mind


def why_not_well(facts: Facts, document: dict) -> str:
    """Return what is wrong, '' if the agent is well."""
    phase = document["phase"]
    if phase in ("steady", "probation"):
        return _why_not_fresh(facts, document)
    told = {
        "halted": f"halted until a human acts: {facts.halted}",
        "paused": f"{_until(facts)}: watched, not acted upon",
        "rolling-back": "a rollback is under way",
        "starting": "it is starting",
        "stopped": _why_stopped(facts),
    }
    return told[phase]


def _until(facts: Facts) -> str:
    is_without_end = facts.paused_until - facts.now > LONGEST_PAUSE_SECONDS
    return "paused" if is_without_end else f"paused until {local(facts.paused_until)}"


def _why_not_fresh(facts: Facts, document: dict) -> str:
    if not document["agent"]["alive"]:
        return "its process is gone; the runner is about to say so"
    if not facts.has_ledger:
        return "its ledger cannot be read"
    limit = silence_limit(facts)
    since = document["last_heartbeat_at"] or document["ready_at"]
    if limit is None or since is None or facts.now - since <= limit:
        return ""
    return f"no heartbeat for {duration(facts.now - since)} (limit {duration(limit)})"


def silence_limit(facts: Facts) -> float | None:
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


def _why_stopped(facts: Facts) -> str:
    launch = facts.launch
    if not facts.has_ledger:
        return "it does not run, as far as can be seen"
    if launch is None:
        return "it was never started"
    told = {
        policy.RUNNING: "its runner ended without a word",
        policy.STOPPED: "stopped by a human, or with the machine",
        policy.REBOOTED: "the machine went down while it ran",
        policy.ASKED: "it asked to be restarted",
    }
    return told.get(launch["end"], f"it failed: {launch['reason'] or launch['trigger']}")


def sentences(facts: Facts, document: dict) -> list[str]:
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


def _when_running(facts: Facts, _document: dict) -> list[str]:
    waiting = ""
    if facts.incident is not None and not facts.incident["outcome"]:
        waiting = f"incident {facts.incident['id']} ends with the first heartbeat"
    return [waiting, forecast.describe(facts)]


def _when_on_probation(facts: Facts, document: dict) -> list[str]:
    if document["generation_status"] == "condemned":
        return ["this generation is condemned: a failure, or a restart, goes back"]
    left = document["tries_left"]
    tries = "" if left is None else "; 1 try left" if left == 1 else f"; {left} tries left"
    trial = f"on probation: {_until_good(facts, document)}{tries}"
    return [trial, *_when_running(facts, document)]


def _until_good(facts: Facts, document: dict) -> str:
    if facts.config is None or document["ready_at"] is None:
        return "good when it has lasted and kept beating"
    if unless := _unless_confirmed(facts, document):
        return unless
    settings = facts.config.probation
    seconds = settings.duration - (facts.now - document["ready_at"])
    beats = settings.heartbeats - document["heartbeats"]
    checks = len(settings.required)
    then = f", then {checks} required check{'s' if checks > 1 else ''}" if checks else ""
    if seconds > 0:
        return f"good in about {duration(max(1, round(seconds)))} if it keeps beating{then}"
    if beats > 0:
        return f"good after {beats} more heartbeat{'s' if beats > 1 else ''}{then}"
    return "it has lasted; " + ("its checks are run now" if checks else "it is being blessed")


def _unless_confirmed(facts: Facts, document: dict) -> str:
    running = next((g for g in facts.generations if g["number"] == document["generation"]), {})
    if not running.get("confirm_by"):
        return ""
    return f"it goes back unless 'agentctl confirm' comes by {local(running['confirm_by'])}"


def _when_starting(facts: Facts, document: dict) -> list[str]:
    if facts.config is None or document["started_at"] is None:
        return []
    left = facts.config.agent.ready_timeout - (facts.now - document["started_at"])
    if left <= 0:
        return ["it should have been ready by now; the next thing is its end"]
    return [
        f"it has {duration(max(1, round(left)))} left to become ready",
        _unless_confirmed(facts, document),
        forecast.describe(facts),
    ]


def _when_rolling_back(facts: Facts, _document: dict) -> list[str]:
    if facts.intent is None:
        return ["it is being decided what follows the failure"]
    target, rung = facts.intent["target"], facts.intent["rung"]
    step = f", step '{facts.step}'" if facts.step else ""
    doing = f"to generation {target} ({rung}){step}; then it is started"
    if facts.is_rolling_back:
        return [doing]
    return [doing, "nobody works on it at the moment: the next start goes on with it"]


def _when_halted(_facts: Facts, _document: dict) -> list[str]:
    return [
        "agentctl why tells the story",
        "agentctl resume tries again; agentctl rollback N or agentctl bless N decides for it",
    ]


def _when_stopped(facts: Facts, document: dict) -> list[str]:
    if not facts.has_ledger:
        return []
    end = facts.launch["end"] if facts.launch else policy.STOPPED
    if end in (policy.STOPPED, policy.REBOOTED):
        return [f"agentctl start starts generation {document['generation']}"]
    return ["the rollback routine decides what follows; agentctl start has it look at once"]
