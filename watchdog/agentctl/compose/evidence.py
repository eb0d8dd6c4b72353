"""What the engine knows of a container that failed, and what differs in the agent's repository. Never in the way."""

from __future__ import annotations

import os
import stat

from .. import durable
from .. import lean_json as json
from ..errors import AgentctlError
from . import choices
from .place import Place

LOG_LINES = 400
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", ".env")
LARGEST = 1 << 20


def of_container(station, *, wants_lines: bool) -> tuple[dict, list[str]]:
    """Return what the engine says of the agent's container, and its last lines where nobody else has them.

    Of what `docker inspect` tells only this is kept: the variables in it hold secrets.
    """
    try:
        place = Place(station)
        found = place.facts()
        if not found:
            return {"problem": "the container is gone"}, []
        state = found["State"]
        facts = {
            "id": found["Id"],
            "name": found["Name"].lstrip("/"),
            "image": found["Image"],
            "status": state["Status"],
            "exit_status": state["ExitCode"],
            "out_of_memory": state["OOMKilled"],
            "error": state["Error"],
            "started_at": state["StartedAt"],
            "ended_at": state["FinishedAt"],
            "health": state.get("Health", {}).get("Status", ""),
        }
        return facts, _lines(place, found) if wants_lines else []
    except (AgentctlError, OSError, KeyError) as error:
        return {"problem": getattr(error, "message", "") or str(error)}, []


def _lines(place: Place, found: dict) -> list[str]:
    said = place.engine.run(
        "container", "logs", "--tail", str(LOG_LINES), "--since", found["State"]["StartedAt"], found["Id"], check=False
    )
    return (said.stdout + said.stderr).decode("utf-8", "replace").splitlines()


# -- files of the admin's that the agent has, too -----------------------------------------------------------------


def remember_files(station) -> None:
    """Keep what the repository has of such files at adoption, so that only a change is told."""
    durable.write(_seen_path(station), json.dumps(_of_repository(station.code_dir)).encode(), 0o600)


def strays(station) -> str:
    """Say which compose file or .env in the repository was changed and is not what counts, '' if none was."""
    file = station.config.compose.file or station.places.compose_path
    here = _of_repository(station.code_dir)
    try:
        seen = json.loads(durable.read(_seen_path(station)) or b"{}")
    except (OSError, ValueError):
        seen = {}
    folder = os.path.dirname(file)
    counts = {name: _print_of(file if name != ".env" else f"{folder}/.env") for name in NAMES}
    changed = [name for name in NAMES if here.get(name) != seen.get(name) and here.get(name) != counts[name]]
    return choices.describe_strays(changed, folder)


def _seen_path(station) -> str:
    return f"{station.places.data_dir}/repository-files.json"


def _of_repository(code: str) -> dict[str, str]:
    found = {name: _print_of(f"{code}/{name}") for name in NAMES}
    return {name: told for name, told in found.items() if told}


def _print_of(path: str) -> str:
    """Return a fingerprint of a plain file, '' if it is none: the agent may have put anything there."""
    import hashlib

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        return "" if isinstance(error, FileNotFoundError) else "unreadable"
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            return "no plain file"
        return hashlib.sha256(os.read(fd, LARGEST)).hexdigest()
    finally:
        os.close(fd)
