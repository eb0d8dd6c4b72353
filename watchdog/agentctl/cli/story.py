"""The story of an incident in plain words: what ran and happened, the decision, the cost. Pure.

It invents nothing: what the evidence does not hold is not told.
"""

from __future__ import annotations

from ..wording import duration, local
from . import story_end
from .story_known import Known

TRIGGERS = {
    "watchdog": "it went silent",
    "wedged": "it was busy and got nowhere",
    "not-ready": "it did not become ready in time",
    "crash": "it crashed",
    "crash-at-start": "it crashed before it was ready",
    "tmux-killed": "its tmux server was killed",
    "runner-killed": "its runner was killed",
    "check-failed": "a required check of its trial failed",
    "not-confirmed": "nobody confirmed it in time",
    "refused": "its launch was refused",
    "offline": "the watchdog could not reach it",
    "asked": "it restarted itself",
    "cannot-launch": "it could not be started",
    "engine-away": "Docker Engine was away, and the agent with it",
    "no-room-for-image": "there was no room to build its image",
    "build-failed": "its image could not be built",
    "not-as-wanted": "what ran was not what was wanted",
    "request:rollback": "a rollback was asked for",
    "request:undo": "the last rollback was to be undone",
}


class Part:
    """A heading and its sentences."""

    def __init__(self, heading: str, sentences: list[str]) -> None:
        self.heading, self.sentences = heading, [text for text in sentences if text]


def tell(known: Known) -> list[Part]:
    """Return the whole story in order; empty parts are left out."""
    parts = [
        Part("What happened", [_what_ran(known), _what_happened(known), *_signs(known)]),
        Part("What was decided", [_decision(a) for a in known.public["attempts"]]),
        Part("What was undone", story_end.undone(known)),
        Part("What it cost", story_end.cost(known)),
        Part("What was kept", story_end.kept(known)),
        Part("What was restored", story_end.restored(known)),
        Part("What next", story_end.next_steps(known)),
    ]
    return [part for part in parts if part.sentences]


# --- what happened


def _what_ran(known: Known) -> str:
    number = known.public["from"]
    if number is None:
        return ""
    if known.generation is None:
        return f"Generation {number} ran."
    commit = known.generation["commit_id"][:12]
    source = f" (commit {commit} on {known.generation['branch']})" if commit else ""
    is_its_launch = known.launch is not None and known.launch["generation"] == number
    since = f" since {local(known.launch['started_at'])}" if is_its_launch else ""
    return f"Generation {number}{source} ran{since}."


def _what_happened(known: Known) -> str:
    trigger, reason = known.public["trigger"], known.public["reason"]
    told = TRIGGERS.get(trigger, f"trigger: {trigger}")
    return f"{told[0].upper()}{told[1:]}: {reason}." if reason else f"{told[0].upper()}{told[1:]}."


def _signs(known: Known) -> list[str]:
    proof = first_failure(known)
    sentences = []
    if proof.get("exit_class") and proof["exit_class"] not in (proof.get("trigger"), None):
        sentences.append(f"How it ended: {proof['exit_class']}.")
    if proof.get("lived_seconds") is not None:
        ready = "" if proof.get("ready") else " and was never ready"
        sentences.append(f"It lived {duration(proof['lived_seconds'])}{ready}.")
    if proof.get("last_heartbeat_at"):
        count = proof.get("heartbeats")
        number = f" (number {count})" if count else ""
        sentences.append(f"Its last heartbeat{number} was at {local(proof['last_heartbeat_at'])}.")
    elif proof:
        sentences.append("It sent no heartbeat.")
    sentences += _container(proof.get("container") or {})
    if known.evidence.get("strays"):
        sentences.append(f"Noted: {known.evidence['strays']}.")
    notes = proof.get("notes") or []
    return [*sentences, *(f"Noted: {note}." for note in notes)]


def _container(facts: dict) -> list[str]:
    """Tell of the container it ran in, as the engine had it."""
    if not facts.get("id"):
        return [f"Of its container: {facts['problem']}."] if facts.get("problem") else []
    told = f"It ran in container {facts['id'][:12]} of image {facts['image'].removeprefix('sha256:')[:12]}"
    more = [
        ", out of memory" if facts.get("out_of_memory") else "",
        f"; the engine says: {facts['error']}" if facts.get("error") else "",
    ]
    return [f"{told}{''.join(more)}."]


def first_failure(known: Known) -> dict:
    """Return the evidence of what began it; the attempts tell of later failures."""
    failures = known.evidence.get("failures") or [known.evidence]
    return next((f for f in failures if f.get("launch") == known.public["launch"]), known.evidence)


# --- what was decided and done


def _decision(attempt: dict) -> str:
    rung, target = attempt["rung"], attempt["target"]
    what = {
        "restart": f"restart generation {target}",
        "undo": f"undo, back to generation {target} as it was",
        "by hand": f"back to generation {target}, by hand",
        "halted": f"nothing was moved: generation {target} could not be had",
    }.get(rung, f"back to generation {target} ({rung})")
    return f"{attempt['number']}. {what}, because: {attempt['reason']}."
