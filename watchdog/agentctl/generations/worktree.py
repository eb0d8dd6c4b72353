"""The agent's repository in ordinary branch work, through GitPython: branches, worktrees, tags, differences.

Every function opens the repository, does one thing and closes it (an open one keeps processes). To be called as
the agent's user only: git runs the repository's own hooks and filters here. Answers are JSON texts, so that they
come back from a process that took on that user.
"""

from __future__ import annotations

import contextlib
import json
import os

from ..core.errors import AgentctlError
from .git_folder import is_oid

TAG = "before"  # before/feature/x is where main was
LIMIT_SECONDS = 600
NOT_GITS_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
                "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES")  # fmt: skip


@contextlib.contextmanager
def _opened(folder: str):
    """Open a repository, and close it whatever happens; git's own errors become ours."""
    for name in NOT_GITS_OWN:  # of a hook that called us: they would name another repository
        os.environ.pop(name, None)
    os.environ.update(LC_ALL="C", GIT_TERMINAL_PROMPT="0", GIT_PYTHON_REFRESH="quiet")
    import git

    try:
        repository = git.Repo(folder)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
        raise AgentctlError(f"{folder} is not a git repository", "agentctl status; git status there") from error
    try:
        yield repository
    except git.GitCommandError as error:
        said = (error.stderr or error.stdout or "").strip().removeprefix("stderr:").strip(" \n'")
        what = " ".join(str(word) for word in error.command[1:4])
        raise AgentctlError(f"git {what} in {folder}: {said[-800:] or f'exit status {error.status}'}") from error
    finally:
        repository.close()


def start(code_dir: str, name: str, source: str, folder: str) -> str:
    """Make branch and worktree (or take up the branch that is there), tag the departure; return {base, branch_was}.

    Raise AgentctlError, with nothing left behind, if `source` is unknown or the branch is in use elsewhere.
    """
    with _opened(code_dir) as repository:
        git = repository.git
        departure = _resolve(git, source, code_dir)
        git.worktree("prune")
        was_there = _has(git, f"refs/heads/{name}")
        elsewhere = _worktree_of(git, name)
        if elsewhere and os.path.realpath(elsewhere) != os.path.realpath(folder):
            raise AgentctlError(
                f"branch '{name}' is checked out at {elsewhere} already",
                "work on it there, switch that to another branch, or choose another name",
            )
        base = git.merge_base(departure, f"refs/heads/{name}") if was_there else departure
        if not elsewhere:
            _make_worktree(git, name, base, folder, was_there)
        if not _has(git, f"refs/tags/{TAG}/{name}"):
            git.update_ref(f"refs/tags/{TAG}/{name}", base)
        return json.dumps({"base": base, "branch_was_there": was_there})


def _make_worktree(git, name: str, base: str, folder: str, was_there: bool) -> None:
    if os.path.lexists(folder):
        raise AgentctlError(
            f"cannot make the worktree {folder}: something is there",
            "move it away; 'git worktree list' shows whether git knows it",
        )
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    words = [folder, name] if was_there else ["-b", name, folder, base]
    git.worktree("add", "--quiet", *words, kill_after_timeout=LIMIT_SECONDS)


def look(code_dir: str, name: str, main: str, folder: str) -> str:
    """Return everything `change.Facts` holds."""
    with _opened(code_dir) as repository:
        git = repository.git
        head = _resolve(git, f"refs/heads/{name}", code_dir) if _has(git, f"refs/heads/{name}") else ""
        tip = _resolve(git, f"refs/heads/{main}", code_dir)
        live = git.symbolic_ref("--quiet", "HEAD", with_exceptions=False)
        counts = git.rev_list("--left-right", "--count", f"{tip}...{head}").split() if head else ["0", "0"]
        facts = {
            "head": head, "tree": git.rev_parse(f"{head}^{{tree}}") if head else "", "main": tip,
            "main_tree": git.rev_parse(f"{tip}^{{tree}}"), "behind": int(counts[0]), "ahead": int(counts[1]),
            "live_branch": live.removeprefix("refs/heads/"), "live_head": git.rev_parse("HEAD"),
            "live_dirty": _dirty(git), "code": code_dir,
        }  # fmt: skip
    is_there = os.path.isdir(folder) and os.path.lexists(f"{folder}/.git")
    facts |= {"has_worktree": is_there, "dirty": []}
    if is_there:
        with _opened(folder) as worktree:
            on = worktree.git.symbolic_ref("--quiet", "HEAD", with_exceptions=False)
            facts["dirty"] = _dirty(worktree.git)
            if on != f"refs/heads/{name}":
                raise AgentctlError(
                    f"the worktree {folder} has '{on.removeprefix('refs/heads/') or 'no branch'}' "
                    f"checked out, not '{name}'",
                    f"git -C {folder} switch {name}",
                )
    return json.dumps(facts)


def find_holders(code_dir: str, branches: list[tuple[str, str]], versions: list[tuple[str, str]]) -> str:
    """Return for each branch which of the versions hold it: {name: [commit, ...]}.

    `branches` are names with where they departed from: what has nothing of its own is held by nothing. `versions` are
    commits with the trees that ran; one of the branch's own tree that came later holds it without its commits (squash).
    """
    found = {}
    commits = [commit for commit, _ in versions]
    with _opened(code_dir) as repository:
        git = repository.git
        for name, base in branches:
            head = git.rev_parse("--verify", "--quiet", f"refs/heads/{name}^{{commit}}", with_exceptions=False)
            if not head or head == base or not commits:
                continue
            tree = git.rev_parse(f"{head}^{{tree}}")
            has: set[str] = set()
            later: set[str] = set()
            words = ["--topo-order", "--reverse", "--parents", "--ignore-missing", *commits, f"^{base}", "--"]
            for line in git.rev_list(*words).splitlines():
                commit, *parents = line.split()
                later.add(commit)
                if commit == head or not has.isdisjoint(parents):
                    has.add(commit)
            found[name] = [c for c, of in versions if c in has or (of == tree and c in later)]
    return json.dumps(found)


def _dirty(git) -> list[str]:
    """List what is in no commit: changed, staged, unmerged and new files that are not ignored."""
    raw = git.status("--porcelain=v1", "-z", "--untracked-files=normal", "--no-renames")
    return [entry[3:] for entry in raw.split("\0") if len(entry) > 3]


def changed_files(folder: str, base: str) -> str:
    """Return the names that HEAD of the worktree changes against where it left `base` (deleted ones left out)."""
    with _opened(folder) as repository:
        raw = repository.git.diff("--name-only", "-z", "--diff-filter=d", "--no-renames", f"{base}...HEAD")
        return json.dumps([name for name in raw.split("\0") if name])


def diff(code_dir: str, name: str, main: str, how: str) -> str:
    """Return the difference between where the branch left main and its head, as text."""
    with _opened(code_dir) as repository:
        if not _has(repository.git, f"refs/heads/{name}"):
            raise AgentctlError(f"the branch {name} is gone", "git branch --list lists what is there")
        words = ["--no-color", "--no-ext-diff", how]
        return repository.git(c="core.quotePath=false").diff(
            *words, f"refs/heads/{main}...refs/heads/{name}", strip_newline_in_stdout=False
        )


def merge_commit(code_dir: str, head: str, main: str, message: str) -> str:
    """Make the merge commit of a branch that has all of main: its tree is the branch's. No ref moves."""
    with _opened(code_dir) as repository:
        _give_identity(repository)
        return repository.git.commit_tree(f"{head}^{{tree}}", "-p", main, "-p", head, "-m", message)


def find_hooks(code_dir: str) -> str:
    """Return where git looks for hooks, whatever the settings of the repository, its owner or the machine say."""
    with _opened(code_dir) as repository:
        return str(repository.git.rev_parse("--path-format=absolute", "--git-path", "hooks"))


def is_ignored(folder: str, path: str) -> bool:
    """Tell whether git ignores a path in the worktree: a copy put there does not show as a change."""
    with _opened(folder) as repository:
        return bool(repository.ignored(path, f"{path}/"))


def remove_worktree(code_dir: str, folder: str) -> str:
    """Remove a worktree that holds nothing of its own; return '' or why it stays."""
    with _opened(code_dir) as repository:
        if not os.path.lexists(folder):
            repository.git.worktree("prune")
            return ""
        try:
            repository.git.worktree("remove", folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, it stays and we say why
            return str(getattr(error, "stderr", error)).strip()[-300:] or "git did not remove it"
    return ""


def _give_identity(repository) -> None:
    """A merge is a commit like any other: by who is configured, by agentctl where nobody is."""
    with repository.config_reader() as config:
        is_known = config.has_option("user", "email")
    if not is_known and "GIT_AUTHOR_EMAIL" not in os.environ:
        for who in ("AUTHOR", "COMMITTER"):
            os.environ.setdefault(f"GIT_{who}_NAME", "agentctl")
            os.environ.setdefault(f"GIT_{who}_EMAIL", "agentctl@localhost")


def _has(git, ref: str) -> bool:
    return bool(git.rev_parse("--verify", "--quiet", ref, with_exceptions=False))


def _resolve(git, revision: str, code_dir: str) -> str:
    """Return the commit that is meant: a branch before a tag of that name, which git would take."""
    is_full = revision.startswith("refs/") or is_oid(revision)
    names = [revision] if is_full else [f"refs/heads/{revision}", revision]
    words = ("--verify", "--quiet", "--end-of-options")
    asked = (git.rev_parse(*words, f"{name}^{{commit}}", with_exceptions=False) for name in names)
    commit = next(filter(None, asked), "")
    if not commit:
        known = git.for_each_ref("--format=%(refname:lstrip=2)", "--sort=-committerdate", "--count=8", "refs/heads")
        raise AgentctlError(
            f"there is no branch or commit '{revision}' in {code_dir}",
            f"its newest branches: {', '.join(known.split()) or 'none'}",
        )
    return commit.splitlines()[-1]


def _worktree_of(git, name: str) -> str:
    """Return where a branch is checked out, '' if nowhere."""
    return git.for_each_ref("--format=%(worktreepath)", f"refs/heads/{name}")
