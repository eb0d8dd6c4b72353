"""Words for people about changes. Pure but for asking what comes next."""

from __future__ import annotations

from .. import wording as format
from ..errors import AgentctlError


def next_in_words(changes, name: str) -> str:
    """Say what comes next for an open change; a repository that cannot be read says so itself."""
    try:
        lack = changes.next_verb(changes.find(name))
    except AgentctlError as error:
        return error.message
    return f"{lack.verb}: {lack.why}"


def started(row: dict) -> list[str]:
    """Tell what was begun and what comes next."""
    what = "taken up: the branch was there" if row["branch_was_there"] else "started"
    lines = [f"change {row['name']} {what}", f"  worktree  {row['worktree']}",
             f"  departs   from {row['base'][:12]} (tag before/{row['name']})",
             f"  snapshot  {row['snapshot'] or 'none'}"]  # fmt: skip
    if row["task"]:
        lines.append(f"  task      not noted there: {row['task']}")
    return [
        *lines,
        "next: edit and commit in the worktree (the running tree stays as it is), then",
        f"      agentctl change check {row['name']}",
    ]


def as_table(rows: list[dict], now: float, is_all: bool) -> list[str]:
    """Return the table for people; what comes next, or why it ended, stands below each."""
    if not rows:
        return ["no open change; agentctl change start feature/NAME begins one" if not is_all else "no change yet"]
    cells = [[row["name"], row["state"], f"generation {row['generation']}" if row["generation"] else "",
              format.ago(row["started_at"], now), row["about"]] for row in rows]  # fmt: skip
    header, *lines = format.table(["change", "state", "as", "started", "about"], cells)
    below = [format.cut(f"  {format.one_line(_note(row))}", format.WIDTH) for row in rows]
    return [header, *(text for pair in zip(lines, below, strict=True) for text in pair if text.strip())]


def _note(row: dict) -> str:
    parts = [row["reason"], f"next: {row['next']}" if row.get("next") else ""]
    return "; ".join(part for part in parts if part)


def abandoned(row: dict) -> list[str]:
    """Tell what stays."""
    lines = [f"change {row['name']} abandoned; the branch stays"]
    if row["worktree_stays"]:
        lines.append(f"its worktree stays too: {row['worktree_stays']}")
    return lines


def part(facts: dict) -> list[str]:
    """Tell how one part of the gate went."""
    took = f" ({format.duration(facts['seconds'])})" if facts["seconds"] >= 0.1 else ""
    lines = format.clean(facts["said"]).splitlines() or [""]
    if facts["ok"]:
        return [format.cut(f"  ok      {facts['name']}{took}: {lines[-1]}", format.WIDTH)]
    return [f"  FAILED  {facts['name']}{took}:", *(f"          {line}" for line in lines)]


def progress(facts: dict) -> str:
    """Tell what the candidate does."""
    if "lacks" in facts:
        return f"  not closed off from the running agent, only led elsewhere: {format.clean(facts['lacks'])}"
    if "ready" in facts:
        return f"  ready after {format.duration(facts['ready'] or 0)}"
    return f"  {format.duration(facts['seconds'] or 0)}: {facts['beats']} heartbeats"


def held(found: dict, review: str) -> list[str]:
    """Tell of a trial that was held to its end."""
    following = "promote" if review == "none" else "review"
    return [
        f"it held for {format.duration(found['seconds'])}, {found['beats']} heartbeats",
        f"all it printed: {found['log']}",
        f"next: agentctl change {following} {found['name']}",
    ]


def material(seen: dict) -> list[str]:
    """Lay out what a reviewer has to see."""
    checked, tried = seen["check"], seen["try"]
    lines = [f"change {seen['name']} at {seen['commit'][:12]}" + (f": {seen['about']}" if seen["about"] else ""), ""]
    lines += seen["diff"].rstrip("\n").split("\n") + ["", *seen["stat"].rstrip("\n").split("\n"), ""]
    lines += [f"check: {part['name']}: {format.one_line(part['said'])[:60]}" for part in checked.get("parts", [])]
    lines += [f"try:   held for {format.duration(tried.get('seconds', 0))}, {tried.get('beats', 0)} heartbeats", ""]
    lines += [f"       not closed off from the running agent: {tried['lacks']}", ""] if tried.get("lacks") else []
    lines += [f"[ ] {question}" for question in seen["checklist"]]
    return [
        *lines,
        "",
        f"next: agentctl change review {seen['name']} --note 'what you looked at, what you think'",
        "      (--reject if it must not be promoted)",
    ]


def reviewed(row: dict, mode: str) -> list[str]:
    """Tell that a review is on record."""
    record = row["reviewed"]
    if not record["ok"]:
        return [f"rejected by {record['by']}: {record['note']}", f"next: mend it in {row['worktree']}"]
    who, verb = ("somebody who is not the agent: ", "approve") if mode == "human" else ("", "promote")
    return [f"reviewed by {record['by']}", f"next: {who}agentctl change {verb} {row['name']}"]


def promoted(row: dict) -> list[str]:
    """Tell how far it is."""
    number = row["generation"]
    if row["outcome"] == "requested":
        return [f"change {row['name']} will be put in place as generation {number}; this agent is restarted for it"]
    if row["outcome"] == "blessed":
        return [f"change {row['name']} is blessed: generation {number} is the last known good now"]
    lines = [f"change {row['name']} is in place as generation {number} (tag v{number}), on probation"]
    wish = row["promotion"]
    if wish.get("confirm_seconds"):
        within = format.duration(wish["confirm_seconds"])
        lines.append(f"it is rolled back unless 'agentctl confirm' comes within {within}")
    return [*lines, "next: agentctl status; agentctl change list"]
