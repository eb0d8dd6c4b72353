"""The story of a change until it is promoted: start, look, list, abandon. The running tree is never touched.

Everything in the repository is done as the agent's user; records go into the ledger, by the runner where the
caller may not write it (the agent itself, in system mode).
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from ..core import durable
from ..core.errors import AgentctlError
from ..generations import worktree
from ..generations.agent_context import AgentContext
from ..host import command, procfs
from ..ledger import change_records, models
from ..ledger.change_records import Author
from ..ledger.database import Ledger
from ..ledger.models import ChangeRecord
from ..recovery.requests import author as name_author
from ..runtime import runner_client
from ..state import agent_state, task
from . import rules

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_NAME = "agent"


class Changes:
    """The changes of one agent, for whoever calls."""

    def __init__(self, context: AgentContext) -> None:
        self.context, self.name = context, context.paths.name
        self.main = context.config.agent.branch
        self.review_mode = context.config.change.review
        self.is_direct = os.access(context.paths.ledger_path, os.W_OK)
        self.author = Author(name_author(), is_agent=self._is_called_by_agent())
        self.typist = self._find_typist()

    def _is_called_by_agent(self) -> bool:
        """Tell whether the agent itself calls.

        Where it runs as our user, what stands above us says so: our own variables are the caller's to
        take away. Another user (sudo in the agent's session) is not the agent.
        """
        if runner_client.socket_inside(self.name):
            return True
        is_other = self.context.user is not None and not self.context.user.is_us
        return not is_other and procfs.has_ancestor_with("AGENT_NAME", self.name, "AGENT_API_URL")

    def _find_typist(self) -> rules.Typist:
        """Find out how the caller has to type what is to be done next: as it is printed it has to work."""
        is_known = self.name == os.environ.get("AGENT_NAME", DEFAULT_NAME)
        user = self.context.user
        owner = f"{_become(user.name)} " if user is not None and not user.is_us else ""
        person = "sudo " if user is not None and os.geteuid() != 0 else ""
        return rules.Typist(agent="" if is_known else self.name, owner=owner, person=person)

    # -- records --------------------------------------------------------------------------------------------

    def ask(self, verb: str, name: str = "", **more: object) -> dict:
        """Have the records do something; raise AgentctlError where they refuse."""
        request = {"verb": verb, "name": name, **more}
        if not self.is_direct:
            path = runner_client.socket_inside(self.name) or self.context.paths.api_socket_path
            return runner_client.ask(path, "POST", "/changes", request)
        with self.context.ledger() as ledger:
            return change_records.handle(self.context, ledger, request, self.author)

    def find(self, name: str, folder: str = "") -> ChangeRecord:
        """Return the record of a change; without a name the one whose worktree `folder` is in, or the only open one."""
        if name:
            row = self.ask("look", name)["change"]
            if row is None:
                raise AgentctlError(f"there is no change '{name}'", self._known())
            return ChangeRecord.of(row)
        rows = self.list_all()
        inside = [r for r in rows if folder and (folder + "/").startswith(r.worktree + "/")]
        open_ones = inside or [r for r in rows if r.is_open]
        if len(open_ones) != 1:
            what = "there is no open change" if not open_ones else "which change?"
            raise AgentctlError(what, self._known(rows))
        return self.find(open_ones[0].name)

    def _known(self, rows: list[rules.Listed] | None = None) -> str:
        names = [r.name for r in (self.list_all() if rows is None else rows) if r.is_open]
        begin = self.typist.ctl("change start feature/NAME")
        return f"open are: {', '.join(names)}" if names else f"{begin} begins one"

    def list_all(self) -> list[rules.Listed]:
        """Return the changes, oldest first, each with what became of it."""
        said = self.ask("list")
        rows = [rules.Listed.of(row) for row in said["changes"]]
        known = [rules.KnownGeneration.of(generation) for generation in said.get("generations", [])]
        moves = [rules.Move.of(move) for move in said.get("moves", [])]
        last = said.get("launch") or {}
        running = rules.find_running(moves, last.get("id", ""), last.get("generation"))
        asked = [(row.name, row.base) for row in rows if row.status in (models.OPEN, models.PROMOTED)]
        versions = [(generation.commit_id, generation.tree) for generation in known]
        held = self._find_holders(asked, versions) if asked and versions else {}
        return [
            rules.tell_fate(
                row,
                [g for g in known if g.number == row.generation or g.commit_id in held.get(row.name, ())],
                moves,
                running,
            )
            for row in rows
        ]

    def _find_holders(self, asked: list[tuple[str, str]], versions: list[tuple[str, str]]) -> dict[str, list[str]]:
        """Ask git which generations hold which change; a repository that cannot be read tells nothing of them."""
        try:
            said = self.as_agent(worktree.find_holders, self.context.code_dir, asked, versions)
        except AgentctlError:
            return {}
        held: dict[str, list[str]] = json.loads(said)
        return held

    # -- the repository -------------------------------------------------------------------------------------

    def as_agent(self, function: Callable[..., str], *args: object) -> str:
        """Call `function(*args)` as the agent's user and with that user's home; return its text."""
        said = json.loads(command.call_as(self.context.user, _at_home, self.context.user, function, *args))
        if "error" in said:
            raise AgentctlError(said["error"], said["hint"])
        return str(said["answer"])

    def look(self, row: ChangeRecord) -> tuple[rules.BranchFacts, dict]:
        """Return what git says of a change, and what the records say of its tree."""
        said = self.as_agent(worktree.look, self.context.code_dir, row.name, self.main, row.worktree)
        facts = rules.BranchFacts.of(json.loads(said))
        return facts, self.ask("look", row.name, tree=facts.tree)

    def next_verb(self, row: ChangeRecord, *, is_forced: bool = False) -> rules.Missing:
        """Return what comes next for a change."""
        facts, known = self.look(row)
        if row.status == models.PROMOTING and not known["pending"]:  # its promotion was cut off before it was sure
            row = row.replace(status=models.OPEN)
        condemned = None if is_forced else rules.condemned_in(known)
        return rules.choose_next_verb(
            row,
            facts,
            review=self.review_mode,
            condemned=condemned,
            main=self.main,
            world=rules.WorldFacts.of(known),
            typist=self.typist,
        )

    def find_lacks(self, row: ChangeRecord, facts: rules.BranchFacts) -> list[rules.Missing]:
        """Return what the change itself lacks before somebody reviews it."""
        return rules.find_lacks(row, facts, review="none", condemned=None, main=self.main, typist=self.typist)

    def find_obstacles(self, row: ChangeRecord) -> list[rules.Missing]:
        """Return what would have its promotion refused as things are, however well it passes its gate."""
        facts, known = self.look(row)
        return rules.find_obstacles(
            row,
            facts,
            condemned=rules.condemned_in(known),
            main=self.main,
            world=rules.WorldFacts.of(known),
            typist=self.typist,
        )

    # -- verbs ----------------------------------------------------------------------------------------------

    def start(self, name: str, source: str, about: str) -> dict:
        """Begin a change, or bring back the worktree of one that was begun; return its record."""
        models.check_name(name, self.context.config.change.prefixes)
        known = self.ask("look", name)
        row = known["change"]
        if row is not None and known["is_open"] and os.path.isdir(row["worktree"]):
            raise AgentctlError(
                f"change '{name}' is started already; its worktree is {row['worktree']}",
                f"go on there; {self.typist.ctl(f'change abandon {name}')} gives it up",
            )
        self._tidy()
        folder = f"{prepare_folder(self.context)}/{name}"
        said = self.as_agent(worktree.start, self.context.code_dir, name, source or self.main, folder)
        answer = self.ask("start", name, base=json.loads(said)["base"], worktree=folder, about=about)
        snapshot = self._snapshot(name) if row is None else ""
        noted = self.as_agent(note_in_task, self.context.task_path, name, about)
        return {
            **answer["change"],
            "snapshot": snapshot or answer["change"]["snapshot"],
            "task": noted,
            "branch_was_there": json.loads(said)["branch_was_there"],
            "obstacles": [obstacle.to_dict() for obstacle in self.find_obstacles(self.find(name))],
            "commit": self.typist.commit(folder),
        }

    def _snapshot(self, name: str) -> str:
        """Keep the state as it is at the departure; where the runner does it, it goes on in the background."""
        if not self.is_direct:
            return "being taken"
        with self.context.ledger() as ledger:
            return snapshot_for(self.context, ledger, name)

    def _tidy(self) -> None:
        """Take away worktrees of changes that are done, where nothing is in them that is in no commit."""
        for row in self.list_all():
            if row.state in ("blessed", models.ABANDONED) and os.path.isdir(row.worktree):
                self.as_agent(worktree.remove_worktree, self.context.code_dir, row.worktree)

    def abandon(self, row: ChangeRecord, reason: str) -> dict:
        """Give a change up: its branch and the reason stay, its worktree goes where nothing is only there."""
        answer = self.ask("abandon", row.name, reason=reason)["change"]
        stays = self.as_agent(worktree.remove_worktree, self.context.code_dir, row.worktree)
        self.as_agent(tick_in_task, self.context.task_path, row.name)
        return {**answer, "worktree_stays": stays}

    def diff(self, row: ChangeRecord, how: str) -> str:
        """Return what a change changes, as a patch or a summary."""
        return self.as_agent(worktree.diff, self.context.code_dir, row.name, self.main, how)


def _become(user: str) -> str:
    """Return how root types a command as another user."""
    return f"sudo -u {user}" if shutil.which("sudo") else f"runuser -u {user} --"


def prepare_folder(context: AgentContext) -> str:
    """Return the folder that holds the worktrees, the agent's own, beside its code; make it where we may."""
    base = context.paths.data_dir if context.slots.is_inside else context.slots.folder
    folder = f"{base}/changes"
    if os.path.isdir(folder):
        return folder
    try:
        os.mkdir(folder, 0o755)
    except OSError as error:
        raise AgentctlError(
            f"the folder for worktrees {folder} cannot be made: {error.strerror}", "once as root: agentctl change list"
        ) from error
    if context.owner:
        os.chown(folder, *context.owner)
    return folder


def snapshot_for(context: AgentContext, ledger: Ledger, name: str) -> str:
    """Snapshot the state and note it with the change it was taken for; return its id."""
    snapshot = agent_state.take_snapshot(context)
    change_records.set_snapshot(ledger, name, snapshot)
    return snapshot


def action(name: str, about: str = "") -> str:
    """Word a change as one of the task's pending actions."""
    return f"change {name}" + (f": {' '.join(about.split())}" if about else "")


def note_in_task(path: str, name: str, about: str) -> str:
    """Add the change to the task's pending actions; return '' or why not."""
    data = durable.read(path)
    if data is None:
        return "there is no current task"  # a new one would tell the agent that there is something to resume
    try:
        current = task.parse_bytes(data)
    except task.TaskDamaged as error:
        return error.message
    if any(text.startswith(action(name)) for _, text in current.pending):
        return ""
    current.pending = [*current.pending, (False, action(name, about))]
    durable.write(path, current.render().encode(), 0o644)
    return ""


def tick_in_task(path: str, name: str) -> str:
    """Tick the change off in the task, where it is there."""
    data = durable.read(path)
    if data is None or not task.is_task(data):
        return ""
    current = task.parse_bytes(data)
    mine = [text.partition(":")[0] == action(name) for _, text in current.pending]
    if any(mine):
        current.pending = [(done or is_it, text) for (done, text), is_it in zip(current.pending, mine, strict=True)]
        durable.write(path, current.render().encode(), 0o644)
    return ""


def _at_home(user, function, *args) -> str:
    """In the process that took on the agent's user: have that user's home, or git reads ours."""
    if user is not None:
        os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name)
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
            os.environ.pop(name, None)
    try:
        os.getcwd()
    except OSError:  # of a tree that was switched away under the caller, or one that only root may enter
        os.chdir("/")
    try:
        return json.dumps({"answer": function(*args) or ""})
    except AgentctlError as error:  # its hint has to come back too
        return json.dumps({"error": error.message, "hint": error.hint})
