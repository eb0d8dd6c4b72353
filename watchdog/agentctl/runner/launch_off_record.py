"""A launch without the ledger, or after a rescue: the agent runs as it is, and nothing on record is lost.

After a rescue, and beside the records of a newer agentctl. A bare ledger on the runtime folder serves the launch.
"""

from __future__ import annotations

import _sqlite3 as sqlite3
import os
import time

from ..config.context import boot_id, new_id
from ..core.errors import AgentctlError, LaunchRefused, TooNew, in_words
from ..generations import lifecycle, rebuild_ledger
from ..generations.agent_context import AgentContext
from ..ledger import models, writers
from ..ledger.database import Ledger
from ..ledger.models import CurrentLaunch, Generation, Launch
from . import launch

PAUSE_SECONDS = 5.0  # from a launch that failed to the next: nobody counts the failures


def begin_off_record(context: AgentContext) -> tuple[Ledger, CurrentLaunch]:
    """Return a bare ledger and a launch of what is at the agent's path."""
    path = _path(context)
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    ledger, now, launch_id = Ledger.create(path), time.time(), new_id()
    writers.add_generation(
        ledger,
        0,
        vault_commit="",
        commit_id=_head(context),
        tree="",
        branch=context.config.agent.branch,
        status="good",
        source="rescue",
        created_at=now,
        blessed_at=now,
        tries_left=1,
    )
    writers.begin_launch(ledger, launch_id, 0, at=now, boot_id=boot_id())
    generation = ledger.generation(0)
    assert generation is not None
    return ledger, CurrentLaunch(id=launch_id, generation=generation, snapshot="", incident="", started_at=now)


def begin_beside(context: AgentContext, newer: TooNew, warn) -> tuple[Ledger, CurrentLaunch]:
    """Begin a launch beside records that are too new for us, after a pause where the last one has just failed."""
    if context.slots.is_moving:
        raise LaunchRefused("a switch of the trees is under way", "the recovery process finishes it")
    warn(f"agentctl: launching what is there, and no rollback until that is mended: {in_words(newer)}")
    last = _last_launch(context)
    if last is not None and last.end not in (models.STOPPED, models.ASKED):
        time.sleep(max(0.0, min(PAUSE_SECONDS, last.started_at + PAUSE_SECONDS - time.time())))
    return begin_off_record(context)


def _head(context: AgentContext) -> str:
    """Return the commit, '' where the repository does not say: in the middle of a rollback there is none here."""
    try:
        return context.repository.head()[0]
    except (AgentctlError, OSError):
        return ""


def _last_launch(context: AgentContext) -> Launch | None:
    try:
        with Ledger(_path(context)) as ledger:
            return ledger.last_launch()
    except (AgentctlError, OSError, sqlite3.Error):
        return None


def _path(context: AgentContext) -> str:
    return f"{context.paths.runtime_dir}/rescue-ledger.db"


# -- after rescue ----------------------------------------------------------------------------------
# The launch after a rescue: the tree is a good one, the recovery process is broken, the agent has to run all the
# same.
# The guard does not count here, because what it waits for cannot end. Without a usable ledger a bare one on the
# runtime folder serves this launch; the real one is left as it is for a human.


def begin_after_rescue(context: AgentContext, warn) -> tuple[Ledger, CurrentLaunch]:
    """Return a ledger and a launch, whatever state the records are in; take the rescue's mark away."""
    warn("agentctl: launching after a rescue: the recovery process failed, 'agentctl logs' tells why")
    try:
        begun = _on_record(context, warn)
    except (AgentctlError, OSError, sqlite3.Error) as error:
        warn(f"agentctl: going on without the ledger: {error}")
        begun = begin_off_record(context)
    os.unlink(context.paths.rescued_path)
    return begun


def _on_record(context: AgentContext, warn) -> tuple[Ledger, CurrentLaunch]:
    ledger = rebuild_ledger.open_or_rebuild(context, warn)
    with ledger.transaction():
        writers.end_all(ledger, at=time.time())
        ledger.set_meta("switched", None)
        ledger.set_meta("halted", None)
        ledger.event("rescued", "the recovery process failed; a good tree was put in place by the rescue")
    _put_head(context, lifecycle.identify(context, ledger), warn)
    return ledger, launch.begin(context, ledger)


def _put_head(context: AgentContext, generation: Generation, warn) -> None:
    """Put the branch on the rescued tree's commit; what it was on is kept under a rescue branch."""
    repository, commit = context.repository, generation.commit_id
    try:
        head, branch, _ = repository.survey()
        if generation.status != "good" or not head or head == commit:
            return
        repository.put_on(
            context.config.agent.branch,
            commit,
            {f"rescue/{new_id()}": head},
            is_current=branch == context.config.agent.branch,
        )
        repository.take_index("")
    except AgentctlError as error:
        warn(f"agentctl: the branch could not be put back on {commit[:12]}: {error.message}")
