"""A candidate's view of the machine while it is on trial: the running agent's state, code and doors are out of reach.

The paths stay: where the state was is the copy, where the doors were is nothing, the running code can be read only,
and what is written where other state lies (`state.extra`) goes aside. Where the kernel does not allow that, the
candidate is kept away by its variables alone, and the trial says so.
"""

from __future__ import annotations

import os

from ..host import mount_namespace
from ..state.snapshots import snapshot
from ..state.snapshots.patterns import fixed_folder


def seclude(plan: dict) -> str:
    """Close off this process and all that it starts; return '' or why it could not be done."""
    try:
        mount_namespace.enter()
        for number, folder in enumerate(outside(plan["extra"])):
            mount_namespace.write_apart(folder, f"{plan['run']}/outside-{number}")
        for real, stands_in in ((plan["state"], f"{plan['folder']}/state"), (plan["doors"], f"{plan['folder']}/doors")):
            if os.path.isdir(real):
                os.makedirs(stands_in, mode=0o700, exist_ok=True)
                mount_namespace.put_over(stands_in, real)
        mount_namespace.make_read_only(plan["code"], [path for path in plan["in_code"] if os.path.exists(path)])
    except OSError as error:
        return f"{error.filename or 'the kernel'}: {error.strerror}"
    return ""


def outside(patterns: list[str]) -> list[str]:
    """List the folders in which patterns look for state outside the state folder, none inside another."""
    found = sorted({fixed_folder(pattern)[0] for pattern in patterns})
    there = [folder for folder in found if os.path.isdir(folder)]
    return [f for f in there if not any(f.startswith(f"{other.rstrip('/')}/") for other in there)]


def take_state(plan: dict, extra: list[str]) -> None:
    """Snapshot the state as it is, databases included."""
    if os.path.isdir(plan["state"]):
        snapshot.take(plan["state"], f"{plan['folder']}/snapshots", "1", extra=extra)


def bring_state(plan: dict, extra: list[str]) -> None:
    """Make the copy of the state from its snapshot; what lies outside goes to where it was, which is aside here."""
    root, copy = f"{plan['folder']}/snapshots", f"{plan['folder']}/state"
    os.makedirs(copy, mode=0o755, exist_ok=True)
    if snapshot.list_ids(root):
        snapshot.restore(root, "1", copy, ["*"], f"{plan['folder']}/replaced", extra=extra, keep=[])
