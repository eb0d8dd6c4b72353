"""What a broken `.git` in quarantine still gives: its branches, tags, stashes, settings, worktrees, into the new one.

Objects come over as checked packs, so what is rotten stays behind; the broken one is read without its settings.
"""

from __future__ import annotations

import os

from .. import lean_json as json
from ..entries import relocate
from ..errors import AgentctlError, CommandFailed
from ..machine import command
from . import git_folder, git_tidy
from .git import Git, pipe_pack
from .repository import Repository

KINDS = ("refs/heads/", "refs/tags/", "refs/remotes/", "refs/notes/")
WHOLE = ("worktrees", "modules", "hooks", "info/exclude", "description", "lfs")  # go back as they are


def salvage(repository: Repository, broken: str, aside: str, branch: str, rescue: str) -> list[str]:
    """Bring over what the repository at `broken` has and the new one has not; return the names of what came.

    What would stand in the way of a ref that is there goes below the name `rescue`.
    """
    home = command.call_as(repository.user, git_folder.find_home, broken, repository.code_dir)
    if not home:
        return []
    found = json.loads(command.call_as(repository.user, _look, home, aside))
    source = Git(repository.git_dir, user=repository.user, is_agents=True)
    source.env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = f"{home}/objects"
    wanted = {name: oid for name, oid in found["refs"].items() if name.startswith(KINDS)}
    if found["head"]:
        wanted["HEAD"] = found["head"]
    got = _bring(repository, source, [*wanted.values(), *(oid for oid, _ in found["stashes"])])
    came = [name for name, oid in wanted.items() if oid in got and _put(repository, name, oid, branch, rescue)]
    stashes = [(oid, message) for oid, message in found["stashes"] if oid in got]
    came += _store_stashes(repository, stashes)
    if home == os.path.realpath(broken) and not os.path.islink(broken):
        _take_settings(repository, home)
        command.call_as(repository.user, _take_whole, home, repository.git_dir)
    return came


def _look(home: str, aside: str) -> str:
    """As the agent's user: take away what would make git wait, and read the refs and stashes."""
    git_tidy.open_modes(home)
    git_tidy.set_aside(
        home, aside, [*git_tidy.DERIVED, *git_folder.find_special(home), *git_folder.find_special_objects(home)]
    )
    stashes = git_folder.read_log(home, "refs/stash")
    top = git_folder.read_ref(home, "refs/stash")
    if top and (not stashes or stashes[-1][0] != top):
        stashes.append((top, "salvaged"))
    head = git_folder.read_ref(home, "HEAD") or git_folder.last_logged(home)
    return json.dumps({"refs": git_folder.read_refs(home), "head": head, "stashes": stashes})


def _bring(repository: Repository, source: Git, wanted: list[str]) -> set[str]:
    """Bring objects over, all at once or, where one is damaged, one by one; return those that are there."""
    wanted = list(dict.fromkeys(wanted))
    there = repository.git.run("for-each-ref", "--format=%(objectname)").text.split()
    try:
        pipe_pack(source, wanted, there, repository.git)
        return set(wanted)
    except CommandFailed:
        return {oid for oid in wanted if _brings(repository, source, oid, there)}


def _brings(repository: Repository, source: Git, oid: str, there: list[str]) -> bool:
    try:
        pipe_pack(source, [oid], there, repository.git)
        repository.git.run("rev-list", "--objects", "--quiet", oid)
    except CommandFailed:
        return False
    return True


def _put(repository: Repository, name: str, oid: str, branch: str, rescue: str) -> bool:
    """Make the ref; where another one is there already, or it would be the good branch's, under the rescue's name."""
    git = repository.git
    if name in ("HEAD", f"refs/heads/{branch}"):
        held = git.run("for-each-ref", "--contains", oid, "--count=1", "refs/heads", check=False)
        return bool(held.text) or _make(git, f"refs/heads/{rescue}-{'head' if name == 'HEAD' else 'branch'}", oid)
    shown = git.run("rev-parse", "--verify", "--quiet", name, check=False).text
    if shown == oid:
        return True
    if shown and git.run("merge-base", "--is-ancestor", shown, oid, check=False).status == 0:
        return git.run("update-ref", name, oid, shown, check=False).status == 0
    flat = name.split("/", 2)[2].replace("/", "-")
    return (not shown and _make(git, name, oid)) or _make(git, f"refs/heads/{rescue}-{flat}", oid)


def _make(git: Git, name: str, oid: str) -> bool:
    return git.run("update-ref", name, oid, "0" * len(oid), check=False).status == 0


def _store_stashes(repository: Repository, stashes: list[tuple[str, str]]) -> list[str]:
    """Put stashes back, oldest first, unless there are some already."""
    git = repository.git
    if not stashes or git.run("rev-parse", "--verify", "--quiet", "refs/stash", check=False).status == 0:
        return []
    for oid, message in stashes:
        git.run("update-ref", "--create-reflog", "-m", message, "refs/stash", oid, check=False)
    return ["refs/stash"]


def _take_settings(repository: Repository, home: str) -> None:
    """Give the new repository the remotes, branches and user of the old."""
    listed = repository.git.run(
        "config", "--file", f"{home}/config", "--no-includes", "--list", "-z", check=False, limit_seconds=10
    )
    text = git_tidy.compose_settings(listed.stdout.decode("utf-8", "surrogateescape"))
    command.call_as(repository.user, git_tidy.write, f"{repository.git_dir}/config", text)


def _take_whole(home: str, git_dir: str) -> None:
    """Move over what the new repository has not, entry by entry."""
    for name in WHOLE:
        source, target = f"{home}/{name}", f"{git_dir}/{name}"
        if not os.path.lexists(source) or (os.path.lexists(target) and os.path.isdir(target) and os.listdir(target)):
            continue
        if os.path.lexists(target) and not os.path.isdir(target):
            continue
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            relocate(source, target)
        except (OSError, AgentctlError):
            continue  # it stays in quarantine


def keep_launched(repository: Repository, vault: Git, commit: str, name: str) -> None:
    """Keep the commit that was launched on a branch of its own where no branch leads to it any more."""
    if not commit or repository.is_on_a_branch(commit):
        return
    if repository.lacks(commit) and vault.has_object(f"{commit}^{{commit}}"):
        pipe_pack(vault, [commit], [], repository.git)
    if not repository.lacks(commit):
        _make(repository.git, f"refs/heads/{name}", commit)


def _what_waits(home: str) -> str:
    return git_folder.what_hangs(home) or git_folder.find_waiting_object(home)


def put_submodule(repository: Repository, path: str, commit: str, rescue: str) -> None:
    """Put a submodule whose files came with the good tree on their commit; where it was goes onto a rescue branch."""
    folder = f"{repository.code_dir}/{path}"
    home = command.call_as(repository.user, git_folder.find_home, f"{folder}/.git", folder)
    if not home or command.call_as(repository.user, _what_waits, home):
        return
    git = Git(home, work_tree=folder, user=repository.user)
    head = git.run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False, limit_seconds=10).text
    if head == commit or not git.has_object(f"{commit}^{{tree}}"):
        return
    if head:
        _make(git, f"refs/heads/{rescue}", head)
    git.run("update-ref", "--no-deref", "HEAD", commit, check=False)
    git.run("read-tree", commit, check=False)
