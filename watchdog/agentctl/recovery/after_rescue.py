"""The launch after a rescue: the tree is a good one, the rollback routine is broken, the agent has to run all the same.

The guard does not count here, because what it waits for cannot end. Without a usable ledger a bare one on the
runtime folder serves this launch; the real one is left as it is for a human.
"""

from __future__ import annotations

import _sqlite3 as sqlite3
import os
import time

from ..errors import AgentctlError
from ..launching import launch, off_record, rebuild
from ..records import writers
from ..records.ledger import Ledger
from ..station import Station, new_id


def begin(station: Station, warn) -> tuple[Ledger, launch.Launch]:
    """Return a ledger and a launch, whatever state the records are in; take the rescue's mark away."""
    warn("agentctl: launching after a rescue: the rollback routine failed, 'agentctl logs' tells why")
    try:
        begun = _on_record(station, warn)
    except (AgentctlError, OSError, sqlite3.Error) as error:
        warn(f"agentctl: going on without the ledger: {error}")
        begun = off_record.begin(station)
    os.unlink(station.places.rescued_path)
    return begun


def _on_record(station: Station, warn) -> tuple[Ledger, launch.Launch]:
    ledger = rebuild.open_or_rebuild(station, warn)
    with ledger.transaction():
        writers.end_all(ledger, at=time.time())
        ledger.set_meta("switched", None)
        ledger.set_meta("halted", None)
        ledger.event("rescued", "the rollback routine failed; a good tree was put in place by the rescue")
    _put_head(station, launch.identify(station, ledger), warn)
    return ledger, launch.begin(station, ledger)


def _put_head(station: Station, generation: dict, warn) -> None:
    """Put the branch on the rescued tree's commit; what it was on is kept under a rescue branch."""
    repository, commit = station.repository, generation["commit_id"]
    try:
        head, branch, _ = repository.survey()
        if generation["status"] != "good" or not head or head == commit:
            return
        repository.put_on(
            station.config.agent.branch,
            commit,
            {f"rescue/{new_id()}": head},
            is_current=branch == station.config.agent.branch,
        )
        repository.take_index("")
    except AgentctlError as error:
        warn(f"agentctl: the branch could not be put back on {commit[:12]}: {error.message}")
