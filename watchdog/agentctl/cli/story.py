"""The story of an incident in plain words: what ran and happened, the decision, the cost. Pure.

It invents nothing: what the evidence does not hold is not told.
"""

from __future__ import annotations

from ..incident import rescue_branch
from .format import duration, local

TRIGGERS = {
    "watchdog": "it went silent",
    "not-ready": "it did not become ready in time",
    "crash": "it crashed",
    "crash-at-start": "it crashed before it was ready",
    "tmux-killed": "its tmux server was killed",
    "runner-killed": "its runner was killed",
    "check-failed": "a required check of its trial failed",
    "refused": "its launch was refused",
    "offline": "the watchdog could not reach it",
    "asked": "it restarted itself",
    "request:rollback": "a rollback was asked for",
    "request:undo": "the last rollback was to be undone",
}
MOVES = ("last known good", "older good", "golden", "golden without the task", "by hand")


class Known:
    """One incident: its public form, its launch and generation, what its steps noted."""

    def __init__(
        self,
        public: dict,
        launch: dict | None,
        generation: dict | None,
        details: dict,
        trees: dict,
        branch: str,
    ) -> None:
        self.public, self.launch, self.generation = public, launch, generation
        self.details = details  # by (attempt, step)
        self.trees = trees  # attempt -> where the replaced tree is
        self.branch = branch
        self.evidence: dict = public["evidence"]

    @property
    def moves(self) -> list[dict]:
        """The attempts that moved code back."""
        return [attempt for attempt in self.public["attempts"] if attempt["rung"] in MOVES]


class Part:
    """A heading and its sentences."""

    def __init__(self, heading: str, sentences: list[str]) -> None:
        self.heading, self.sentences = heading, [text for text in sentences if text]


def tell(known: Known) -> list[Part]:
    """Return the whole story in order; empty parts are left out."""
    parts = [
        Part("What happened", [_what_ran(known), _what_happened(known), *_signs(known)]),
        Part("What was decided", [_decision(a) for a in known.public["attempts"]]),
        Part("What it cost", _cost(known)),
        Part("What was kept", _kept(known)),
        Part("What was restored", _restored(known)),
        Part("What next", _next(known)),
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
    since = f" since {local(known.launch['started_at'])}" if known.launch else ""
    return f"Generation {number}{source} ran{since}."


def _what_happened(known: Known) -> str:
    trigger, reason = known.public["trigger"], known.public["reason"]
    if known.launch is not None and not trigger.startswith("request"):
        reason = known.launch["reason"] or reason
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
    notes = proof.get("notes") or []
    return [*sentences, *(f"Noted: {note}." for note in notes)]


def first_failure(known: Known) -> dict:
    """Return the evidence of what began it; the attempts tell of later failures."""
    failures = known.evidence.get("failures") or [known.evidence]
    return failures[0] if failures[0].get("launch") == known.public["launch"] else known.evidence


# --- what was decided and done


def _decision(attempt: dict) -> str:
    rung, target = attempt["rung"], attempt["target"]
    what = {
        "restart": f"restart generation {target}",
        "undo": f"undo, back to generation {target} as it was",
        "by hand": f"back to generation {target}, by hand",
    }.get(rung, f"back to generation {target} ({rung})")
    return f"{attempt['number']}. {what}, because: {attempt['reason']}."


def fine(seconds: float | None) -> str:
    """Return a duration down to the millisecond; None is a step that did not end."""
    if seconds is None:
        return "(not finished)"
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else duration(seconds)


def _cost(known: Known) -> list[str]:
    public = known.public
    if public["outcome"] is None:
        return ["It is not over: no heartbeat of a relaunched agent has arrived since."]
    worked = sum(s["seconds"] or 0 for s in public["steps"])
    if public["outcome"] == "recovered":
        return [
            f"Recovered on generation {public['to']}: {fine(public['seconds'])} from the "
            f"failure to the first heartbeat, {fine(worked)} of them our steps."
        ]
    if public["outcome"] == "halted":
        return [f"Halted: the agent stays down until a human acts ({public['reason']})."]
    return [f"Ended without more to do, {fine(public['seconds'])} after it began."]


def _kept(known: Known) -> list[str]:
    sentences = []
    for attempt in known.moves:
        number = attempt["number"]
        branch = rescue_branch(known.public["id"], number)
        if (number, "repository") in known.details:
            sentences.append(f"The undone work is on branch {branch}.")
        if number in known.trees:
            sentences.append(f"The whole replaced tree is {known.trees[number]}.")
        stayed = known.details.get((number, "carry over"), {}).get("stayed in quarantine")
        if stayed:
            sentences.append(f"Not carried over, only there: {', '.join(stayed[:10])}.")
    if known.evidence.get("folder"):
        sentences.append(f"The evidence is in {known.evidence['folder']}.")
    return sentences


def _restored(known: Known) -> list[str]:
    sentences = []
    for attempt in known.public["attempts"]:
        facts = known.details.get((attempt["number"], "state"), {})
        if not facts:
            continue
        back, gone = facts.get("restored") or [], facts.get("removed") or []
        sentences.append(
            f"From snapshot {facts['snapshot']}: {_listed(back)}." if facts.get("snapshot") else ""
        )
        if gone:
            sentences.append(f"Moved out of the state folder: {_listed(gone)}.")
        if facts.get("history") == "mended":
            sentences.append("The history was damaged; it was mended from the newest good copy.")
        if facts.get("task") not in (None, "whole", "none"):
            sentences.append(f"The current task was {facts['task']}.")
        if back or gone:
            sentences.append(f"What was replaced is in {facts['replaced']}.")
    return sentences


def _listed(names: list[str]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{shown}{more}" if names else "nothing had to be replaced"


def _next(known: Known) -> list[str]:
    public = known.public
    if public["outcome"] == "halted":
        return [
            "agentctl generations; then agentctl rollback N, agentctl bless N, or agentctl resume."
        ]
    if public["outcome"] is None:
        return ["agentctl status; agentctl logs -f"]
    if not known.moves:
        return [f"agentctl logs --launch {public['launch']}"] if public["launch"] else []
    number = known.moves[-1]["number"]
    branch = rescue_branch(public["id"], number)
    sentences = [f"git log {known.branch}..{branch} shows the undone commits."]
    if public["from"] is not None and public["from"] != public["to"]:
        sentences.insert(0, f"agentctl diff {public['to']} {public['from']} shows what was undone.")
    return [*sentences, "agentctl rollback undo returns to before."]
