"""The end of an incident's story: the cost, what was kept, what was restored, what to do next. Pure."""

from __future__ import annotations

from .story_known import Known, fine


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
    branch = known.rescue_branch(known.moves[-1][0])
    sentences = [f"git log {known.branch}..{branch} shows the undone commits."]
    if public["from"] is not None and public["from"] != public["to"]:
        sentences.insert(0, f"agentctl diff {public['to']} {public['from']} shows what was undone.")
    return [*sentences, "agentctl rollback undo returns to before."]
