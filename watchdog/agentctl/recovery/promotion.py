"""A promotion in the recovery process: the prepared candidate is put in place.

It can be killed at any line and is then done again; main is where it was or where it will be, never between.
"""

from __future__ import annotations

import os
import time

from ..config.context import boot_id, new_id
from ..core import fast_json
from ..generations import lifecycle
from ..generations.repair_repo import put_on_target
from ..ledger import change_records, models, writers
from ..ledger.database import Ledger
from ..ledger.models import Attempt, Request
from . import executor
from .execution import Execution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..generations.git import Git
    from ..host.journald import Journal

RUNG = models.PROMOTE


def intend(ledger: Ledger, request: Request, target: int | None, reason: str) -> Attempt:
    """Write the intent down. A promotion is no incident: its steps are kept under an id of its own."""
    own_id = f"promote-{new_id()}"
    with ledger.transaction():
        writers.add_attempt(ledger, own_id, 1, at=time.time(), rung=RUNG, target=target, reason=reason, is_open=True)
        writers.answer_request(ledger, request.number, own_id)
    intent = ledger.attempt(own_id, 1)
    assert intent is not None
    return intent


def put_back(ledger: Ledger, request: Request, why: str) -> None:
    """Put the change of a promotion that came too late back to work, with the reason."""
    generation = ledger.generation(int(request.target))
    if generation is not None and generation.change:
        with ledger.transaction():
            change_records.put_back(ledger, generation.change, why)


def carry_out(attempt: Execution, journal: Journal) -> None:
    """Put the candidate in place, top to bottom; every line is a step that may be killed and repeated."""
    attempt.step("stop", lambda: executor.stop(attempt))
    moved = attempt.step("verify", lambda: verify(attempt))
    if moved:
        _give_up(attempt, moved)
        journal.warning(f"agentctl: not promoting generation {attempt.target.number}: {moved}")
        return
    attempt.step("make ready", lambda: make_ready(attempt))
    attempt.step("switch", lambda: executor.switch(attempt))
    attempt.step("carry .git", lambda: executor.carry(attempt, [".git"]))
    executor.ask_again(attempt)  # now tree and `.git` are where they stay: its info/exclude has a say in it
    attempt.step("repository", lambda: put_repository(attempt))
    attempt.step("environment", lambda: executor.build_environment(attempt))
    attempt.step("carry ignored", lambda: executor.carry_ignored(attempt))
    finish(attempt)
    journal.info(f"agentctl: {attempt.reason}: generation {attempt.target.number} is in place, on probation")


def wish_of(attempt: Execution) -> dict[str, Any]:
    """Return what was asked for: the promotion as the change has it on record."""
    row = attempt.ledger.change(attempt.target.change)
    return row.promotion if row else {}


def verify(attempt: Execution) -> str:
    """Say why it cannot be done any more, '' if it can: nobody may have moved main since."""
    repository, main = attempt.context.repository, attempt.context.config.agent.branch
    expected = wish_of(attempt).get("main")
    head, branch = repository.head()
    if branch != main:
        return f"the running tree is on {branch or 'no branch'}, not on {main}"
    return "" if head == expected else f"{main} has moved since the promotion was asked for"


def _give_up(attempt: Execution, why: str) -> None:
    ledger = attempt.ledger
    with ledger.transaction():  # of an attempt that is over nobody would tell its change
        attempt.record_ended()
        writers.close_attempt(ledger, attempt.incident, attempt.number)
        if attempt.target.change:
            change_records.put_back(ledger, attempt.target.change, why)


def make_ready(attempt: Execution) -> str:
    """Have the tree that goes in, complete and durable."""
    slot = lifecycle.prepare_candidate(attempt.context, attempt.target)
    return fast_json.dumps({"fresh": slot.standby, "inode": os.stat(slot.standby).st_ino, "index": slot.standby_index})


def put_repository(attempt: Execution) -> str:
    """Put main, HEAD and index on the merge, and tag it; what moved main meanwhile is kept on a branch."""
    git, commit = attempt.context.repository.git, attempt.target.commit_id
    main = f"refs/heads/{attempt.context.config.agent.branch}"
    shown = git.run("rev-parse", "--verify", "--quiet", main, check=False)
    if shown.status == 0 and shown.text not in (wish_of(attempt).get("main"), commit):
        git.run("update-ref", f"refs/heads/kept-{attempt.incident}", shown.text, check=False)
    facts = fast_json.loads(put_on_target(attempt))
    told = facts if isinstance(facts, dict) else {}
    return fast_json.dumps({**told, "tag": _tag(git, attempt.target.number, commit)})


def _tag(git: Git, number: int, commit: str) -> str:
    """Tag the release; a tag of that name that is somebody else's stays."""
    for name in (f"v{number}", f"v{number}-agentctl"):
        git.run("update-ref", f"refs/tags/{name}", commit, "0" * len(commit), check=False)
        shown = git.run("rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}", check=False)
        if shown.text == commit:
            return name
    return ""


def finish(attempt: Execution) -> None:
    """Close the intent, and tell the runner what it finds; the time for a confirmation begins here."""
    context, ledger, number = attempt.context, attempt.ledger, attempt.target.number
    wish, now = wish_of(attempt), time.time()
    note = {"generation": number, "boot_id": boot_id(), "at": now, "snapshot": "",
            "inode": os.stat(context.code_dir).st_ino}  # fmt: skip
    seconds = wish.get("confirm_seconds")
    with ledger.transaction():
        attempt.record_ended()
        ledger.set_meta("switched", fast_json.dumps(note))
        writers.set_deadline(ledger, number, now + seconds if seconds else None)
        change_records.set_promoted(ledger, attempt.target.change, now)
        writers.close_attempt(ledger, attempt.incident, attempt.number)
        ledger.event("promoted", f"{attempt.reason}: generation {number}, {attempt.target.commit_id[:12]}")
