"""The image of a generation: find it, build it from the vault, bring it back. Nothing here ever removes an image."""

from __future__ import annotations

import os
import shutil

from ...core import durable, shipped
from ...core.errors import AgentctlError, CannotBuild, CannotGoOn, CommandFailed, NoRoomForImage, is_full_disk
from ...ledger import writers
from ...ledger.database import Ledger
from ...ledger.models import Generation
from . import compose_project, container_rules
from .compose_project import ComposeProject
from .docker import EngineAway

FIXED = "fixed"  # the inputs of an image that is not built here
SAID = 1500


class ImageGone(CannotGoOn):
    """The image of a generation is not there and cannot be made again."""


def inputs_of(context, generation: Generation) -> str:
    """Return what an image is built from, as one id: the same id means the same image."""
    settings = context.config.compose
    if not settings.dockerfile:
        return FIXED
    if not generation.vault_commit:
        return generation.image_inputs
    git = context.vault.git
    listed = git.run("ls-tree", "-r", "-z", generation.vault_commit, "--", settings.dockerfile, *settings.inputs)
    told = listed.stdout + f"\0{settings.dockerfile}\0{settings.base_image}".encode()
    return git.run("hash-object", "--stdin", stdin=told).text


def find(place: ComposeProject, ledger: Ledger, generation: Generation) -> str:
    """Return the id of the generation's image if the engine has it, else ''; what was found out is put on record."""
    if generation.image and place.engine.image(generation.image):
        return generation.image
    if generation.number == 0:  # after a rescue, without a ledger
        found = place.engine.image(f"{place.image_name}:lkg")
        return found["Id"] if found else ""
    inputs = inputs_of(place.context, generation)
    others = [row for row in ledger.generations() if row.image and row.image_inputs == inputs]
    present = frozenset(i for i in {row.image for row in others} if place.engine.image(i))
    how, image = container_rules.choose_image(generation, inputs, others, present, _tagged(place, generation, inputs))
    if how == container_rules.BUILD:
        return ""
    record(place, ledger, generation, image, inputs)
    return image


def ensure(
    place: ComposeProject, ledger: Ledger, generation: Generation, *, is_recovery: bool, say=print, on_idle=None
) -> str:
    """Return the id of the generation's image, built if it has to be.

    In a recovery nothing is pulled and nothing is taken from the cache. `on_idle` is called every second of a build,
    and ends it where it returns true. Raise CannotBuild, or ImageGone in a recovery.
    """
    found = find(place, ledger, generation)
    if found:
        return found
    number = generation.number
    say(
        f"agentctl: building the image of generation {number}"
        f"{' anew, from the vault: it is gone' if is_recovery else ''}"
    )
    try:
        image, inputs = _build(place, generation, is_recovery, on_idle)
    except EngineAway:
        raise
    except (AgentctlError, OSError) as error:
        if is_full_disk(error) and is_recovery:  # waited for; a candidate's image is done without instead
            raise
        if is_full_disk(error):
            raise NoRoomForImage(
                f"no room at the engine to build the image of generation {number}: {_said(error)}",
                "make room ('docker system df'); then this version may be started again",
            ) from error
        kind = ImageGone if is_recovery else CannotBuild
        what = "is gone, and cannot be built again" if is_recovery else "cannot be built"
        raise kind(
            f"the image of generation {number} {what}: {_said(error)}",
            f"docker load or docker pull it and tag it {place.image_name}:g{number}, then agentctl rollback {number}"
            if is_recovery
            else "",
        ) from error
    record(place, ledger, generation, image, inputs)
    return image


def of_commit(place: ComposeProject, ledger: Ledger, commit: str, repository) -> str:
    """Return the id of the image of a commit that is no generation yet: one from the same source, else a new one."""
    place.context.vault.take(commit, repository)
    trial = Generation(
        number=0,
        vault_commit=commit,
        commit_id=commit,
        tree="",
        branch="",
        status="trial",
        source="trial",
        created_at=0.0,
        tries_left=0,
    )
    inputs = inputs_of(place.context, trial)
    known = [row.image for row in ledger.generations() if row.image and row.image_inputs == inputs]
    found = next((image for image in reversed(known) if place.engine.image(image)), "") or place.engine.labelled(
        _labels(place.context, inputs)
    )
    if found:
        return found
    return _build(place, trial, False, tag=f"{place.image_name}:try-{commit[:12]}")[0]


def record(place: ComposeProject, ledger: Ledger, generation: Generation, image: str, inputs: str) -> None:
    """Put a generation's image on record, and give it the generation's tag."""
    number = generation.number
    place.engine.tag(image, f"{place.image_name}:g{number}")
    with ledger.transaction():
        writers.set_image(ledger, number, image, inputs)
        if image != generation.image:
            ledger.event("image", f"generation {number}: image {image.removeprefix('sha256:')[:12]}")


def mark_good(place: ComposeProject, ledger: Ledger, number: int) -> None:
    """Tag the image of the last known good generation."""
    generation = ledger.generation(number)
    if generation.image and place.engine.image(generation.image):
        place.engine.tag(generation.image, f"{place.image_name}:lkg")


def _tagged(place: ComposeProject, generation: Generation, inputs: str) -> str:
    """Return the image behind the generation's own tag, else any that was built from the same source."""
    found = place.engine.image(f"{place.image_name}:g{generation.number}")
    if found is not None:
        label = (found["Config"].get("Labels") or {}).get("agentctl.inputs")
        is_ours = label == inputs and inputs != FIXED
        is_put_back = found["Id"] == generation.image
        had_one = generation.image or inputs == FIXED  # else the tag is one of another time
        by_hand = not label and had_one  # tagged by a human, who was told to
        if is_ours or is_put_back or by_hand:
            return found["Id"]
    # one that a trial was held with, most likely
    return place.engine.labelled(_labels(place.context, inputs)) if inputs not in ("", FIXED) else ""


def _labels(context, inputs: str) -> dict[str, str]:
    return {"agentctl.agent": context.paths.name, "agentctl.inputs": inputs}


def _build(
    place: ComposeProject, generation: Generation, is_recovery: bool, on_idle=None, tag: str = ""
) -> tuple[str, str]:
    """Build an image from the vault; return its id and what it was built from."""
    context, settings, number = place.context, place.settings, generation.number
    if not settings.dockerfile:
        raise AgentctlError("no Dockerfile is set (compose.dockerfile), so no image is built here")
    if not generation.vault_commit:
        raise AgentctlError(f"generation {number} was pruned; the vault has no source of it")
    folder = f"{context.paths.data_dir}/builds/{tag.rpartition(':')[2] or f'g{number}'}"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700)
    try:
        context.vault.lay_out(generation.vault_commit, folder)
        _refuse_links(folder, (settings.dockerfile, ".dockerignore"))
        arguments = {"BASE_IMAGE": settings.base_image} if settings.base_image else {}
        if is_recovery:
            _refuse_pull(place, f"{folder}/{settings.dockerfile}", arguments)
        inputs = inputs_of(context, generation)
        image = place.engine.build(folder, settings.dockerfile, tag or f"{place.image_name}:g{number}",
                                   labels=_labels(context, inputs), arguments=arguments, no_cache=is_recovery,
                                   limit_seconds=settings.build_timeout, on_idle=on_idle)  # fmt: skip
        return image, inputs
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_links(folder: str, names: tuple[str, ...]) -> None:
    """docker itself reads these two, as us: a link would have it read a file of ours."""
    for name in names:
        path = folder
        for part in name.split("/"):
            path = f"{path}/{part}"
            if os.path.islink(path):
                raise AgentctlError(f"{name} is a link; it has to be a file of the repository")


def _refuse_pull(place: ComposeProject, dockerfile: str, arguments: dict[str, str]) -> None:
    """A recovery asks no registry: every image that the build begins from has to be here."""
    with open(dockerfile, encoding="utf-8", errors="replace") as file:
        wanted = container_rules.bases(file.read(), arguments)
    missing = [image for image in wanted if place.engine.image(image) is None]
    if missing:
        raise AgentctlError(f"it begins from {', '.join(missing)}, which is not here; a recovery pulls nothing")


def _said(error: Exception) -> str:
    if isinstance(error, CommandFailed):
        text = (error.stderr or error.stdout).decode("utf-8", "replace").strip()
        return text[-SAID:] or str(error)
    return getattr(error, "message", "") or str(error)


# -- beginning -------------------------------------------------------------------------------------
# The beginning of an agent in a container: the admin's files, the first image.


SHIPPED = ("agentctl.docker", "compose.yaml")
CONFIG_FILES = (".env", "secret.env")


def write_files(context) -> None:
    """Put the compose file and the agent's settings where the admin has them; what is there stays."""
    place = ComposeProject(context)
    _refuse_others(place)
    if not os.path.exists(place.file):
        if context.config.compose.file:
            raise AgentctlError(f"the compose file {place.file} is missing", "name one that is there, or none")
        durable.write(place.file, filled_in(_shipped(), place.variables(f"{place.image_name}:lkg")).encode(), 0o644)
    for name in CONFIG_FILES:
        path = f"{place.folder}/{name}"
        if not os.path.lexists(path):
            durable.write(path, b"", 0o600, context.owner)
    compose_project.remember_files(context)


def _refuse_others(place: ComposeProject) -> None:
    """A project of that name may be somebody else's: whatever runs in it would be ended, and replaced."""
    for container in place.engine.containers(place.project, place.service):
        facts = place.engine.inspect(container)
        if place.context.code_dir not in [mount.get("Source") for mount in facts["Mounts"]]:
            raise AgentctlError(
                f"the engine has container {facts['Name'].lstrip('/')} in project '{place.project}', and it is none of "
                f"{place.context.code_dir}",
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


def first_image(context, ledger: Ledger, generation: Generation, name: str) -> None:
    """Have the image of the adopted generation: the one that is named, else built from the repository."""
    place = ComposeProject(context)
    if name:
        found = place.engine.image(name)
        if found is None:
            raise AgentctlError(
                f"the engine at {place.engine.address} has no image '{name}'",
                "docker build or docker load it first; without --image it is built from the repository",
            )
        record(place, ledger, generation, found["Id"], inputs_of(context, generation))
    else:
        ensure(place, ledger, generation, is_recovery=False)
    mark_good(place, ledger, generation.number)


def _shipped() -> str:
    try:
        return shipped.read(*SHIPPED)
    except OSError as error:
        raise AgentctlError(
            f"the shipped compose file is not installed: {error}", "name your own: --compose-file PATH"
        ) from None
