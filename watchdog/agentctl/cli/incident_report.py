"""The report about an incident in plain words: what ran and happened, the decision, the cost. Pure.

It invents nothing: what the evidence does not hold is not told.
"""

from __future__ import annotations

from ..core.text import WIDTH, ago, clean, cut, duration, local, wrap
from ..ledger.incidents import rescue_branch
from ..ledger.models import GOOD_STAYS, Generation, Launch
from ..recovery import policy

TRIGGERS = {
    "watchdog": "it went silent",
    "wedged": "it was busy and got nowhere",
    "not-ready": "it did not become ready in time",
    "crash": "it crashed",
    "crash-at-start": "it crashed before it was ready",
    "tmux-killed": "its tmux server was killed",
    "runner-killed": "its runner was killed",
    "less-life": "it showed less life than good code does",
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


class ReportPart:
    """A heading and its sentences."""

    def __init__(self, heading: str, sentences: list[str]) -> None:
        self.heading, self.sentences = heading, [text for text in sentences if text]


def tell(known: Known) -> list[ReportPart]:
    """Return the whole story in order; empty parts are left out."""
    parts = [
        ReportPart("What happened", [_what_ran(known), _what_happened(known), *_signs(known)]),
        ReportPart("What was decided", [_decision(a) for a in known.public["attempts"]]),
        ReportPart("What was undone", undone(known)),
        ReportPart("What it cost", cost(known)),
        ReportPart("What was kept", kept(known)),
        ReportPart("What was restored", restored(known)),
        ReportPart("What next", next_steps(known)),
    ]
    return [part for part in parts if part.sentences]


# --- what happened


def _what_ran(known: Known) -> str:
    number = known.public["from"]
    if number is None:
        return ""
    if known.generation is None:
        return f"Generation {number} ran."
    commit = known.generation.commit_id[:12]
    source = f" (commit {commit} on {known.generation.branch})" if commit else ""
    is_its_launch = known.launch is not None and known.launch.generation == number
    since = f" since {local(known.launch.started_at)}" if is_its_launch else ""
    if _is_put_in(known):
        return f"Generation {number}{source} was put in place, and generation {known.public.get('to')} stays."
    return f"Generation {number}{source} ran{since}."


def _is_put_in(known: Known) -> bool:
    """Tell whether it is about something that was put in place and never launched."""
    return any(attempt.get("rung") == GOOD_STAYS for _, attempt in known.moves[:1])


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
        GOOD_STAYS: f"generation {target} stays, with its state as it is",
        "halted": f"nothing was moved: generation {target} could not be had",
    }.get(rung, f"back to generation {target} ({rung})")
    return f"{attempt['number']}. {what}, because: {attempt['reason']}."


# -- story end -------------------------------------------------------------------------------------
# The end of an incident's report: the cost, what was kept, what was restored, what to do next. Pure.


def undone(known: Known) -> list[str]:
    """Say where it came from, and what its task had left to do; what it had changed is laid out below."""
    came_from, pending = known.evidence.get("change") or {}, known.evidence.get("pending") or []
    sentences = []
    if came_from:
        about = f" ({came_from['about']})" if came_from.get("about") else ""
        sentences.append(
            f"It came from the change {came_from['name']}{about}; its branch and its worktree "
            f"{came_from['worktree']} are untouched: agentctl change list."
        )
    if pending:
        sentences.append(f"Unfinished in its task: {'; '.join(str(text) for text in pending)}.")
    if known.evidence.get("diffstat"):
        sentences.append("What it had changed:")
    return sentences


def cost(known: Known) -> list[str]:
    """Say what it took until the agent was well again, or that it is not."""
    public = known.public
    if public["outcome"] is None:
        return ["It is not over: no heartbeat of a relaunched agent has arrived since."]
    worked = sum(s["seconds"] or 0 for s in public["steps"])
    if public["outcome"] == "recovered":
        return [
            (
                f"Recovered on generation {public['to']}: {fine(public['seconds'])} from the "
                f"failure to the first heartbeat, {fine(worked)} of them our steps."
            ),
            *_what_runs(known.evidence.get("runs") or {}),
        ]
    if public["outcome"] == "halted":
        return [f"Halted: the agent stays down until a human acts ({public['reason']})."]
    return [f"Ended without more to do, {fine(public['seconds'])} after it began."]


def _what_runs(facts: dict) -> list[str]:
    """Name the container that was compared with what was wanted before it was called recovered."""
    if not facts.get("container"):
        return []
    image = facts["image"].removeprefix("sha256:")[:12]
    return [f"What ran then: container {facts['container'][:12]} of image {image}, as wanted."]


def kept(known: Known) -> list[str]:
    """Say where everything is that was moved away."""
    sentences = []
    for move, attempt in known.moves:
        number = attempt["number"]
        if (number, "repository") in known.details and attempt["rung"] != "undo":
            sentences.append(f"The undone work is on branch {known.rescue_branch(move)}.")
        if number in known.trees:
            sentences.append(f"The whole replaced tree: {known.trees[number]}")
        stayed = known.details.get((number, "carry over"), {}).get("stayed in quarantine")
        if stayed:
            sentences.append(f"Not carried over, only there: {', '.join(stayed[:10])}.")
    if known.evidence.get("folder"):
        sentences.append(f"The evidence: {known.evidence['folder']}")
    return sentences


def restored(known: Known) -> list[str]:
    """Say what of the state went back."""
    sentences = []
    for attempt in known.public["attempts"]:
        facts = known.details.get((attempt["number"], "state"), {})
        if not facts:
            continue
        back, gone = facts.get("restored") or [], facts.get("removed") or []
        sentences.append(f"From snapshot {facts['snapshot']}: {_listed(back)}." if facts.get("snapshot") else "")
        if gone:
            sentences.append(f"Moved out of the state folder: {_listed(gone)}.")
        if facts.get("history") == "mended":
            sentences.append("The history was damaged; it was mended from the newest good copy.")
        if facts.get("task") not in (None, "whole", "none"):
            sentences.append(f"The current task was {facts['task']}.")
        if back or gone:
            sentences.append(f"What was replaced: {facts['replaced']}")
    return sentences


def _listed(names: list[str]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{shown}{more}" if names else "nothing had to be replaced"


def next_steps(known: Known) -> list[str]:
    """Say what a person may want to do now."""
    public = known.public
    if public["outcome"] == "halted":
        return ["agentctl generations; then agentctl rollback N, agentctl bless N, or agentctl resume."]
    if public["outcome"] is None:
        return ["agentctl status; agentctl logs -f"]
    if not known.moves or known.moves[-1][1]["rung"] == "undo":
        return [f"agentctl logs --launch {public['launch']}"] if public["launch"] else []
    if _is_put_in(known) and known.generation is not None:
        return [f"{policy.tell_way_in(known.generation)}."]
    branch = known.rescue_branch(known.moves[-1][0])
    sentences = [f"git log {known.branch}..{branch} shows the undone commits."]
    if public["from"] is not None and public["from"] != public["to"]:
        sentences.insert(0, f"agentctl diff {public['to']} {public['from']} shows what was undone.")
    is_bad = known.generation is not None and known.generation.status == "condemned"
    return [*sentences, f"agentctl rollback undo{' --force' if is_bad else ''} returns to before."]


# -- story known -----------------------------------------------------------------------------------
# One incident as the ledger and its evidence have it, made ready to be told. Pure.


class Known:
    """One incident: its public form, its launch and generation, what its steps noted."""

    def __init__(
        self,
        public: dict,
        launch: Launch | None,
        generation: Generation | None,
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
    def moves(self) -> list[tuple[int, dict]]:
        """Return the attempts that moved code, each with the number its tree and branch go by."""
        moving = [attempt for attempt in self.public["attempts"] if attempt["rung"] != "restart"]
        return list(enumerate(moving, 1))

    def rescue_branch(self, move: int) -> str:
        """Name the branch that keeps what a move took away."""
        return rescue_branch(self.public["id"], move)


def fine(seconds: float | None) -> str:
    """Return a duration down to the millisecond; None is a step that did not end."""
    if seconds is None:
        return "(not finished)"
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else duration(seconds)


# -- story text ------------------------------------------------------------------------------------
# Lay out the report about an incident: at most 80 columns, nothing a terminal obeys. Pure.


SHOWN_LINES = 15


def render(known: Known, now: float) -> list[str]:
    """Return the lines for people."""
    public = known.public
    lines = wrap(f"Incident {public['id']}, {local(public['at'])} ({ago(public['at'], now)})")
    for part in tell(known):
        lines += ["", part.heading]
        for sentence in part.sentences:
            lines += wrap(sentence, "  ")
        if part.heading == "What happened":
            lines += _proof(known)
        if part.heading == "What was undone":
            stat = known.evidence.get("diffstat") or []
            lines += [cut(f"    {clean(line)}", WIDTH).rstrip() for line in stat]
        if part.heading == "What was decided":
            lines += _steps(known)
    return lines


def _proof(known: Known) -> list[str]:
    proof = first_failure(known)
    shown = proof.get("stack") or proof.get("last_lines") or []
    if not shown:
        return []
    heading = "The stack:" if proof.get("stack") else "Its last lines:"
    lines = [cut(f"    {clean(line).expandtabs()}", WIDTH) for line in shown[-SHOWN_LINES:]]
    return ["", f"  {heading}", *(line.rstrip() for line in lines)]


def _steps(known: Known) -> list[str]:
    lines = [""]
    for attempt in known.public["attempts"]:
        steps = [s for s in known.public["steps"] if s["attempt"] == attempt["number"]]
        if steps:
            told = ", ".join(f"{s['name']} {fine(s['seconds'])}" for s in steps)
            lines += wrap(f"steps of {attempt['number']}: {told}", "  ", "    ")
    return lines if len(lines) > 1 else []
