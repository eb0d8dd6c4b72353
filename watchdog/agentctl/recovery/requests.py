"""Ask for a rollback: write the request down, start the recovery process, wait for its outcome.

The request is on disk before anything is started, so it is not lost if the asker dies, and a recovery process that
runs already sees it.
"""

from __future__ import annotations

import getpass
import os
import signal
import sys
import time

from ..core.errors import AgentctlError
from ..core.paths import ENTRY_PATH
from ..core.record import Record
from ..generations.agent_context import AgentContext
from ..generations.tree_capture import but
from ..host import command
from ..ledger import writers
from ..ledger.database import Ledger
from ..runtime import systemd
from . import policy, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    A = TypeVar("A")

WAIT_SECONDS = 300.0
AGAIN_SECONDS = 3.0


def submit(ledger: Ledger, verb: str, target: str = "", reason: str = "") -> int:
    """Write a request down; return its number."""
    return writers.add_request(ledger, verb, target, at=time.time(), author=author(), reason=reason)


def author() -> str:
    """Name who asks, for the record."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def trigger(context: AgentContext, supervisor: int) -> None:
    """Start the recovery process by whatever runs this agent."""
    if supervisor:
        os.kill(supervisor, signal.SIGUSR1)
    elif systemd.has_unit(context.paths):
        systemd.start_rollback(context.paths)
    else:
        run_directly(context)


def run_directly(context: AgentContext) -> None:
    """Run the recovery process as a child of ours and wait for its end: nothing here would start it."""
    command.run(
        [sys.executable, "-I", "-S", ENTRY_PATH, "rollback", context.paths.name],
        env={**os.environ, "AGENTCTL_RUNTIME": "direct"},
        limit_seconds=1800,
        check=False,
    )


def wait_until_taken(ledger: Ledger, number: int, again: Callable[[], object]) -> str:
    """Wait until the recovery process has taken the request; return the incident's id or 'nothing-to-do'.

    `again()` triggers it a second time: a start that came while one was ending, its last look done, started none.
    """

    def ask() -> str:
        request = ledger.request(number)
        assert request is not None  # no one removes requests
        return request.incident

    deadline = time.monotonic() + AGAIN_SECONDS
    while not ask() and time.monotonic() < deadline:
        time.sleep(0.02)
    if not ask():
        again()
    return _poll(ask, "the rollback to begin")


def wait_until_switched(ledger: Ledger, incident: str) -> None:
    """Wait until no intent of the incident is open."""
    _poll(lambda: not any(attempt.is_open for attempt in ledger.attempts(incident)), "the switch")


def wait_until_over(ledger: Ledger, incident: str, limit_seconds: float) -> str:
    """Wait for the incident's outcome; return it, '' if it is still open after the limit."""
    deadline = time.monotonic() + limit_seconds
    while True:
        found = ledger.incident(incident)
        outcome = found.outcome if found else ""
        if outcome or time.monotonic() > deadline:
            return outcome
        time.sleep(0.02)


class RollbackPlan(Record):
    """What a rollback would do, and what it would take away."""

    source: int | None  # the generation that is launched now
    to: int
    commit: str
    branch: str
    head: str
    snapshot: str
    restores: list[str]
    keeps: list[str]
    commits_undone: list[str]
    uncommitted: list[str]
    on_branch: str
    standby_ready: bool

    def to_json(self) -> dict[str, object]:
        """Return it as `--json` and the API show it."""
        return {"from" if name == "source" else name: value for name, value in self.to_dict().items()}


def plan(context: AgentContext, ledger: Ledger, target: str) -> RollbackPlan:
    """Say what a rollback would do, doing nothing; raise AgentctlError where there is nothing to go back to."""
    world = process.observe(context, ledger)
    goal = world.generation(int(target)) if target else policy.choose_manual_target(world)
    if goal is None:
        raise AgentctlError("there is no other good generation to go back to", "agentctl generations")
    head, branch = context.repository.head()
    return RollbackPlan(
        source=world.launch.generation if world.launch else None,
        to=goal.number,
        commit=goal.commit_id,
        branch=context.config.agent.branch,
        head=head,
        snapshot=goal.snapshot,
        restores=context.config.state.restore,
        keeps=context.config.state.keep,
        commits_undone=_commits(context, goal.commit_id, head),
        uncommitted=_uncommitted(context),
        on_branch=branch,
        standby_ready=context.slots.standby_note().get("generation") == goal.number,
    )


def _commits(context: AgentContext, good: str, head: str) -> list[str]:
    if not (good and head):
        return []
    listed = context.repository.git.run("log", "--format=%h %s", "-n", "50", f"{good}..{head}", check=False)
    return listed.text.splitlines() if listed.status == 0 else []


def _uncommitted(context: AgentContext) -> list[str]:
    """List changed and new files, judged by our own index so that nothing of the agent's runs."""
    git = context.staging.git
    git.run("add", "--all", "--ignore-errors", "--", ".", *but(context.staging.hidden), check=False)
    head, _ = context.repository.head()
    generation = context.repository.git.run("ls-tree", "-r", "-z", head, check=False)
    listed = git.run("ls-files", "-s", "-z")
    committed = {name: oid for oid, name in _entries(generation.stdout, 2)}
    return sorted(name for oid, name in _entries(listed.stdout, 1) if committed.get(name) != oid)


def _entries(raw: bytes, column: int) -> Iterator[tuple[str, str]]:
    for line in raw.decode("utf-8", "replace").split("\0"):
        left, tab, name = line.partition("\t")
        if tab:
            yield left.split()[column], name


def _poll(ask: Callable[[], A], what: str) -> A:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AgentctlError(f"waited {WAIT_SECONDS:g}s for {what} in vain", "agentctl status; agentctl logs")
        time.sleep(0.02)
