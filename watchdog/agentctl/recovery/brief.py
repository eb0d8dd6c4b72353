"""The brief: the note that the relaunched agent finds. What was undone, why, where its work is, what is unfinished."""

from __future__ import annotations

import os
import time

from ..core import durable
from ..core.errors import AgentctlError
from ..host import command
from ..ledger.models import GOOD_STAYS, ChangeRecord, Incident
from ..state import agent_state
from .execution import Execution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHOWN_LINES = 15
DIFFSTAT_SECONDS = 2.0


def leave(attempt: Execution, diffstat: str) -> str:
    """Write the brief into the state folder; return its path."""
    context = attempt.context
    if attempt.rung == "undo":
        return ""
    change, pending = _change_of(attempt), agent_state.pending_actions(context)[:20]
    text = compose(attempt, diffstat, change, pending)
    if os.path.isdir(context.brief_path) and not os.path.islink(context.brief_path):  # a file cannot take its name
        agent_state.make_way(context.brief_path)
    durable.write(context.brief_path, text.encode("utf-8", "replace"), 0o644, context.owner)
    told = _for_people(diffstat, change, pending)  # `agentctl why` tells a person the same
    attempt.write_with_end(lambda: attempt.ledger.add_evidence(attempt.incident, **told))
    return context.brief_path


def _for_people(diffstat: str, change: ChangeRecord | None, pending: list[str]) -> dict[str, object]:
    """What the brief says beyond the evidence."""
    known = {key: getattr(change, key) for key in ("name", "about", "worktree", "snapshot")} if change else None
    return {"diffstat": diffstat.splitlines()[-25:], "pending": pending, "change": known}


def compose(attempt: Execution, diffstat: str, change: ChangeRecord | None, pending: list[str]) -> str:
    """Write the brief's text from the incident's evidence, the change that was undone, and what is unfinished."""
    ledger = attempt.ledger
    proof = ledger.evidence(attempt.incident)
    parts = [
        _head(attempt, ledger.incident(attempt.incident)),
        _why(attempt, proof),
        _undone(diffstat),
        _work(attempt, change),
        _next(attempt, change, pending),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _head(attempt: Execution, row: Incident | None) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(row.at if row else time.time()))
    source = row.generation_from if row else "?"
    if attempt.rung == GOOD_STAYS:
        return (
            f"# You were put back\n\nIncident {attempt.incident}, {at}: generation {source} was put in your place and "
            f"not launched; you are generation {attempt.target.number} as before, with your state as you left it. "
            "Read this first, go on with your task, and delete this file when you have understood it."
        )
    return (
        f"# You were rolled back\n\nIncident {attempt.incident}, {at}: generation {source} was "
        f"replaced by generation {attempt.target.number} "
        f"(commit {attempt.target.commit_id[:12]}, rung: {attempt.rung}). "
        "Read this first, go on with your task, and delete this file when you have understood it."
    )


def _why(attempt: Execution, proof: dict[str, Any]) -> str:
    lines = [f"## Why\n\n{attempt.reason}."]
    if proof.get("lived_seconds") is not None and attempt.rung != GOOD_STAYS:
        lines.append(f"It lived {proof['lived_seconds']:g} seconds. How it ended: {proof.get('exit_class', '?')}.")
    shown = proof.get("stack") or proof.get("last_lines") or []
    if shown:
        what = "The stack" if proof.get("stack") else "Its last lines"
        is_newest_first = any("most recent call first" in line for line in shown)
        part = shown[:SHOWN_LINES] if is_newest_first else shown[-SHOWN_LINES:]
        lines.append(f"{what}:\n\n```\n" + "\n".join(part) + "\n```")
    return "\n\n".join(lines)


def _undone(diffstat: str) -> str:
    return f"## What was undone\n\n```\n{diffstat}\n```" if diffstat else ""


class Diffstat:
    """What the condemned generation changed, asked of the vault while the other steps go on."""

    def __init__(self, attempt: Execution) -> None:
        self._running: command.Running | None = None
        source = attempt.source
        if source is None or source.number == attempt.target.number:
            return
        try:
            self._running = attempt.context.vault.git.start(
                "diff",
                "--no-ext-diff",
                "--no-textconv",
                "--stat=72",
                "--stat-count=20",
                attempt.target.vault_commit,
                source.vault_commit,
            )
        except AgentctlError:
            return

    def text(self) -> str:
        """Return it, '' if there is none or it takes too long."""
        if self._running is None:
            return ""
        try:
            return self._running.finish(limit_seconds=DIFFSTAT_SECONDS).text
        except AgentctlError:
            return ""


def _change_of(attempt: Execution) -> ChangeRecord | None:
    """Return the change that the undone generation came from, None where it came from none."""
    source = attempt.source
    if source is None or not source.change or source.number == attempt.target.number:
        return None
    return attempt.ledger.change(source.change)


def _of_change(change: ChangeRecord | None) -> str:
    """Name the change, and where it goes on."""
    if change is None:
        return ""
    about = f" ({change.about})" if change.about else ""
    return (
        f"\n- it was the change `{change.name}`{about}: its branch is untouched, its worktree is "
        f"`{change.worktree}`"
        f"\n- the state from before it: snapshot {change.snapshot or 'none'}"
    )


def _work(attempt: Execution, change: ChangeRecord | None) -> str:
    branch = attempt.rescue_branch
    return (
        f"## Where your work is\n\n- branch `{branch}`: your commits, and one commit of what was not committed\n"
        f"- the whole old tree: `{attempt.quarantine}/tree` (kept by the watchdog)\n"
        "- your other branches, stashes and worktrees are where they were" + _of_change(change)
    )


def _next(attempt: Execution, change: ChangeRecord | None, pending: list[str]) -> str:
    text = "## What next\n\n"
    if pending:
        text += "Unfinished in your task:\n\n" + "\n".join(f"- [ ] {p}" for p in pending) + "\n\n"
    if change is not None:
        return text + (
            "Do not promote the same again as it was: the same tree is refused. Find what failed, mend it "
            f"and commit in `{change.worktree}`, then `agentctl change check {change.name}` and so "
            "on; `agentctl change list` says what is missing, `agentctl protocol` how it goes."
        )
    branch = attempt.rescue_branch
    return text + (
        "Do not make the same change again as it was: the same tree is refused. Look at "
        f"`git diff {attempt.context.config.agent.branch} {branch}`, find what failed, and test the next "
        "try apart from the running agent."
    )
