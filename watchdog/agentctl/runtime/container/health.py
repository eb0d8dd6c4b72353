"""Inside a container: is the agent well? Asked by the engine's health check, so it costs little. Reads two files."""

from __future__ import annotations

import os
import time

from ...core import fast_json
from ...core.errors import EXIT_DONE, EXIT_NOT_WELL
from .. import status_file
from .container_rules import is_well
from .entrypoint import VARIABLE


def main(*, as_json: bool = False) -> int:
    """Print whether the launch in this container has a fresh heartbeat; return 0 if it has, else 3."""
    folder = os.environ.get(VARIABLE, "")
    launch, live = status_file.read(f"{folder}/launch.json"), status_file.read(f"{folder}/live.json")
    why_not = is_well(live, launch, time.time())
    facts = {
        "well": not why_not,
        "why": why_not,
        "launch_id": launch.get("launch_id"),
        "generation": live.get("generation"),
        "phase": live.get("phase"),
        "last_heartbeat_at": live.get("last_heartbeat_at"),
    }
    said = why_not or f"generation {facts['generation']}: {facts['phase']}, its heartbeat is fresh"
    os.write(1, (fast_json.dumps(facts) if as_json else said).encode() + b"\n")
    return EXIT_NOT_WELL if why_not else EXIT_DONE
