"""A change becomes the running version: prepared while the agent runs, put in place by the one-shot.

Both can be killed at any line and are then done again; main is where it was or where it will be, never between.

Standard library only, as on the whole rescue path. What the caller claims is judged anew here from the repository,
read as the agent's user; objects enter the vault as a checked pack.
"""

from __future__ import annotations

import os
import time

from ..changes import rules
from ..config.context import Lock, boot_id, new_id
from ..core import fast_json
from ..core.errors import CannotBuild, CommandFailed
from ..generations import slots
from ..generations.agent_context import AgentContext
from ..generations.tree_capture import CapturedTree
from ..ledger import change_records, models, writers
from ..ledger.database import Ledger
from ..runner.launch import add_generation

RUNG = models.PROMOTE
FORCED = "forced"  # the source of a generation whose tree was condemned before
LOCK_WAIT_SECONDS = 600.0


def prepare(context: AgentContext, ledger: Ledger, name: str) -> str:
    """Make the candidate generation and its tree, and write the request down; return '' or why it is refused.

    Nothing of the running tree is touched; done twice, it is the same as done once.
    """
    with Lock(f"{context.paths.data_dir}/promote.lock", "another promotion").take(wait_seconds=LOCK_WAIT_SECONDS):
        row = change_records.load(ledger.change(name))
        if row["status"] != models.PROMOTING or name in change_records.list_pending(ledger):
            return ""
        try:
            why = _refusal(context, ledger, row)
            generation = None if why else _generation(context, ledger, row)
            if generation is not None and context.is_contained:
                _build_image(context, ledger, generation)
        except (CommandFailed, CannotBuild) as error:
            why = error.message[:500]
        if why:
            cancel(ledger, name, why)
            return why
        prepare_tree(context, generation)
        return _request(ledger, row, generation)


def cancel(ledger: Ledger, name: str, why: str) -> None:
    """Put a change back to work, with the reason."""
    with ledger.transaction():
        _put_back(ledger, name, why)


def _put_back(ledger: Ledger, name: str, why: str) -> None:
    change_records.put_back(ledger, name, f"not promoted: {why}")
    ledger.event("change", f"{name}: not promoted: {why}")


# -- before: may it, and what exactly ---------------------------------------------------------------------------


def _refusal(context: AgentContext, ledger: Ledger, row: dict) -> str:
    """Say why the change may not be promoted as it was asked for, '' if it may."""
    wish, main = row["promotion"], context.config.agent.branch
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
        return f"incident {opened['id']} is not over"
    facts = _facts(context, row["name"], main)
    if (facts.head, facts.main) != (wish["commit"], wish["main"]):
        moved = row["name"] if facts.head != wish["commit"] else main
        return f"{moved} has moved since the promotion was asked for"
    shown = context.repository.git.run("rev-parse", *(f"{wish['merge']}{part}" for part in ("^{tree}", "^1", "^2")))
    if shown.text.split() != [facts.tree, facts.main, facts.head]:
        return f"{wish['merge'][:12]} is not the merge of {row['name']} into {main}"
    condemned = None if wish["force"] else change_records.condemned_with(ledger, facts.tree)
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
    return rules.BranchFacts({"head": head, "tree": tree, "main": tip, "main_tree": main_tree, "behind": int(behind),
                         "ahead": int(ahead), "has_worktree": True, "dirty": [], "live_dirty": [],
                         "live_branch": branch, "live_head": live_head})  # fmt: skip


def _generation(context: AgentContext, ledger: Ledger, row: dict) -> dict:
    """Bring the merge into the vault as a candidate, or find the one that an interrupted run has brought."""
    wish, main = row["promotion"], context.config.agent.branch
    made = ledger.one(
        "SELECT * FROM generations WHERE commit_id=? AND status='candidate' AND source IN (?, ?) ORDER BY number DESC",
        wish["merge"],
        "change",
        FORCED,
    )
    if made is None:
        tree = context.repository.git.run("rev-parse", f"{wish['merge']}^{{tree}}").text
        is_forced = wish["force"] and change_records.condemned_with(ledger, tree) is not None
        capture = CapturedTree(tree, wish["merge"], tree, main, [])
        made = add_generation(context, ledger, capture, source=FORCED if is_forced else "change")
        if is_forced:
            ledger.event(
                "forced",
                f"generation {made['number']} has a condemned tree; {wish['by']} asked for it "
                f"with --force (change {row['name']})",
            )
    return made


def _build_image(context: AgentContext, ledger: Ledger, generation: dict) -> None:
    """Have the candidate's image while the agent still runs: a build may take minutes."""
    from ..runtime.container import compose_project, images

    images.ensure(compose_project.ComposeProject(context), ledger, generation, is_recovery=False)


def candidate_slot(context: AgentContext) -> slots.Slots:
    """Return a slot like the standby, beside it: the standby has to stay what a failing candidate goes back to."""
    own = context.slots
    if own.is_inside:  # the code is a mount point: one tree inside it has to do, and a rollback lays its own out
        return own
    slot = slots.Slots(own.folder, own.live, own.owner, notes=own.notes, is_mounted=own.is_mounted)
    slot.standby = f"{own.folder}/standby-candidate"
    slot.standby_index, slot._note_path = (f"{own.notes}/standby-candidate.{end}" for end in ("index", "json"))
    return slot


def prepare_tree(context: AgentContext, generation: dict) -> slots.Slots:
    """Lay out the candidate's tree, unless it stands already."""
    slot = candidate_slot(context)
    with Lock(f"{context.paths.data_dir}/standby.lock", "another standby").take(wait_seconds=LOCK_WAIT_SECONDS):
        if slot.standby_note().get("generation") != generation["number"]:
            slot.prepare(context.vault, generation["number"], generation["vault_commit"], generation["commit_id"], [])
    return slot


def _request(ledger: Ledger, row: dict, generation: dict) -> str:
    """Write down that the one-shot is to do it: from here on it is done, whoever dies. Return '' or why not."""
    wish = row["promotion"]
    with ledger.transaction():
        now = change_records.load(ledger.change(row["name"]))
        if (now["status"], now["promotion"]) != (models.PROMOTING, wish):
            return "it was given up, or asked for anew, while it was prepared"
        change_records.set_generation(ledger, row["name"], generation["number"])
        writers.set_promotion(ledger, generation["number"], change=row["name"], on_failure=wish["on_failure"])
        writers.add_request(
            ledger,
            "promote",
            str(generation["number"]),
            at=time.time(),
            author=wish["by"],
            reason=f"change {row['name']}: {row['about']}".rstrip(": "),
        )
    return ""


# -- in the one-shot --------------------------------------------------------------------------------------------


def intend(ledger: Ledger, request: dict, target: int, reason: str) -> dict:
    """Write the intent down. A promotion is no incident: its steps are kept under an id of its own."""
    own_id = f"promote-{new_id()}"
    with ledger.transaction():
        writers.add_attempt(ledger, own_id, 1, at=time.time(), rung=RUNG, target=target, reason=reason, is_open=True)
        writers.answer_request(ledger, request["number"], own_id)
    return ledger.open_attempt()


def carry_out(attempt, journal) -> None:
    """Put the candidate in place, top to bottom; every line is a step that may be killed and repeated."""
    from . import executor

    attempt.step("stop", lambda: executor.stop(attempt))
    moved = attempt.step("verify", lambda: verify(attempt))
    if moved:
        _give_up(attempt, moved)
        journal.warning(f"agentctl: not promoting generation {attempt.target['number']}: {moved}")
        return
    attempt.step("make ready", lambda: make_ready(attempt))
    attempt.step("switch", lambda: executor.switch(attempt))
    attempt.step("carry .git", lambda: executor.carry(attempt, [".git"]))
    executor.ask_again(attempt)  # now tree and `.git` are where they stay: its info/exclude has a say in it
    attempt.step("repository", lambda: put_repository(attempt))
    attempt.step("environment", lambda: executor.build_environment(attempt))
    attempt.step("carry ignored", lambda: executor.carry_ignored(attempt))
    finish(attempt)
    journal.info(f"agentctl: {attempt.reason}: generation {attempt.target['number']} is in place, on probation")


def wish_of(attempt) -> dict:
    """Return what was asked for: the promotion as the change has it on record."""
    row = attempt.ledger.change(attempt.target["change"])
    return fast_json.loads(row["promotion"]) if row else {}


def verify(attempt) -> str:
    """Say why it cannot be done any more, '' if it can: nobody may have moved main since."""
    repository, main = attempt.context.repository, attempt.context.config.agent.branch
    expected = wish_of(attempt).get("main")
    head, branch = repository.head()
    if branch != main:
        return f"the running tree is on {branch or 'no branch'}, not on {main}"
    return "" if head == expected else f"{main} has moved since the promotion was asked for"


def _give_up(attempt, why: str) -> None:
    ledger = attempt.ledger
    with ledger.transaction():  # of an attempt that is over nobody would tell its change
        attempt.record_ended()
        writers.close_attempt(ledger, attempt.incident, attempt.number)
        if attempt.target["change"]:
            _put_back(ledger, attempt.target["change"], why)


def make_ready(attempt) -> str:
    """Have the tree that goes in, complete and durable."""
    slot = prepare_tree(attempt.context, attempt.target)
    return fast_json.dumps({"fresh": slot.standby, "inode": os.stat(slot.standby).st_ino, "index": slot.standby_index})


def put_repository(attempt) -> str:
    """Put main, HEAD and index on the merge, and tag it; what moved main meanwhile is kept on a branch."""
    from ..generations.repair_repo import put_on_target

    git, commit = attempt.context.repository.git, attempt.target["commit_id"]
    main = f"refs/heads/{attempt.context.config.agent.branch}"
    shown = git.run("rev-parse", "--verify", "--quiet", main, check=False)
    if shown.status == 0 and shown.text not in (wish_of(attempt).get("main"), commit):
        git.run("update-ref", f"refs/heads/kept-{attempt.incident}", shown.text, check=False)
    facts = fast_json.loads(put_on_target(attempt))
    return fast_json.dumps({**facts, "tag": _tag(git, attempt.target["number"], commit)})


def _tag(git, number: int, commit: str) -> str:
    """Tag the release; a tag of that name that is somebody else's stays."""
    for name in (f"v{number}", f"v{number}-agentctl"):
        git.run("update-ref", f"refs/tags/{name}", commit, "0" * len(commit), check=False)
        shown = git.run("rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}", check=False)
        if shown.text == commit:
            return name
    return ""


def finish(attempt) -> None:
    """Close the intent, and tell the runner what it finds; the time for a confirmation begins here."""
    context, ledger, number = attempt.context, attempt.ledger, attempt.target["number"]
    wish, now = wish_of(attempt), time.time()
    note = {"generation": number, "boot_id": boot_id(), "at": now, "snapshot": "",
            "inode": os.stat(context.code_dir).st_ino}  # fmt: skip
    seconds = wish.get("confirm_seconds")
    with ledger.transaction():
        attempt.record_ended()
        ledger.set_meta("switched", fast_json.dumps(note))
        writers.set_deadline(ledger, number, now + seconds if seconds else None)
        change_records.set_promoted(ledger, attempt.target["change"], now)
        writers.close_attempt(ledger, attempt.incident, attempt.number)
        ledger.event("promoted", f"{attempt.reason}: generation {number}, {attempt.target['commit_id'][:12]}")
