"""Adopt a repository: settings, vault, ledger, first generation (blessed by hand), standby. Touches no file of it.

Where the slots have to be inside of it, git is told to ignore them: one line in .git/info/exclude.
"""

from __future__ import annotations

import os
import pwd
import shutil

from ..config import preset, toml_edit
from ..config.preset import Preset
from ..core import durable
from ..core.errors import AgentctlError
from ..core.identity import Identity, find_identity
from ..core.paths import BESIDE, INSIDE, MOUNTED, SYSTEM, AgentPaths, slots_dir_of
from ..generations import lifecycle
from ..generations.agent_context import AgentContext
from ..generations.agent_repo import check_adoptable, why_not_whole
from ..generations.vault import Vault, create_bare
from ..host.mount_namespace import mount_points
from ..ledger import writers
from ..ledger.database import Ledger, LedgerDamaged
from ..ledger.models import Generation
from ..state import agent_state


def adopt(
    paths: AgentPaths,
    code_dir: str,
    argv: list[str],
    *,
    branch: str = "",
    user: str = "",
    state_dir: str = "",
    settings: dict | None = None,
    preset: Preset | None = None,
    image: str = "",
) -> AgentContext:
    """Adopt the repository at `code_dir`; raise AgentctlError, with nothing left behind, when it cannot be.

    `settings` are by section; those of a `preset` stand where they say nothing. `image` is one that is there already,
    for the runtime `compose`.
    """
    _refuse_second(paths)
    code_dir = os.path.realpath(code_dir)
    _refuse_path(code_dir)
    owner = _choose_user(paths, code_dir, user)
    state_dir = os.path.abspath(state_dir or paths.default_state_dir)
    if preset is not None:
        home = owner.home if owner else os.path.expanduser("~")
        argv, settings = _with_preset(preset.settings_for(state_dir, home), argv, settings or {})
    is_contained = (settings or {}).get("agent", {}).get("runtime") == "compose"
    _refuse_command(argv, code_dir, is_contained=is_contained)
    _, branch = check_adoptable(code_dir, branch, owner)
    _refuse_shared(code_dir)
    values = _values(paths, code_dir, argv, branch, owner, state_dir, settings or {})
    made = _Made()
    _set_aside_cut_off(paths)
    try:
        return _build(paths, values, made, image)
    except BaseException:
        made.undo()
        raise


def _with_preset(known: dict[str, dict], argv: list[str], settings: dict) -> tuple[list[str], dict]:
    """Put the preset's settings below those given, and a command of one's own in the place of the preset's."""
    merged = {section: {**known.get(section, {}), **settings.get(section, {})} for section in {**known, **settings}}
    agent = merged.setdefault("agent", {})
    argv, resume = preset.put_command(argv, agent.pop("command", []), agent.pop("resume_command", []))
    if resume:
        agent["resume_command"] = resume
    elif merged.get("resume", {}).get("message") == "argument":
        del merged["resume"]["message"]
    return argv, merged


def _build(paths: AgentPaths, values: dict, made: _Made, image: str) -> AgentContext:
    made.folder(paths.config_dir, 0o755)
    made.folder(paths.data_dir, 0o711)
    _make_state_dir(values["state"]["dir"], paths, values["agent"].get("user"), made)
    toml_edit.write(paths.config_path, values, 0o644)
    context = AgentContext.open(paths.name)
    made.folder(context.slots.folder, 0o711)
    context.slots.create()
    made.folder(paths.snapshots_dir, 0o700)
    made.folder(paths.incidents_dir, 0o700)
    context.vault.create()
    create_bare(paths.staging_path, context.user)
    context.repository.hide()
    if context.is_contained:
        from ..runtime.container import images

        images.write_files(context)
    with Ledger.create(paths.ledger_path) as ledger:
        generation = first_generation(context, ledger)
        if context.is_contained:
            images.first_image(context, ledger, generation, image)
        lifecycle.prepare_standby(context, ledger, generation.number)
    durable.sync_filesystem(paths.data_dir)  # a new repository's own files are synced by nobody else
    return context


def first_generation(context: AgentContext, ledger: Ledger) -> Generation:
    """Make what is there now generation 1, good because a human adopted it."""
    commit, branch = context.repository.head()
    capture = context.staging.capture(context.repository.git, commit, branch)
    generation = lifecycle.add_generation(
        context, ledger, capture, source="init", status="good", reason="adopted by hand"
    )
    if not context.vault.own_commit(generation):
        raise why_not_whole(context.repository, commit)
    snapshot = agent_state.take_snapshot(context)
    writers.set_snapshot(ledger, generation.number, snapshot)
    context.vault.keep_branches(context.repository.git)
    return generation


class _Made:
    """What an adoption has made so far, so that a failed one leaves nothing behind."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.above: list[str] = []

    def folder(self, path: str, mode: int) -> None:
        if not os.path.isdir(path):
            above = os.path.dirname(path)
            missing = []
            while not os.path.lexists(above):
                missing.append(above)
                above = os.path.dirname(above)
            self.above += reversed(missing)
            os.makedirs(path, mode=mode)
            self.folders.append(path)
        os.chmod(path, mode)

    def undo(self) -> None:
        for path in reversed(self.folders):
            shutil.rmtree(path, ignore_errors=True)
        for path in reversed(self.above):
            try:
                os.rmdir(path)
            except OSError:
                continue  # somebody else uses it by now


def _refuse_second(paths: AgentPaths) -> None:
    if not (os.path.exists(paths.config_path) or os.path.exists(paths.ledger_path)):
        return
    if not _was_cut_off(paths):
        raise AgentctlError(
            f"there is an agent called '{paths.name}' already ({paths.config_path})",
            "agentctl status shows it; adopt another one with --name OTHER",
        )


def choose_slots(code_dir: str) -> str:
    """Choose where standby and quarantine go: inside, where the code folder cannot be exchanged for another."""
    if code_dir in mount_points():
        return MOUNTED
    parent = os.path.dirname(code_dir)
    is_other_device = os.stat(code_dir).st_dev != os.stat(parent).st_dev  # a subvolume
    return INSIDE if is_other_device or not os.access(parent, os.W_OK | os.X_OK) else BESIDE


def _was_cut_off(paths: AgentPaths) -> bool:
    """Tell whether the adoption that is there never came to its first generation: then it is made again.

    Settings without a ledger and without a vault are somebody's own, or of a machine that lost its disk.
    """
    vault = Vault(paths.vault_path)
    if not os.path.isdir(vault.path):
        return os.path.isdir(paths.data_dir) and not os.path.exists(paths.ledger_path)
    try:
        with Ledger(paths.ledger_path) as ledger:  # one that only reads would leave SQLite's files behind
            return not ledger.generations()
    except LedgerDamaged:
        return not os.path.exists(f"{vault.path}/refs/agentctl") or not vault.refs("refs/agentctl/g/")


def _set_aside_cut_off(paths: AgentPaths) -> None:
    """Move away what an adoption that a power cut ended has left: files may be empty that look whole."""
    mark = f"cut-off-{os.urandom(3).hex()}"
    ours = (
        paths.config_path,
        paths.vault_path,
        paths.staging_path,
        *(f"{paths.ledger_path}{suffix}" for suffix in ("", "-wal", "-shm")),
    )
    for path in ours:
        if os.path.lexists(path):
            os.rename(path, f"{path}.{mark}")


def _refuse_path(code_dir: str) -> None:
    if any(character < " " or character == "\x7f" for character in code_dir):
        shown = code_dir.encode("unicode_escape").decode()
        raise AgentctlError(
            f"cannot adopt {shown}: its path holds a line break or another control character",
            "rename the folder: units, settings and messages hold one path a line",
        )


def _refuse_shared(code_dir: str) -> None:
    for slots, mark in ((slots_dir_of(code_dir), "/standby.json"), (slots_dir_of(code_dir, INSIDE), "/standby")):
        if os.path.lexists(slots + mark):
            raise AgentctlError(
                f"{code_dir} is adopted already: {slots} holds its standby",
                "one repository has one agent; move that folder away if the other agent is gone",
            )


def _refuse_command(argv: list[str], code_dir: str, *, is_contained: bool) -> None:
    if not argv:
        raise AgentctlError("no command to start the agent with", "agentctl init PATH -- python3 agent.py")
    if is_contained:
        return  # it has to be found in the container, not here
    program = argv[0]
    found = shutil.which(program) if "/" not in program else os.path.join(code_dir, program)
    if not found or not os.path.exists(found):
        raise AgentctlError(
            f"the agent's command '{program}' is not found" + (f" in {code_dir}" if "/" in program else " in PATH"),
            "give the command as you would type it in the agent's folder",
        )


def _choose_user(paths: AgentPaths, code_dir: str, user: str) -> Identity | None:
    """As root the agent runs as who owns its code; nobody else is to write there."""
    if paths.scope != SYSTEM:
        return None
    if user:
        return find_identity(user)
    if not os.path.isdir(code_dir):
        return None
    return find_identity(pwd.getpwuid(os.stat(code_dir).st_uid).pw_name)


def _make_state_dir(path: str, paths: AgentPaths, user: str | None, made: _Made) -> None:
    if os.path.lexists(path) and not os.path.isdir(path):
        raise AgentctlError(f"the state folder {path} is a file", "choose another one with --state-dir")
    if not os.path.isdir(path):
        try:
            made.folder(path, 0o755)
        except OSError as error:
            raise AgentctlError(
                f"the state folder {path} cannot be made: {error.strerror}", "choose another one with --state-dir"
            ) from error
        if paths.scope == SYSTEM and user:
            identity = find_identity(user)
            os.chown(path, identity.uid, identity.gid)


def _values(paths, code_dir, argv, branch, owner, state_dir, settings) -> dict:
    agent = {"name": paths.name, "code": code_dir, "command": argv, "branch": branch}
    if owner is not None:
        agent["user"] = owner.name
    if (slots := choose_slots(code_dir)) != BESIDE:
        agent["slots"] = slots
    values = {section: dict(content) for section, content in settings.items()}
    values["agent"] = {**agent, **values.get("agent", {})}
    values["state"] = {"dir": state_dir, **values.get("state", {})}
    return values


def note(context: AgentContext) -> list[str]:
    """Say what a new user should know after an adoption."""
    lines = [f"adopted {context.code_dir} as '{context.paths.name}'; settings: {context.paths.config_path}"]
    if context.user is not None and context.user.uid == 0:
        lines.append(
            "the agent runs as root because root owns its code; 'chown -R USER' it and "
            "'agentctl config set agent.user USER' to give it less"
        )
    if context.slots.is_inside:
        why = "is a mount point" if context.slots.is_mounted else "cannot be exchanged for another"
        lines.append(
            f"its folder {why}, so a rollback moves it entry by entry; standby and quarantine are in "
            f"{context.slots.folder}, which git is told to ignore"
        )
    return lines
