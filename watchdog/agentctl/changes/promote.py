"""The story of `change promote` on the caller's side: what is missing, the merge, the wish on record, the outcome.

The work itself is `promotion`'s: in this process where the caller may, by the runner where the caller is the agent.
"""

from __future__ import annotations

import json
import time

from ..core.errors import AgentctlError
from ..generations import worktree
from ..ledger import models
from ..recovery import promotion, requests
from ..runtime import runner_client
from . import rules

PREPARE_SECONDS = 900.0
TRIAL_MARGIN_SECONDS = 300.0
POLL_SECONDS = 0.1


def run(changes, row: dict, *, force: bool, confirm_seconds: float | None, on_failure: str, supervisor: int) -> dict:
    """Promote a change; return its record once the candidate is in place, or is sure to be put there.

    Raise AgentctlError with the verb that is missing, or with why it was given up.
    """
    name = row["name"]
    facts, known = changes.look(row)
    if row["status"] == models.PROMOTING and known["pending"]:
        _trigger(changes, supervisor)
        return _outcome(changes, name)
    condemned = None if force else known["condemned"]
    lacks = rules.find_lacks(
        {**row, "status": models.OPEN} if row["status"] != models.ABANDONED else row,
        facts,
        review=changes.review_mode,
        condemned=condemned,
        main=changes.main,
    )
    if lacks:
        more = f" (missing: {', '.join(lack.verb for lack in lacks)})" if len(lacks) > 1 else ""
        raise AgentctlError(f"cannot promote '{name}': {lacks[0].why}{more}", lacks[0].command)
    if known["incident"]:
        raise AgentctlError(
            f"cannot promote '{name}': incident {known['incident']} is not over",
            "agentctl status; it ends with the first heartbeat",
        )
    wish = {
        "commit": facts.head,
        "tree": facts.tree,
        "main": facts.main,
        "merge": _merge(changes, row, facts),
        "force": force,
        "confirm_seconds": confirm_seconds,
        "on_failure": on_failure,
    }
    socket = runner_client.socket_inside(changes.name)
    if socket or not changes.is_direct:  # the agent dies of what it asks for: the runner goes on
        runner_client.ask(
            socket or changes.context.paths.api_socket_path,
            "POST",
            "/changes",
            {"verb": "promote", "name": name, **wish},
        )
        return _wait_for_request(changes, name)
    changes.ask("promote", name, **wish)
    with changes.context.ledger() as ledger:
        why = promotion.prepare(changes.context, ledger, name)
    if why:
        raise AgentctlError(f"cannot promote '{name}': {why}", f"agentctl change list; agentctl change promote {name}")
    _trigger(changes, supervisor)
    return _outcome(changes, name)


def _merge(changes, row: dict, facts: rules.BranchFacts) -> str:
    """Make the merge commit; one that an interrupted promotion of the same has made is used again."""
    wish = row["promotion"]
    if row["status"] == models.PROMOTING and (wish.get("commit"), wish.get("main")) == (facts.head, facts.main):
        return wish["merge"]
    notes = [
        f"{what}: {row[key]['note']} ({row[key]['by']})"
        for what, key in (("Reviewed", "reviewed"), ("Approved", "approved"))
        if row[key].get("note")
    ]
    message = "\n\n".join([f"Merge {row['name']}" + (f": {row['about']}" if row["about"] else ""), "\n".join(notes)])
    return changes.as_agent(worktree.merge_commit, changes.context.code_dir, facts.head, facts.main, message.strip())


def _trigger(changes, supervisor: int) -> None:
    requests.trigger(changes.context, supervisor)


def _wait_for_request(changes, name: str) -> dict:
    """Wait until the runner has the request on disk: from then on it is done, also if this process ends."""
    deadline = time.monotonic() + PREPARE_SECONDS
    while time.monotonic() < deadline:
        known = changes.ask("look", name)
        if known["pending"]:
            return {**known["change"], "outcome": "requested"}
        if known["change"]["status"] != models.PROMOTING:
            raise AgentctlError(f"cannot promote '{name}': {known['change']['reason']}", "agentctl change list")
        time.sleep(POLL_SECONDS)
    raise AgentctlError(
        f"the promotion of '{name}' is still being prepared after {PREPARE_SECONDS:g}s",
        "agentctl logs; agentctl change list",
    )


def _outcome(changes, name: str) -> dict:
    """Wait until the one-shot has put the candidate in place, or has given it up."""
    deadline = time.monotonic() + PREPARE_SECONDS
    while time.monotonic() < deadline:
        row = changes.ask("look", name)["change"]
        if row["status"] == models.PROMOTED:
            return {**row, "outcome": "in place"}
        if row["status"] != models.PROMOTING:
            raise AgentctlError(f"cannot promote '{name}': {row['reason']}", "agentctl change list")
        time.sleep(POLL_SECONDS)
    raise AgentctlError(
        f"waited {PREPARE_SECONDS:g}s for the promotion of '{name}' in vain", "agentctl status; agentctl logs"
    )


def wait_for_verdict(changes, name: str) -> dict:
    """Wait for the end of the trial; return the record of the blessed change, raise AgentctlError if it was not."""
    settings = changes.context.config
    patience = settings.agent.ready_timeout + settings.probation.duration + TRIAL_MARGIN_SECONDS
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        known = changes.ask("look", name)
        state = known["state"]
        if state == "blessed":
            return known["change"]
        if state == "rolled back":
            number, why = known["change"]["generation"], known["generation"]["reason"]
            raise AgentctlError(
                f"change '{name}' was rolled back: generation {number} is condemned: {why}",
                "agentctl why; mend it in its worktree and promote it again",
            )
        if known["halted"]:
            raise AgentctlError(f"the agent is halted: {known['halted']}", "agentctl why")
        time.sleep(POLL_SECONDS)
    raise AgentctlError(f"no verdict on '{name}' after {patience:g}s", "agentctl status")


def review_material(changes, row: dict) -> dict:
    """Gather what a reviewer has to see: the difference, what check and trial said, the questions."""
    facts, _ = changes.look(row)
    lacks = rules.find_lacks(row, facts, review="none", condemned=None, main=changes.main)
    early = [lack for lack in lacks if lack.verb in ("start", "commit", "check", "try")]
    if early:
        raise AgentctlError(f"cannot review '{row['name']}': {early[0].why}", early[0].command)
    return {
        "name": row["name"],
        "about": row["about"],
        "commit": facts.head,
        "tree": facts.tree,
        "stat": changes.diff(row, "--stat=76"),
        "diff": changes.diff(row, "--patch"),
        "check": row["checked"],
        "try": row["tried"],
        "checklist": changes.context.config.change.checklist,
    }


def review(changes, row: dict, note: str, *, is_rejected: bool) -> dict:
    """Record a review of exactly what the branch holds now."""
    seen = review_material(changes, row)
    facts = {
        "commit": seen["commit"],
        "tree": seen["tree"],
        "note": note,
        "ok": not is_rejected,
        "why": note if is_rejected else "",
    }
    return changes.ask("review", row["name"], facts=facts)["change"]


def approve(changes, row: dict, note: str) -> dict:
    """Approve exactly the commit that the branch has now; refused to the agent."""
    facts = json.loads(
        changes.as_agent(worktree.look, changes.context.code_dir, row["name"], changes.main, row["worktree"])
    )
    if not facts["head"]:
        raise AgentctlError(f"cannot approve '{row['name']}': its branch is gone", "agentctl change list")
    return changes.ask("approve", row["name"], commit=facts["head"], note=note)["change"]
