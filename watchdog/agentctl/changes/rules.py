"""The rules of a change: how it may be called, what it lacks before it may be promoted, which verb comes next. Pure.

Facts come in as the ledger's row and as what git says; nothing here looks at a clock, a file or a repository.
"""

from __future__ import annotations

from ..core.record import Record
from ..ledger.models import ABANDONED, PROMOTING, ChangeRecord, CondemnedTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHOWN = 5


class BranchFacts(Record):
    """What is true of a change's branch and worktree now; ids are full commit and tree ids."""

    head: str
    tree: str
    main: str
    main_tree: str
    behind: int  # commits of main that the branch does not have
    ahead: int  # commits of the branch that main does not have
    has_worktree: bool
    dirty: list[str]  # what its worktree holds that is in no commit
    live_branch: str  # what the running tree has checked out
    live_head: str
    live_dirty: list[str]


class Missing:
    """One thing that is missing: the verb that comes next, why, and the command to type."""

    __slots__ = ("command", "verb", "why")

    def __init__(self, verb: str, why: str, command: str) -> None:
        self.verb, self.why, self.command = verb, why, command


def find_lacks(
    row: ChangeRecord, facts: BranchFacts, *, review: str, condemned: CondemnedTree | None, main: str
) -> list[Missing]:
    """List what a change lacks before it may be promoted, in the order in which it is to be mended.

    `condemned` is the generation that was condemned with this very tree.
    """
    name, where = row.name, row.worktree
    lacks = [*_lacks_of_branch(row, facts, main)]
    if lacks:
        return lacks
    lacks += _lacks_of_record("check", row.checked, facts.tree, f"agentctl change check {name}")
    lacks += _lacks_of_record("try", row.tried, facts.tree, f"agentctl change try {name}")
    if review != "none":
        lacks += _lacks_of_record("review", row.reviewed, facts.tree, f"agentctl change review {name}")
    if review == "human" and row.approved.get("commit") != facts.head:
        lacks.append(
            Missing(
                "approve",
                "nobody but the agent has approved this commit (change.review is human)",
                f"agentctl change approve {name}, by a person, outside the agent",
            )
        )
    if condemned is not None:
        lacks.append(
            Missing(
                "force",
                f"this very tree was condemned as generation {condemned.number}: {condemned.reason}",
                f"change what failed and commit in {where}; "
                f"agentctl change promote {name} --force tries the same once more",
            )
        )
    return lacks + _lacks_of_live(facts, main)


def _lacks_of_branch(row: ChangeRecord, facts: BranchFacts, main: str) -> list[Missing]:
    name, where = row.name, row.worktree
    if row.status == ABANDONED:
        why = f"it was abandoned: {row.reason or 'no reason given'}"
        return [Missing("start", why, f"agentctl change start {name}")]
    if not facts.head:
        return [Missing("start", f"its branch {name} is gone", f"agentctl change abandon {name}, or make it again")]
    if not facts.has_worktree:
        return [Missing("start", f"its worktree {where} is gone", f"agentctl change start {name} makes it again")]
    if facts.dirty:
        return [
            Missing(
                "commit",
                f"its worktree has what is in no commit: {listed(facts.dirty)}",
                f"cd {where} && git add -A && git commit",
            )
        ]
    if facts.ahead == 0 or (facts.behind == 0 and facts.tree == facts.main_tree):
        return [Missing("commit", f"there is nothing in it that {main} does not have", f"edit and commit in {where}")]
    if facts.behind:
        commits = "1 commit" if facts.behind == 1 else f"{facts.behind} commits"
        return [Missing("update", f"{main} has {commits} that it does not have", f"cd {where} && git merge {main}")]
    return []


def _lacks_of_record(verb: str, record: dict, tree: str, command: str) -> list[Missing]:
    past = {"check": "checked", "try": "tried", "review": "reviewed"}[verb]
    if not record:
        return [Missing(verb, f"it was not {past}", command)]
    if record.get("tree") != tree:
        return [Missing(verb, f"it has changed since it was {past}", command)]
    if not record.get("ok", True):
        return [Missing(verb, f"the {verb} failed: {record.get('why', 'no reason given')}", command)]
    return []


def _lacks_of_live(facts: BranchFacts, main: str) -> list[Missing]:
    if facts.live_branch != main:
        on = f"on branch {facts.live_branch}" if facts.live_branch else "on no branch"
        return [Missing("live", f"the running tree is {on}, not on {main}", f"git switch {main} in the running tree")]
    if facts.live_dirty:
        return [
            Missing(
                "live",
                f"the running tree has what is in no commit: {listed(facts.live_dirty)}; the new version "
                "would not have it",
                "commit it on a change, git stash -u, or name it in .gitignore",
            )
        ]
    return []


def condemned_in(known: dict[str, Any]) -> CondemnedTree | None:
    """Return what the records know against the tree that they were asked about."""
    return CondemnedTree.of(known["condemned"]) if known["condemned"] else None


def choose_next_verb(
    row: ChangeRecord, facts: BranchFacts, *, review: str, condemned: CondemnedTree | None, main: str
) -> Missing:
    """Return the next thing to do; its verb is `promote` when nothing is missing."""
    if row.status == PROMOTING:
        return Missing("wait", "it is being promoted", "agentctl status")
    lacks = find_lacks(row, facts, review=review, condemned=condemned, main=main)
    return lacks[0] if lacks else Missing("promote", "nothing is missing", f"agentctl change promote {row.name}")


def listed(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
