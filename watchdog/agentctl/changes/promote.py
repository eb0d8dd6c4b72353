"""The story of `change promote`: what is missing, the merge, the wish on record, its preparation, the outcome.

It is prepared while the agent runs: in this process where the caller may, by a job of the runner's where the caller is
the agent. What the caller claims is judged anew there from the repository, read as the agent's user; objects enter the
vault as a checked pack. The tree is put in place by the recovery process (`recovery.promotion`).
"""

from __future__ import annotations

import json
import time

from ..config.context import Lock
from ..core.errors import AgentctlError, CannotBuild, CommandFailed
from ..generations import lifecycle, worktree
from ..generations.agent_context import AgentContext
from ..generations.tree_capture import CapturedTree
from ..ledger import change_records, models, writers
from ..ledger.database import Ledger
from ..ledger.models import ChangeRecord, CondemnedTree, Generation
from ..recovery import requests
from ..runtime import runner_client
from . import rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .service import Changes

PREPARE_SECONDS = 900.0
PREPARE_LOCK_SECONDS = 600.0
TRIAL_MARGIN_SECONDS = 300.0
POLL_SECONDS = 0.1


def run(
    changes, row: ChangeRecord, *, force: bool, confirm_seconds: float | None, on_failure: str, supervisor: int
) -> dict:
    """Promote a change; return its record once the candidate is in place, or is sure to be put there.

    Raise AgentctlError with the verb that is missing, or with why it was given up.
    """
    name = row.name
    facts, known = changes.look(row)
    if row.status == models.PROMOTING and known["pending"]:
        _trigger(changes, supervisor)
        return _outcome(changes, name)
    condemned = None if force else rules.condemned_in(known)
    lacks = rules.find_lacks(
        row.replace(status=models.OPEN) if row.status != models.ABANDONED else row,
        facts,
        review=changes.review_mode,
        condemned=condemned,
        main=changes.main,
        world=rules.WorldFacts.of(known),
        typist=changes.typist,
    )
    if lacks:
        more = f" (missing: {', '.join(lack.verb for lack in lacks)})" if len(lacks) > 1 else ""
        raise AgentctlError(f"cannot promote '{name}': {lacks[0].why}{more}", lacks[0].command)
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
    if socket:  # the agent dies of what it asks for: the runner goes on
        runner_client.ask(socket, "POST", "/changes", {"verb": "promote", "name": name, **wish})
        return _wait_for_request(changes, name)
    changes.ask("promote", name, **wish)
    if not changes.is_direct:  # its own user, outside: the runner does it, is stopped for it, and another one tells
        return _outcome(changes, name)
    with changes.context.ledger() as ledger:
        why = prepare(changes.context, ledger, name)
    if why:
        raise AgentctlError(f"cannot promote '{name}': {why}", f"agentctl change list; agentctl change promote {name}")
    _trigger(changes, supervisor)
    return _outcome(changes, name)


def _merge(changes, row: ChangeRecord, facts: rules.BranchFacts) -> str:
    """Make the merge commit; one that an interrupted promotion of the same has made is used again."""
    wish = row.promotion
    if row.status == models.PROMOTING and (wish.get("commit"), wish.get("main")) == (facts.head, facts.main):
        return wish["merge"]
    told = (("Reviewed", row.reviewed), ("Approved", row.approved))
    notes = [f"{what}: {record['note']} ({record['by']})" for what, record in told if record.get("note")]
    message = "\n\n".join([f"Merge {row.name}" + (f": {row.about}" if row.about else ""), "\n".join(notes)])
    return changes.as_agent(worktree.merge_commit, changes.context.code_dir, facts.head, facts.main, message.strip())


def _trigger(changes, supervisor: int) -> None:
    requests.trigger(changes.context, supervisor)


def _wait_for_request(changes, name: str) -> dict:
    """Wait until the runner has the request on disk: from then on it is done, also if this process ends."""
    deadline = time.monotonic() + PREPARE_SECONDS
    while time.monotonic() < deadline:
        known = _look(changes, name)
        if known and (known["pending"] or known["change"]["status"] == models.PROMOTED):
            return {**known["change"], "outcome": "requested"}
        if known and known["change"]["status"] != models.PROMOTING:
            raise AgentctlError(f"cannot promote '{name}': {known['change']['reason']}", "agentctl change list")
        time.sleep(POLL_SECONDS)
    raise AgentctlError(
        f"the promotion of '{name}' is still being prepared after {PREPARE_SECONDS:g}s",
        "agentctl logs; agentctl change list",
    )


def _look(changes: Changes, name: str) -> dict[str, Any] | None:
    """Return what the records say of a change, None while nobody is there to be asked: the agent is being restarted."""
    try:
        known: dict[str, Any] = changes.ask("look", name)
    except runner_client.NoAnswer:
        return None
    return known


def _outcome(changes, name: str) -> dict:
    """Wait until the recovery process has put the candidate in place, or has given it up."""
    deadline = time.monotonic() + PREPARE_SECONDS
    while time.monotonic() < deadline:
        known = _look(changes, name)
        row = known["change"] if known else {}
        if row.get("status") == models.PROMOTED:
            return {**row, "outcome": "in place"}
        if row and row["status"] != models.PROMOTING:
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
        time.sleep(POLL_SECONDS)
        known = _look(changes, name)
        if known is None:
            continue
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
    raise AgentctlError(f"no verdict on '{name}' after {patience:g}s", "agentctl status")


def review_material(changes, row: ChangeRecord) -> dict:
    """Gather what a reviewer has to see: the difference, what check and trial said, the questions."""
    facts, _ = changes.look(row)
    lacks = changes.find_lacks(row, facts)
    early = [lack for lack in lacks if lack.verb in ("start", "commit", "check", "try")]
    if early:
        raise AgentctlError(f"cannot review '{row.name}': {early[0].why}", early[0].command)
    return {
        "name": row.name,
        "about": row.about,
        "commit": facts.head,
        "tree": facts.tree,
        "stat": changes.diff(row, "--stat=76"),
        "diff": changes.diff(row, "--patch"),
        "check": row.checked,
        "try": row.tried,
        "checklist": changes.context.config.change.checklist,
    }


def review(changes, row: ChangeRecord, note: str, *, is_rejected: bool) -> dict:
    """Record a review of exactly what the branch holds now."""
    seen = review_material(changes, row)
    facts = {
        "commit": seen["commit"],
        "tree": seen["tree"],
        "note": note,
        "ok": not is_rejected,
        "why": note if is_rejected else "",
    }
    return changes.ask("review", row.name, facts=facts)["change"]


def approve(changes, row: ChangeRecord, note: str) -> dict:
    """Approve exactly the commit that the branch has now; refused to the agent."""
    facts = json.loads(changes.as_agent(worktree.look, changes.context.code_dir, row.name, changes.main, row.worktree))
    if not facts["head"]:
        raise AgentctlError(f"cannot approve '{row.name}': its branch is gone", "agentctl change list")
    return changes.ask("approve", row.name, commit=facts["head"], note=note)["change"]


# -- prepared: may it, and what exactly ------------------------------------------------------------
# Standard library only, for it is also a job of the runner's. It can be killed at any line and is then done again.


def prepare(context: AgentContext, ledger: Ledger, name: str) -> str:
    """Make the candidate generation and its tree, and write the request down; return '' or why it is refused.

    Nothing of the running tree is touched; done twice, it is the same as done once.
    """
    with Lock(f"{context.paths.data_dir}/promote.lock", "another promotion").take(wait_seconds=PREPARE_LOCK_SECONDS):
        row = ledger.change(name)
        if row is None or row.status != models.PROMOTING or name in change_records.list_pending(ledger):
            return ""
        try:
            why = _refusal(context, ledger, row)
            generation = None if why else _generation(context, ledger, row)
            if generation is not None and context.is_contained:
                _build_image(context, ledger, generation)
        except (CommandFailed, CannotBuild) as error:
            why, generation = error.message[:500], None
        if generation is None:
            cancel(ledger, name, why)
            return why
        lifecycle.prepare_candidate(context, generation)
        return _request(ledger, row, generation)


def cancel(ledger: Ledger, name: str, why: str) -> None:
    """Put a change back to work, with the reason."""
    with ledger.transaction():
        change_records.put_back(ledger, name, why)


def _refusal(context: AgentContext, ledger: Ledger, row: ChangeRecord) -> str:
    """Say why the change may not be promoted as it was asked for, '' if it may."""
    wish, main = row.promotion, context.config.agent.branch
    pending = change_records.list_pending(ledger)
    if pending:
        return f"change '{pending[0]}' is being promoted"
    halted = ledger.meta("halted")
    if halted:
        return f"the agent is halted: {halted}"
    if ledger.open_attempt() is not None or ledger.next_request() is not None:
        return "a rollback is under way"
    opened = ledger.open_incident()
    if opened is not None:  # else the candidate's first heartbeat would count as the recovery
        return f"incident {opened.id} is not over"
    facts = _facts(context, row.name, main)
    if (facts.head, facts.main) != (wish["commit"], wish["main"]):
        moved = row.name if facts.head != wish["commit"] else main
        return f"{moved} has moved since the promotion was asked for"
    shown = context.repository.git.run("rev-parse", *(f"{wish['merge']}{part}" for part in ("^{tree}", "^1", "^2")))
    if shown.text.split() != [facts.tree, facts.main, facts.head]:
        return f"{wish['merge'][:12]} is not the merge of {row.name} into {main}"
    bad = None if wish["force"] else change_records.condemned_with(ledger, facts.tree)
    condemned = CondemnedTree.of(bad.to_dict()) if bad else None
    lacks = rules.find_lacks(row, facts, review=context.config.change.review, condemned=condemned, main=main)
    return lacks[0].why if lacks else ""


def _facts(context: AgentContext, name: str, main: str) -> rules.BranchFacts:
    """Read what counts from the repository without trusting its settings; who asked has looked at the worktrees."""
    git = context.repository.git
    words = (f"refs/heads/{name}^{{commit}}", f"refs/heads/{name}^{{tree}}", f"refs/heads/{main}^{{commit}}",
             f"refs/heads/{main}^{{tree}}")  # fmt: skip
    head, tree, tip, main_tree = git.run("rev-parse", *words).text.split()
    behind, ahead = git.run("rev-list", "--left-right", "--count", f"{tip}...{head}").text.split()
    live_head, branch = context.repository.head()
    return rules.BranchFacts(
        head=head,
        tree=tree,
        main=tip,
        main_tree=main_tree,
        behind=int(behind),
        ahead=int(ahead),
        has_worktree=True,
        dirty=[],
        live_dirty=[],
        live_branch=branch,
        live_head=live_head,
    )


def _generation(context: AgentContext, ledger: Ledger, row: ChangeRecord) -> Generation:
    """Bring the merge into the vault as a candidate, or find the one that an interrupted run has brought."""
    wish, main = row.promotion, context.config.agent.branch
    known = [g for g in ledger.generations() if g.commit_id == wish["merge"] and g.status == "candidate"]
    made = next((g for g in reversed(known) if g.source in ("change", lifecycle.FORCED)), None)
    if made is None:
        tree = context.repository.git.run("rev-parse", f"{wish['merge']}^{{tree}}").text
        is_forced = wish["force"] and change_records.condemned_with(ledger, tree) is not None
        capture = CapturedTree(tree, wish["merge"], tree, main, [])
        made = lifecycle.add_generation(context, ledger, capture, source=lifecycle.FORCED if is_forced else "change")
        if is_forced:
            ledger.event(
                "forced",
                f"generation {made.number} has a condemned tree; {wish['by']} asked for it "
                f"with --force (change {row.name})",
            )
    return made


def _build_image(context: AgentContext, ledger: Ledger, generation: Generation) -> None:
    """Have the candidate's image while the agent still runs: a build may take minutes."""
    from ..runtime.container import compose_project, images

    images.ensure(compose_project.ComposeProject(context), ledger, generation, is_recovery=False)


def _request(ledger: Ledger, row: ChangeRecord, generation: Generation) -> str:
    """Write down that the recovery process is to do it: from here on it is done, whoever dies. Return '' or why not."""
    wish = row.promotion
    with ledger.transaction():
        now = ledger.change(row.name)
        if now is None or (now.status, now.promotion) != (models.PROMOTING, wish):
            return "it was given up, or asked for anew, while it was prepared"
        change_records.set_generation(ledger, row.name, generation.number)
        writers.set_promotion(ledger, generation.number, change=row.name, on_failure=wish["on_failure"])
        writers.add_request(
            ledger,
            "promote",
            str(generation.number),
            at=time.time(),
            author=wish["by"],
            reason=f"change {row.name}: {row.about}".rstrip(": "),
        )
    return ""
