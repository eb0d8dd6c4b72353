"""Put the agent's repository on the target commit, mending or remaking it where it is broken.

A `.git` that will not take it goes to quarantine as it is, and a new one is made from the vault.
"""

from __future__ import annotations

import os

from . import lean_json as json
from .entries import relocate
from .errors import AgentctlError, CommandFailed


def put_on_target(attempt) -> str:
    """Put branch, HEAD and index on the target, the condemned head on a rescue branch; return what was done."""
    station, repository = attempt.station, attempt.station.repository
    branch = station.config.agent.branch
    commit = _commit_of(attempt)
    head = attempt.detail("evidence").get("head", "")
    rescue = {attempt.rescue_branch: head} if head and attempt.rung != "undo" else {}
    aside = f"{attempt.quarantine}/git-state"
    facts: dict[str, object] = {"branch": branch, "commit": commit}
    try:
        _make_aside_folder(attempt, aside)
        facts["set_aside"] = repository.set_aside(aside).splitlines()
        if repository.lacks(commit):
            repository.fetch_from(station.vault.git, [commit])
        is_current = attempt.detail("evidence").get("branch") == branch
        _put_on(attempt, branch, commit, rescue, is_current)
        repository.set_index_aside(aside)
    except (AgentctlError, OSError) as error:
        facts["remade"] = str(error)[:500]
        _remake(attempt, branch, commit)
    repository.hide()
    index = attempt.detail("make ready")["index"]
    repository.take_index(index)
    facts["rescue_branch"] = attempt.rescue_branch
    return json.dumps(facts)


def _put_on(attempt, branch: str, commit: str, rescue: dict[str, str], is_current: bool) -> None:
    """Put it there; where a branch `rescue` of the agent's is in the way, under a flat name."""
    repository, flat = attempt.station.repository, attempt.rescue_branch.replace("/", "-")
    try:
        repository.put_on(branch, commit, rescue, is_current=is_current)
    except CommandFailed:
        if not rescue:
            raise
        repository.put_on(branch, commit, {flat: rescue[attempt.rescue_branch]}, is_current=is_current)
        attempt.rescue_branch = flat


def _commit_of(attempt) -> str:
    """The agent's own commit where the vault has it; else the vault's commit of the same tree."""
    if attempt.rung == "undo":
        source = attempt.ledger.meta(f"undo {attempt.incident}")
        head = attempt.ledger.evidence(source).get("head")
        if head:
            return head
    target = attempt.target
    has_own = target["commit_id"] and attempt.station.vault.git.has_object(f"{target['commit_id']}^{{commit}}")
    return target["commit_id"] if has_own else target["vault_commit"]


def _make_aside_folder(attempt, folder: str) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if attempt.station.owner:
        os.chown(folder, *attempt.station.owner)


def _remake(attempt, branch: str, commit: str) -> None:
    """Quarantine what is there and make a repository of the target, with the branches the vault has kept."""
    station, repository = attempt.station, attempt.station.repository
    if os.path.lexists(repository.git_dir):
        target, number = f"{attempt.quarantine}/git-broken", 1
        while os.path.lexists(target):
            number += 1
            target = f"{attempt.quarantine}/git-broken.{number}"
        relocate(repository.git_dir, target)
    kept = {ref.removeprefix("refs/agentctl/kept/"): oid
            for ref, oid in station.vault.refs("refs/agentctl/kept/").items()}
    repository.remake(branch, station.vault.git, [commit, *dict.fromkeys(kept.values())])
    others = {ref.removeprefix("heads/"): oid for ref, oid in kept.items()
              if ref.startswith("heads/") and ref != f"heads/{branch}"}
    if "rescue" in others:
        attempt.rescue_branch = attempt.rescue_branch.replace("/", "-")
    others = {name.replace("/", "-") if name.startswith(f"{branch}/") else name: oid for name, oid in others.items()
              if not branch.startswith(f"{name}/")}  # git has no `a` beside `a/b`
    generation = attempt.ledger.last_launch()
    condemned = attempt.ledger.generation(generation["generation"]) if generation else None
    if condemned is not None and attempt.rung != "undo":
        repository.fetch_from(station.vault.git, [condemned["vault_commit"]])
        others[attempt.rescue_branch] = condemned["vault_commit"]
    repository.put_on(branch, commit, others)
    repository.put_tags({ref: oid for ref, oid in kept.items() if ref.startswith("tags/")})


