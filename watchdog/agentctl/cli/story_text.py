"""Lay out the story of an incident: at most 80 columns, nothing a terminal obeys. Pure."""

from __future__ import annotations

from ..wording import WIDTH, ago, clean, cut, local, wrap
from .story import first_failure, tell
from .story_known import Known, fine

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
