"""Words for people about changes: what was begun, where they stand, how check, trial and promotion went. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..changes import rules
from ..core import text

if TYPE_CHECKING:
    from typing import Any


class ShownChange(rules.Listed):
    """A change as it is shown: what comes next in words, and the command for it."""

    next: str = ""
    next_command: str = ""


def obstacles(known: list[dict[str, Any]]) -> list[str]:
    """Tell what `promote` would refuse as things are."""
    return [
        line
        for obstacle in known
        for line in (f"promote will refuse: {obstacle['why']}", f"      {obstacle['command']}")
    ]


def started(row: dict[str, Any], typist: rules.Typist) -> list[str]:
    """Tell what was begun and what comes next."""
    name = row["name"]
    what = "taken up: the branch was there" if row["branch_was_there"] else "started"
    lines = [f"change {name} {what}", f"  worktree  {row['worktree']}",
             f"  departs   from {row['base'][:12]} (tag before/{name})",
             f"  snapshot  {row['snapshot'] or 'none'}"]  # fmt: skip
    if row["task"]:
        lines.append(f"  task      not noted there: {row['task']}")
    return [
        *lines,
        *obstacles(row["obstacles"]),
        "next: edit in the worktree (the running tree stays as it is), then",
        f"      {row['commit']}",
        f"      {typist.ctl(f'change check {name}')}",
    ]


def as_table(rows: list[ShownChange], now: float, is_all: bool) -> list[str]:
    """Return the table for people; what comes next, whole, or why it ended, stands below each."""
    if not rows:
        return ["no open change; agentctl change start feature/NAME begins one" if not is_all else "no change yet"]
    cells = [[row.name, row.state, f"generation {row.generation}" if row.generation else "",
              text.ago(row.started_at, now), row.about] for row in rows]  # fmt: skip
    header, *lines = text.table(["change", "state", "as", "started", "about"], cells)
    below = [_notes(row) for row in rows]
    return [header, *(shown for line, notes in zip(lines, below, strict=True) for shown in (line, *notes))]


def _notes(row: ShownChange) -> list[str]:
    """What became of it, what comes next and the command for it: a command is never cut."""
    told = [text.cut(f"  {text.one_line(part)}", text.WIDTH) for part in (row.reason, row.next) if part]
    return [*told, *([f"  next: {text.one_line(row.next_command)}"] if row.next_command else [])]


def abandoned(row: dict[str, Any]) -> list[str]:
    """Tell what stays."""
    lines = [f"change {row['name']} abandoned; the branch stays"]
    if row["worktree_stays"]:
        lines.append(f"its worktree stays too: {row['worktree_stays']}")
    return lines


def part_lines(facts: dict[str, Any]) -> list[str]:
    """Tell how one part of the gate went."""
    took = f" ({text.duration(facts['seconds'])})" if facts["seconds"] >= 0.1 else ""
    lines = text.clean(facts["said"]).splitlines() or [""]
    if facts["ok"]:
        return [text.cut(f"  ok      {facts['name']}{took}: {lines[-1]}", text.WIDTH)]
    return [f"  FAILED  {facts['name']}{took}:", *(f"          {line}" for line in lines)]


def progress(facts: dict[str, Any]) -> str:
    """Tell what the candidate does."""
    if "lacks" in facts:
        return f"  not closed off from the running agent, only led elsewhere: {text.clean(facts['lacks'])}"
    if "ready" in facts:
        return f"  ready after {text.duration(facts['ready'] or 0)}"
    return f"  {text.duration(facts['seconds'] or 0)}: {facts['beats']} heartbeats"


def held(found: dict[str, Any], review: str, typist: rules.Typist) -> list[str]:
    """Tell of a trial that was held to its end."""
    following = f"change {'promote' if review == 'none' else 'review'} {found['name']}"
    return [
        f"it held for {text.duration(found['seconds'])}, {found['beats']} heartbeats",
        f"all it printed: {found['log']}",
        f"next: {typist.ctl(following)}",
    ]


def material(seen: dict[str, Any], typist: rules.Typist) -> list[str]:
    """Lay out what a reviewer has to see."""
    checked, tried, following = seen["check"], seen["try"], f"change review {seen['name']}"
    lines = [f"change {seen['name']} at {seen['commit'][:12]}" + (f": {seen['about']}" if seen["about"] else ""), ""]
    lines += seen["diff"].rstrip("\n").split("\n") + ["", *seen["stat"].rstrip("\n").split("\n"), ""]
    lines += [f"check: {part['name']}: {text.one_line(part['said'])[:60]}" for part in checked.get("parts", [])]
    lines += [f"try:   held for {text.duration(tried.get('seconds', 0))}, {tried.get('beats', 0)} heartbeats", ""]
    lines += [f"       not closed off from the running agent: {tried['lacks']}", ""] if tried.get("lacks") else []
    lines += [f"[ ] {question}" for question in seen["checklist"]]
    return [
        *lines,
        "",
        f"next: {typist.ctl(following)} --note 'what you looked at, what you think'",
        "      (--reject if it must not be promoted)",
    ]


def reviewed(row: dict[str, Any], review: str, typist: rules.Typist) -> list[str]:
    """Tell that a review is on record."""
    record = row["reviewed"]
    if not record["ok"]:
        return [f"rejected by {record['by']}: {record['note']}", f"next: mend it in {row['worktree']}"]
    is_human = review == "human"
    following = typist.ctl(f"change {'approve' if is_human else 'promote'} {row['name']}")
    who = f"somebody who is not the agent: {typist.person}" if is_human else ""
    return [f"reviewed by {record['by']}", f"next: {who}{following}"]


def promoted(row: dict[str, Any], typist: rules.Typist) -> list[str]:
    """Tell how far it is."""
    number = row["generation"]
    if row["outcome"] == "requested":
        return [f"change {row['name']} will be put in place as generation {number}; this agent is restarted for it"]
    if row["outcome"] == "blessed":
        return [f"change {row['name']} is blessed: generation {number} is the last known good now"]
    lines = [f"change {row['name']} is in place as generation {number} (tag v{number}), on probation"]
    wish = row["promotion"]
    if wish.get("confirm_seconds"):
        within = text.duration(wish["confirm_seconds"])
        lines.append(f"it is rolled back unless '{typist.ctl('confirm')}' comes within {within}")
    return [*lines, f"next: {typist.ctl('status')}; {typist.ctl('change list')}"]
