"""The rules of a change: what it lacks before it may be promoted, which verb comes next, what became of it. Pure.

Facts come in as the ledger's row and as what git says; nothing here looks at a clock, a file or a repository.
"""

from __future__ import annotations

from ..core.record import Record
from ..ledger.models import ABANDONED, OPEN, PROMOTED, PROMOTING, ChangeRecord, CondemnedTree

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
    code: str = ""  # where the running tree is


class WorldFacts(Record):
    """What the records know that stands in the way of any promotion, whatever the change."""

    halted: str = ""
    incident: str | None = None
    rival: str = ""  # the other change that is being promoted
    is_switching: bool = False


class Typist(Record):
    """How whoever asks has to type a command: which agent it names, and as which user git is to be called."""

    agent: str = ""  # as `--name` has it; '' where the agent is known without
    owner: str = ""  # before `git`: `sudo -u USER ` where the repository is another user's
    person: str = ""  # before what is a person's to say: `sudo ` where the agent has a user of its own

    def ctl(self, words: str) -> str:
        """Return a command of agentctl."""
        return f"agentctl {words}" + (f" --name {self.agent}" if self.agent else "")

    def git(self, folder: str, words: str) -> str:
        """Return a command of git in a folder."""
        return f"{self.owner}git -C {quoted(folder)} {words}"

    def commit(self, folder: str) -> str:
        """Return the command that commits everything in a worktree."""
        return self.git(folder, "add -A") + " && " + self.git(folder, 'commit -m "what and why"')


class Missing:
    """One thing that is missing: the verb that comes next, why, and the command to type."""

    __slots__ = ("command", "verb", "why")

    def __init__(self, verb: str, why: str, command: str) -> None:
        self.verb, self.why, self.command = verb, why, command

    def to_dict(self) -> dict[str, object]:
        """Return it as `--json` shows it."""
        return {"verb": self.verb, "why": self.why, "command": self.command}


def find_lacks(
    row: ChangeRecord,
    facts: BranchFacts,
    *,
    review: str,
    condemned: CondemnedTree | None,
    main: str,
    world: WorldFacts | None = None,
    typist: Typist | None = None,
) -> list[Missing]:
    """List what a change lacks before it may be promoted, in the order in which it is to be mended.

    `condemned` is the generation that was condemned with this very tree.
    """
    typist = typist or Typist()
    name = row.name
    lacks = [*_lacks_of_branch(row, facts, main, typist), *_lacks_of_age(row, facts, main, typist)][:1]
    if lacks:
        return lacks
    lacks += _lacks_of_record("check", row.checked, facts.tree, typist.ctl(f"change check {name}"))
    lacks += _lacks_of_record("try", row.tried, facts.tree, typist.ctl(f"change try {name}"))
    if review != "none":
        lacks += _lacks_of_record("review", row.reviewed, facts.tree, typist.ctl(f"change review {name}"))
    if review == "human" and row.approved.get("commit") != facts.head:
        lacks.append(
            Missing(
                "approve",
                "nobody but the agent has approved this commit (change.review is human)",
                f"{typist.person}{typist.ctl(f'change approve {name}')}, by a person, outside the agent",
            )
        )
    return lacks + _lacks_of_tree(row, condemned, typist) + _lacks_of_world(facts, main, world, typist)


def find_obstacles(
    row: ChangeRecord,
    facts: BranchFacts,
    *,
    condemned: CondemnedTree | None,
    main: str,
    world: WorldFacts | None = None,
    typist: Typist | None = None,
) -> list[Missing]:
    """List what would have a promotion refused however well its gate goes: to be told before the work is done."""
    typist = typist or Typist()
    known = _lacks_of_age(row, facts, main, typist) + _lacks_of_tree(row, condemned, typist)
    return known + _lacks_of_world(facts, main, world, typist)


def _lacks_of_branch(row: ChangeRecord, facts: BranchFacts, main: str, typist: Typist) -> list[Missing]:
    name, where = row.name, row.worktree
    again = typist.ctl(f"change start {name}")
    if row.status == ABANDONED:
        return [Missing("start", f"it was abandoned: {row.reason or 'no reason given'}", again)]
    if not facts.head:
        give_up = typist.ctl(f"change abandon {name}")
        return [Missing("start", f"its branch {name} is gone", f"{give_up}, or make it again")]
    if not facts.has_worktree:
        return [Missing("start", f"its worktree {where} is gone", f"{again} makes it again")]
    if facts.dirty:
        why = f"its worktree has what is in no commit: {listed(facts.dirty)}"
        return [Missing("commit", why, typist.commit(where))]
    if facts.ahead == 0 or (facts.behind == 0 and facts.tree == facts.main_tree):
        why = f"there is nothing in it that {main} does not have"
        return [Missing("commit", why, f"edit in {where}, then {typist.commit(where)}")]
    return []


def _lacks_of_age(row: ChangeRecord, facts: BranchFacts, main: str, typist: Typist) -> list[Missing]:
    """A branch has to hold all of main: what was checked and tried is what will run."""
    if not facts.behind or not facts.head:
        return []
    commits = "1 commit" if facts.behind == 1 else f"{facts.behind} commits"
    why = f"{main} has {commits} that it does not have"
    return [Missing("update", why, typist.git(row.worktree, f"merge {main}"))]


def _lacks_of_record(verb: str, record: dict, tree: str, command: str) -> list[Missing]:
    past = {"check": "checked", "try": "tried", "review": "reviewed"}[verb]
    if not record:
        return [Missing(verb, f"it was not {past}", command)]
    if record.get("tree") != tree:
        return [Missing(verb, f"it has changed since it was {past}", command)]
    if not record.get("ok", True):
        return [Missing(verb, f"the {verb} failed: {record.get('why', 'no reason given')}", command)]
    return []


def _lacks_of_tree(row: ChangeRecord, condemned: CondemnedTree | None, typist: Typist) -> list[Missing]:
    if condemned is None:
        return []
    once_more = typist.ctl(f"change promote {row.name} --force")
    return [
        Missing(
            "force",
            f"this very tree was condemned as generation {condemned.number}: {condemned.reason}",
            f"change what failed and commit in {row.worktree}; {once_more} tries the same once more",
        )
    ]


def _lacks_of_world(facts: BranchFacts, main: str, world: WorldFacts | None, typist: Typist) -> list[Missing]:
    """What is the matter with the running tree and with the agent, whatever the change."""
    found = _lacks_of_live(facts, main, typist)
    if world is None:
        return found
    if world.halted:
        command = f"{typist.ctl('why')} tells the story, {typist.person}{typist.ctl('resume')} ends it"
        found.append(Missing("resume", f"the agent is halted: {world.halted}", command))
    look = typist.ctl("status")
    if world.rival:
        found.append(Missing("wait", f"change '{world.rival}' is being promoted", look))
    if world.is_switching:
        found.append(Missing("wait", "a rollback is under way", look))
    elif world.incident:
        command = f"{look}; it ends with the first heartbeat"
        found.append(Missing("wait", f"incident {world.incident} is not over", command))
    return found


def _lacks_of_live(facts: BranchFacts, main: str, typist: Typist) -> list[Missing]:
    if facts.live_branch != main:
        on = f"on branch {facts.live_branch}" if facts.live_branch else "on no branch"
        command = typist.git(facts.code, f"switch {main}") if facts.code else f"git switch {main} in the running tree"
        return [Missing("live", f"the running tree is {on}, not on {main}", command)]
    if facts.live_dirty:
        where = f"{typist.git(facts.code, 'stash -u')} sets it aside" if facts.code else "git stash -u"
        return [
            Missing(
                "live",
                f"the running tree has what is in no commit: {listed(facts.live_dirty)}; the new version "
                "would not have it",
                f"commit it on a change, or name it in .gitignore; {where}",
            )
        ]
    return []


def condemned_in(known: dict[str, Any]) -> CondemnedTree | None:
    """Return what the records know against the tree that they were asked about."""
    return CondemnedTree.of(known["condemned"]) if known["condemned"] else None


def choose_next_verb(
    row: ChangeRecord,
    facts: BranchFacts,
    *,
    review: str,
    condemned: CondemnedTree | None,
    main: str,
    world: WorldFacts | None = None,
    typist: Typist | None = None,
) -> Missing:
    """Return the next thing to do; its verb is `promote` when nothing is missing."""
    typist = typist or Typist()
    if row.status == PROMOTING:
        return Missing("wait", "it is being promoted", typist.ctl("status"))
    lacks = find_lacks(row, facts, review=review, condemned=condemned, main=main, world=world, typist=typist)
    if lacks:
        return lacks[0]
    return Missing("promote", "nothing is missing", typist.ctl(f"change promote {row.name}"))


def listed(names: list[str]) -> str:
    """Name the first few."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def quoted(word: str) -> str:
    """Return a word as a shell takes it."""
    is_plain = all((c.isalnum() and c.isascii()) or c in "/._-+:@%" for c in word)
    return word if word and is_plain else "'" + word.replace("'", "'\\''") + "'"


# -- what became of it ------------------------------------------------------------------------------
# The fate of a commit is the fate of the generations that hold it, however it came into them: by a promotion, by a
# merge by hand, or below a later change.


class KnownGeneration(Record):
    """A generation as a list of changes has to know it."""

    number: int
    commit_id: str
    tree: str
    status: str
    reason: str = ""
    confirm_by: float | None = None


class Move(Record):
    """A move of code by a recovery or a person: which incident, after which launch, from which generation to which."""

    id: str
    launch: str
    generation_from: int | None = None
    generation_to: int | None = None


class Listed(Record):
    """A change as a list shows it."""

    name: str
    about: str
    author: str
    started_at: float
    base: str
    worktree: str
    status: str
    state: str
    is_open: bool
    generation: int | None = None
    ended_at: float | None = None
    reason: str = ""


def tell_fate(row: Listed, holders: list[KnownGeneration], moves: list[Move], running: int | None) -> Listed:
    """Return the change with the state that follows from the generations that hold its commit.

    `moves` are the newest first; `running` is the generation in place, None where nobody knows.
    """
    if row.status not in (OPEN, PROMOTED) or not holders:
        return row
    numbers = {holder.number for holder in holders}
    good = [holder for holder in holders if holder.status == "good"]
    if good and (running is None or running in numbers):
        number = row.generation if row.generation in {g.number for g in good} else good[0].number
        return row.replace(state="blessed", is_open=False, reason="", generation=number)
    gone = next((m for m in moves if m.generation_from in numbers and m.generation_to not in numbers), None)
    if good and gone is not None:
        why = f"generation {good[-1].number} was good, and incident {gone.id} went back to {gone.generation_to}"
        return row.replace(state="rolled back", is_open=True, reason=why, generation=good[-1].number)
    if good:
        return row.replace(state="blessed", is_open=False, reason="", generation=good[-1].number)
    newest = holders[-1]
    if newest.status == "candidate":
        state = "unconfirmed" if newest.confirm_by else "on probation"
        return row.replace(state=state, is_open=False, reason="", generation=newest.number)
    why = f"generation {newest.number} is {newest.status}: {newest.reason}"
    return row.replace(state="rolled back", is_open=True, reason=why, generation=newest.number)


def find_running(moves: list[Move], launch: str, generation: int | None) -> int | None:
    """Return the generation that is in place: that of the newest launch, unless code was moved since it ended."""
    return moves[0].generation_to if moves and moves[0].launch == launch else generation
