"""Damage inside the agent's repository: what fsck rejects goes aside, the vault and the broken `.git` fill in.

Works while the agent runs, beside it: nothing that is whole is touched.
"""

from __future__ import annotations

import os
import time
import zlib

from ..core import fast_json
from ..core.errors import AgentctlError, CommandFailed
from ..host import command
from . import git_folder, repair_git_folder
from .agent_repo import Repository
from .git import Git, pipe_pack, share_boundary
from .move_entries import relocate

FSCK_SECONDS = 300.0
DEEPEST = 8


def find(repository: Repository) -> str:
    """Return what is wrong with the repository, '' if nothing is."""
    special = command.call_as(repository.user, _find_waiting, repository.git_dir)
    if special:
        return f"{special} is no file"
    done = repository.git.run(
        "fsck", "--full", "--strict", "--no-dangling", "--no-progress", check=False, limit_seconds=FSCK_SECONDS
    )
    said = (done.stderr + done.stdout).decode("utf-8", "replace")
    is_hurt = any(line.startswith(("error", "fatal", "missing", "broken")) for line in said.splitlines())
    return said.strip()[-2000:] or "fsck fails" if done.status != 0 or is_hurt else ""


def repair(repository: Repository, vault: Git, known: list[str], aside: str) -> list[str]:
    """Move aside what is damaged and bring `known` ids from the vault; return the names of what went aside."""
    moved = command.call_as(repository.user, _set_objects_aside, repository.git_dir, aside).splitlines()
    repository.git.standstills = 0
    _unpack(repository, aside, moved)
    try:
        pipe_pack(vault, known, [], repository.git)
    except CommandFailed:  # one that the vault lost must not keep out the others
        for oid in known:
            _try(pipe_pack, vault, [oid], [], repository.git)
    refs = fast_json.loads(command.call_as(repository.user, _read, repository.git_dir))
    bad = [name for name, oid in refs.items() if not _is_whole(repository, oid)]
    moved += command.call_as(repository.user, _drop_refs, repository.git_dir, aside, fast_json.dumps(bad)).splitlines()
    for _ in range(DEEPEST):  # what names something that is gone is of no use, and then what names that
        hollow = [f"objects/{oid[:2]}/{oid[2:]}" for oid in _find_hollow(repository)]
        gone = command.call_as(
            repository.user, repair_git_folder.set_aside, repository.git_dir, aside, hollow
        ).splitlines()
        moved += gone
        if not gone:
            break
    return moved + _repair_logs(repository, aside)


def _find_hollow(repository: Repository) -> list[str]:
    """Name the objects that name a missing one."""
    done = repository.git.run(
        "fsck", "--full", "--no-dangling", "--no-progress", check=False, limit_seconds=FSCK_SECONDS
    )
    words = [line.split() for line in done.stdout.decode("utf-8", "replace").splitlines()]
    return [w[4] for w in words if w[:3] == ["broken", "link", "from"] and len(w) == 5 and git_folder.is_oid(w[4])]


def _try(function, *args) -> None:
    try:
        function(*args)
    except CommandFailed:
        return


def _find_waiting(git_dir: str) -> str:
    return next(iter([*git_folder.find_special(git_dir), *git_folder.find_special_objects(git_dir)]), "")


def _read(git_dir: str) -> str:
    return fast_json.dumps(git_folder.read_refs(git_dir))


def _is_whole(repository: Repository, oid: str) -> bool:
    asked = repository.git.run("rev-list", "--objects", "--quiet", oid, check=False, limit_seconds=FSCK_SECONDS)
    return asked.status == 0


def _set_objects_aside(git_dir: str, aside: str) -> str:
    """As the agent's user: every loose object that is not what its name says, and what git derives from objects."""
    repair_git_folder.open_modes(git_dir)
    names = [*repair_git_folder.DERIVED, *git_folder.find_special(git_dir), *git_folder.find_special_objects(git_dir)]
    for top, _, files in os.walk(f"{git_dir}/objects"):
        prefix = os.path.basename(top)
        if len(prefix) == 2:
            names += [f"objects/{prefix}/{name}" for name in files if not _is_true(f"{top}/{name}", prefix + name)]
    names += [f"objects/pack/{name}" for name in _stray_packs(f"{git_dir}/objects/pack")]
    return repair_git_folder.set_aside(git_dir, aside, names)


def _is_true(path: str, oid: str) -> bool:
    """Tell whether a loose object has the content that its name stands for; one that is being written has none yet."""
    if not git_folder.is_oid(oid):
        return oid.startswith("tm")  # tmp_obj_...: of a git at work; gc sweeps the old ones
    digest, unpacker = _new_digest(len(oid)), zlib.decompressobj()
    try:
        os.chmod(path, 0o444)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # it may be a FIFO
            while block := file.read(1 << 18):
                digest.update(unpacker.decompress(block))
    except (OSError, zlib.error):
        return False
    return unpacker.eof and digest.hexdigest() == oid


def _new_digest(length: int):
    import hashlib  # brings OpenSSL: only where there is damage

    return hashlib.sha1(usedforsecurity=False) if length == 40 else hashlib.sha256()


def _stray_packs(folder: str) -> list[str]:
    """Name the files of packs that git itself would complain about: half of a pair, or one that does not check."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    stems = {name.rpartition(".")[0] for name in names if name.endswith((".pack", ".idx"))}
    if any(f"{stem}{end}" not in names for stem in stems for end in (".pack", ".idx")):
        time.sleep(0.2)  # a git at work puts the index there a moment after the pack
        names = os.listdir(folder)
    bad = {stem for stem in stems if not (_ends_well(f"{folder}/{stem}.pack") and _ends_well(f"{folder}/{stem}.idx"))}
    return [name for name in names if name.rpartition(".")[0] in bad]


def _ends_well(path: str) -> bool:
    """Tell whether a pack or its index ends with the checksum of what stands before."""
    digest, tail = _new_digest(40), b""
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                tail += block
                digest.update(tail[:-20])
                tail = tail[-20:]
    except OSError:
        return False
    return digest.digest() == tail


def _unpack(repository: Repository, aside: str, moved: list[str]) -> None:
    """Take out of damaged packs what can be had."""
    for name in moved:
        if name.endswith(".pack"):
            path = f"{aside}/{name.replace('/', '%')}"
            argv = ["unpack-objects", "-r", "-q", "--strict"]
            data = command.call_as(repository.user, _open_pack, path)
            if data == "no":
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                unpacking = repository.git.start(*argv, stdin_fd=fd)
                repository.git.finish(unpacking, limit_seconds=FSCK_SECONDS, check=False)
            finally:
                os.close(fd)


def _open_pack(path: str) -> str:
    return "" if os.path.isfile(path) and not os.path.islink(path) else "no"


def _drop_refs(git_dir: str, aside: str, bad: str) -> str:
    """As the agent's user: refs that lead to nothing whole, or hold nothing, go aside; packed-refs without them."""
    names = [name for name in fast_json.loads(bad) if os.path.lexists(f"{git_dir}/{name}")]
    for name, _ in git_folder.entries(git_dir):
        if (
            name.startswith("refs/")
            and not os.path.isdir(f"{git_dir}/{name}")
            and not name.endswith(".lock")
            and not git_folder.read_ref(git_dir, name)
        ):
            names.append(name)
    moved = repair_git_folder.set_aside(git_dir, aside, names)
    packed = git_folder.read_packed(git_dir)
    gone = [name for name in fast_json.loads(bad) if name in packed]
    if gone:
        repair_git_folder.repair_packed(git_dir, aside, gone)
    return "\n".join([*moved.splitlines(), *gone])


def _repair_logs(repository: Repository, aside: str) -> list[str]:
    """Drop from the logs the lines that lead to nothing; the whole log goes aside."""
    logs = fast_json.loads(command.call_as(repository.user, repair_git_folder.list_logs, repository.git_dir))
    ids = "".join(f"{oid}\n" for oid in {oid for found in logs.values() for oid in found})
    told = repository.git.run("cat-file", "--batch-check", stdin=ids.encode(), check=False).text.splitlines()
    missing = [line.split()[0] for line in told if line.endswith("missing")]
    return command.call_as(
        repository.user, repair_git_folder.repair_logs, repository.git_dir, aside, fast_json.dumps(missing)
    ).splitlines()


# -- salvage ---------------------------------------------------------------------------------------
# What a broken `.git` in quarantine still gives: its branches, tags, stashes, settings, worktrees, into the new one.
# Objects come over as checked packs, so what is rotten stays behind; the broken one is read without its settings.


KINDS = ("refs/heads/", "refs/tags/", "refs/remotes/", "refs/notes/")
WHOLE = ("worktrees", "modules", "hooks", "info/exclude", "description", "lfs")  # go back as they are


def salvage(repository: Repository, broken: str, aside: str, branch: str, rescue: str) -> list[str]:
    """Bring over what the repository at `broken` has and the new one has not; return the names of what came.

    What would stand in the way of a ref that is there goes below the name `rescue`.
    """
    home = command.call_as(repository.user, git_folder.find_home, broken, repository.code_dir)
    if not home:
        return []
    found = fast_json.loads(command.call_as(repository.user, _look, home, aside))
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
    repair_git_folder.open_modes(home)
    repair_git_folder.set_aside(
        home,
        aside,
        [*repair_git_folder.DERIVED, *git_folder.find_special(home), *git_folder.find_special_objects(home)],
    )
    stashes = git_folder.read_log(home, "refs/stash")
    top = git_folder.read_ref(home, "refs/stash")
    if top and (not stashes or stashes[-1][0] != top):
        stashes.append((top, "salvaged"))
    head = git_folder.read_ref(home, "HEAD") or git_folder.last_logged(home)
    return fast_json.dumps({"refs": git_folder.read_refs(home), "head": head, "stashes": stashes})


def _bring(repository: Repository, source: Git, wanted: list[str]) -> set[str]:
    """Bring objects over, all at once or, where one is damaged, one by one; return those that are there."""
    wanted = list(dict.fromkeys(wanted))
    share_boundary(source, repository.git)
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
    text = repair_git_folder.compose_settings(listed.stdout.decode("utf-8", "surrogateescape"))
    command.call_as(repository.user, repair_git_folder.write, f"{repository.git_dir}/config", text)


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
