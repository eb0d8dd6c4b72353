"""`change try` of an agent in a container: the candidate's image, folders for the copies, a process to ask the engine.

What the agent's user may write is made by the agent's user.
"""

from __future__ import annotations

import json
import os
import shutil

from ..compose import images
from ..compose.place import Place
from ..errors import AgentctlError


def is_wanted(changes) -> bool:
    """Tell whether the agent is in a container; raise AgentctlError for who may not talk to the engine."""
    station = changes.station
    if not station.is_contained:
        return False
    if station.places.scope == "system" and os.geteuid() != 0:
        raise AgentctlError(
            "a trial in a container needs Docker Engine, which the agent's user may not use",
            "as root: agentctl change try",
        )
    return True


def complete(changes, plan: dict, made: dict) -> dict:
    """Add what a trial in a container needs to the plan; return where plan and sockets are."""
    station = changes.station
    place = Place(station)
    with station.ledger() as ledger:
        image = images.of_commit(place, ledger, plan["commit"], station.repository.git)
    mark = os.urandom(3).hex()
    run = f"{os.path.dirname(station.places.runtime_dir)}/try-{mark}"
    os.makedirs(run, mode=0o711)
    whole = {
        **plan,
        "folder": made["folder"],
        "run": run,
        "image": image,
        "file": place.file,
        "project": f"{place.project}-try-{mark}",
        "log": f"{run}/log",
        "kept_log": plan["log"],
    }
    with open(f"{run}/plan.json", "w", encoding="utf-8") as file:
        json.dump(whole, file)
    return {**made, "plan": f"{run}/plan.json", "own_run": run}


def keep_log(changes, made: dict, path: str) -> None:
    """Hand the log over to the agent's own folder, and remove ours."""
    run = made["own_run"]
    try:
        with open(f"{run}/log", encoding="utf-8", errors="replace") as file:
            changes.as_agent(_write, path, file.read())
    except OSError:
        pass  # it ended before it said anything
    shutil.rmtree(run, ignore_errors=True)


def _write(path: str, text: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return ""
