"""Put the agent's repository on the target commit, mending or remaking it where it is broken.

A `.git` that will not take it goes to quarantine as it is, and a new one is made from the vault.
"""

from __future__ import annotations

import os

from ..core import fast_json
from ..core.errors import AgentctlError, CommandFailed
from . import repair_git_folder
from .move_entries import relocate


def put_on_target(attempt) -> str:
    """Put branch, HEAD and index on the target, the condemned head on a rescue branch; return what was done."""
    context, repository = attempt.context, attempt.context.repository
    branch = context.config.agent.branch
    commit = _commit_of(attempt)
    aside = f"{attempt.quarantine}/git-state"
    facts: dict[str, object] = {"branch": branch, "commit": commit}
    try:
        _make_aside_folder(attempt, aside)
        found = repository.tidy(aside, branch, is_thorough=not attempt.detail("evidence").get("head"))
        facts.update({name: found[name] for name in ("set_aside", "misled") if found[name]})
        facts["head"] = _head_of(attempt, found, attempt.detail("evidence").get("head", ""))
        if found["misled"]:
            repository.repair_settings(aside)
        if repository.lacks(commit):
            repository.fetch_from(context.vault.git, [commit])
        rescue = _choose_rescued(attempt, found, facts["head"], commit)
        is_current = attempt.detail("evidence").get("branch") == branch
        rescue = _put_on(attempt, commit, rescue, is_current, aside, found)
        facts["head"] = rescue.get(attempt.rescue_branch, "")
        repository.set_index_aside(aside)
    except (AgentctlError, OSError) as error:
        facts["remade"] = str(error)[:500]
        _remake(attempt, branch, commit)
    repository.hide()
    index = attempt.detail("make ready")["index"]
    repository.take_index(index)
    facts["rescue_branch"] = attempt.rescue_branch
    return fast_json.dumps(facts)


def _head_of(attempt, found: dict, told: str) -> str:
    """The condemned head: as git told, else as the files tell, else as it was when it was launched."""
    if told or attempt.rung == "undo":
        return told
    for oid in (found["head"], found["branch_at"], found["logged"]):
        if oid and not attempt.context.repository.lacks(oid):
            return oid
    row = attempt.ledger.incident(attempt.incident)
    source = attempt.ledger.generation(row.generation_from) if row.generation_from else None
    return source.commit_id if source else ""


def _choose_rescued(attempt, found: dict, head: str, commit: str) -> dict[str, str]:
    """Name the branches that keep what would be on none: the head, what the branch had, what operations put away."""
    if attempt.rung == "undo":
        return {}
    rescue = {attempt.rescue_branch: head} if head else {}
    loose = {"branch": found["branch_at"], "logged": _logged_apart(attempt, found, head), **found["anchors"]}
    rescue.update(
        {f"{attempt.rescue_branch}-{name}": oid for name, oid in loose.items() if oid not in ("", head, commit)}
    )
    return rescue


def _logged_apart(attempt, found: dict, head: str) -> str:
    """The commit that HEAD had last by its log, where it was taken off every branch behind git's back; else ''."""
    logged, repository = found["logged"], attempt.context.repository
    if logged in ("", head, found["branch_at"]) or repository.lacks(logged) or repository.is_on_a_branch(logged):
        return ""
    return logged


def _put_on(attempt, commit: str, rescue: dict[str, str], is_current: bool, aside: str, found: dict) -> dict[str, str]:
    """Put it there; where something is in the way, mend what git stumbles over, keep what can be; return what was."""
    repository, branch = attempt.context.repository, attempt.context.config.agent.branch
    try:
        repository.put_on(branch, commit, rescue, is_current=is_current)
        return rescue
    except AgentctlError:
        pass
    if not repository.is_usable:
        repository.repair_settings(aside)
    repository.repair_refs(aside)
    rescue = {name: oid for name, oid in rescue.items() if not repository.lacks(oid)}
    if attempt.rescue_branch not in rescue and (head := _head_of(attempt, found, "")):
        # A branch that leads to nothing told git the other one.
        rescue = {attempt.rescue_branch: head, **{name: oid for name, oid in rescue.items() if oid != head}}
    try:
        repository.put_on(branch, commit, rescue)
        return rescue
    except CommandFailed:
        if not rescue:
            raise
        flat = {name.replace("/", "-"): oid for name, oid in rescue.items()}  # a branch `rescue` is in the way
        repository.put_on(branch, commit, flat)
        attempt.rescue_branch = attempt.rescue_branch.replace("/", "-")
        return flat


def _commit_of(attempt) -> str:
    """The agent's own commit where the vault has it; else the vault's commit of the same tree."""
    if attempt.rung == "undo":
        source = attempt.ledger.meta(f"undo {attempt.incident}")
        head = attempt.ledger.evidence(source).get("head")
        if head:
            return head
    target = attempt.target
    return attempt.context.vault.own_commit(target) or target.vault_commit


def _make_aside_folder(attempt, folder: str) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if attempt.context.owner:
        os.chown(folder, *attempt.context.owner)


def _remake(attempt, branch: str, commit: str) -> None:
    """Quarantine what is there and make a repository of the target, with the branches the vault has kept."""
    context, repository = attempt.context, attempt.context.repository
    if os.path.lexists(repository.git_dir):
        broken = repair_git_folder.free_name(f"{attempt.quarantine}/git-broken")
        relocate(repository.git_dir, broken)
    kept = {
        ref.removeprefix("refs/agentctl/kept/"): oid for ref, oid in context.vault.refs("refs/agentctl/kept/").items()
    }
    repository.remake(branch, context.vault.git, [commit, *dict.fromkeys(kept.values())])
    others = {
        ref.removeprefix("heads/"): oid
        for ref, oid in kept.items()
        if ref.startswith("heads/") and ref != f"heads/{branch}"
    }
    if "rescue" in others:
        attempt.rescue_branch = attempt.rescue_branch.replace("/", "-")
    others = {
        name.replace("/", "-") if name.startswith(f"{branch}/") else name: oid
        for name, oid in others.items()
        if not branch.startswith(f"{name}/")
    }  # git has no `a` beside `a/b`
    generation = attempt.ledger.last_launch()
    condemned = attempt.ledger.generation(generation.generation) if generation else None
    if condemned is not None and attempt.rung != "undo":
        repository.fetch_from(context.vault.git, [condemned.vault_commit])
        others[attempt.rescue_branch] = condemned.vault_commit
    repository.put_on(branch, commit, others)
    repository.put_tags({ref: oid for ref, oid in kept.items() if ref.startswith("tags/")})
