"""The beginning of an agent in a container: the admin's files, the first image."""

from __future__ import annotations

import os

from .. import durable, shipped
from ..errors import AgentctlError
from . import evidence, images
from .place import Place

SHIPPED = ("agentctl.docker", "compose.yaml")
CONFIG_FILES = (".env", "secret.env")


def write_files(station) -> None:
    """Put the compose file and the agent's settings where the admin has them; what is there stays."""
    place = Place(station)
    _refuse_others(place)
    if not os.path.exists(place.file):
        if station.config.compose.file:
            raise AgentctlError(f"the compose file {place.file} is missing", "name one that is there, or none")
        durable.write(place.file, filled_in(_shipped(), place.variables(f"{place.image_name}:lkg")).encode(), 0o644)
    for name in CONFIG_FILES:
        path = f"{place.folder}/{name}"
        if not os.path.lexists(path):
            durable.write(path, b"", 0o600, station.owner)
    evidence.remember_files(station)


def _refuse_others(place: Place) -> None:
    """A project of that name may be somebody else's: whatever runs in it would be ended, and replaced."""
    for container in place.engine.containers(place.project, place.service):
        facts = place.engine.inspect(container)
        if place.station.code_dir not in [mount.get("Source") for mount in facts["Mounts"]]:
            raise AgentctlError(
                f"the engine has container {facts['Name'].lstrip('/')} in project '{place.project}', and it is none of "
                f"{place.station.code_dir}",
                "take another name (agentctl --name NAME init), or remove that container",
            )


def filled_in(text: str, variables: dict[str, str]) -> str:
    """Put this agent's values in the place of the shipped defaults, for people who call Compose themselves."""
    for name, value in variables.items():
        before, opened, rest = text.partition(f"${{{name}:-")
        done = ""
        while opened:
            default, _, rest = rest.partition("}")
            done += f"{before}{opened}{value or default}}}"
            before, opened, rest = rest.partition(f"${{{name}:-")
        text = done + before
    return text


def first_image(station, ledger, generation: dict, name: str) -> None:
    """Have the image of the adopted generation: the one that is named, else built from the repository."""
    place = Place(station)
    if name:
        found = place.engine.image(name)
        if found is None:
            raise AgentctlError(
                f"the engine at {place.engine.address} has no image '{name}'",
                "docker build or docker load it first; without --image it is built from the repository",
            )
        images.record(place, ledger, generation, found["Id"], images.inputs_of(station, generation))
    else:
        images.ensure(place, ledger, generation, is_recovery=False)
    images.mark_good(place, ledger, generation["number"])


def _shipped() -> str:
    try:
        return shipped.read(*SHIPPED)
    except OSError as error:
        raise AgentctlError(
            f"the shipped compose file is not installed: {error}", "name your own: --compose-file PATH"
        ) from None
