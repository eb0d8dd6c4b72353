"""Make the agent's `.git` a folder that git can work in again: what hinders is moved aside, never deleted.

Runs as the agent's user, without git: half of what it mends makes git refuse to start.
"""

from __future__ import annotations

import os
import stat

from ..core import fast_json
from .git_folder import (
    LOOKED_INTO,
    entries,
    find_special,
    find_special_objects,
    find_waiting_objects,
    is_oid,
    is_readable_head,
    last_logged,
    read_packed,
    read_ref,
    read_small,
    why_misled,
)
from .move_entries import relocate

# What an interrupted operation leaves; a later `--continue` or `--abort` would jump back to the bad code.
IN_PROGRESS = (
    "MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "MERGE_RR", "MERGE_AUTOSTASH", "AUTO_MERGE", "CHERRY_PICK_HEAD",
    "REVERT_HEAD", "REBASE_HEAD", "BISECT_LOG", "BISECT_START", "BISECT_EXPECTED_REV", "BISECT_TERMS", "BISECT_NAMES",
    "BISECT_ANCESTORS_OK", "BISECT_FIRST_PARENT", "BISECT_HEAD", "BISECT_RUN", "SQUASH_MSG", "rebase-merge",
    "rebase-apply", "sequencer",
)  # fmt: skip
# What shows another history, or another repository, than the one that is here.
MISLEADING = ("commondir", "gitdir", "info/grafts", "refs/replace", "gc.pid")
# What git makes of objects, and makes again; junk there keeps it from reading any.
DERIVED = ("objects/info/commit-graph", "objects/info/commit-graphs", "objects/pack/multi-pack-index")
FILES = ("HEAD", "config", "packed-refs", "index", "logs/HEAD", "info/exclude")  # a folder there is in the way
# In them lies a commit that may be on no branch.
HOLDERS = ("MERGE_AUTOSTASH", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge/autostash",
           "rebase-apply/autostash", "rebase-merge/orig-head", "rebase-apply/orig-head")  # fmt: skip


def repair(git_dir: str, folder: str, branch: str, is_thorough: bool) -> str:
    """Move what hinders git out of `.git` into `folder`: locks, half-done operations, what misleads, what is no file.

    A HEAD or branch that holds nothing goes too, and the owner gets back the rights to what is theirs. Returns JSON:
    what was `set_aside`, the `branch_at`, `head` and last `logged` head of before, `anchors`: commits that nothing
    else may lead to, and `misled`: the setting that makes it another repository.
    """
    open_modes(git_dir)
    loose = f"refs/heads/{branch}"
    before = {"branch_at": read_ref(git_dir, loose), "head": read_ref(git_dir, "HEAD"),
              "logged": last_logged(git_dir)}  # fmt: skip
    names = [*IN_PROGRESS, *MISLEADING, *_locks(git_dir), *find_special(git_dir)]
    names += find_special_objects(git_dir) if is_thorough else find_waiting_objects(git_dir)
    if not _is_free_or_holds_id(f"{git_dir}/{loose}"):
        names.append(loose)
    names += [n for n in FILES if os.path.isdir(f"{git_dir}/{n}")]
    names += [n for n in ("shallow", "objects/info/alternates") if not _is_sound(git_dir, n)]
    if not is_readable_head(git_dir):
        names.append("HEAD")
    moved = set_aside(git_dir, folder, names)
    if not os.path.lexists(f"{git_dir}/HEAD"):
        write(f"{git_dir}/HEAD", f"ref: {loose}\n")
    if any(name.startswith("refs/replace/") for name in read_packed(git_dir)):
        repair_packed(git_dir, folder)
    return fast_json.dumps({"set_aside": moved.splitlines(), **before, "anchors": anchors(folder),
                       "misled": why_misled(git_dir)})  # fmt: skip


def repair_packed(git_dir: str, folder: str, gone: tuple[str, ...] = ()) -> None:
    """Keep of packed-refs what is a ref, replaces nothing and is not `gone`; the whole of it goes aside."""
    refs = {
        name: oid
        for name, oid in read_packed(git_dir).items()
        if not name.startswith("refs/replace/") and name not in gone
    }
    if set_aside(git_dir, folder, ["packed-refs"]):
        write(f"{git_dir}/packed-refs", "".join(f"{oid} {name}\n" for name, oid in sorted(refs.items())))


def list_logs(git_dir: str) -> str:
    """Return, as JSON, the ids that each log names."""
    found = {}
    for name, facts in entries(git_dir):
        if name.startswith("logs/") and stat.S_ISREG(facts.st_mode):
            lines = (read_small(f"{git_dir}/{name}") or b"").decode("utf-8", "replace").split("\n")
            found[name] = [word for line in lines for word in line.split(" ", 2)[:2] if is_oid(word)]
    return fast_json.dumps(found)


def repair_logs(git_dir: str, folder: str, missing: str) -> str:
    """Drop lines that are none, or that name one of the `missing` ids, from the logs; the whole log goes aside."""
    lost, moved = set(fast_json.loads(missing)), []
    for name in fast_json.loads(list_logs(git_dir)):
        lines = (read_small(f"{git_dir}/{name}") or b"").decode("utf-8", "surrogateescape").splitlines(keepends=True)
        kept, before = [], ""
        for line in lines:
            ids = line.split(" ", 2)
            if len(ids) < 3 or not (is_oid(ids[0]) and is_oid(ids[1])) or ids[1] in lost:
                continue
            before = before or ids[0] if ids[0] not in lost else before or "0" * len(ids[0])
            kept.append(f"{before} {ids[1]} {ids[2]}")
            before = ids[1]
        if "".join(kept) != "".join(lines) and any(line not in kept for line in lines):
            moved += set_aside(git_dir, folder, [name]).splitlines()
            write(f"{git_dir}/{name}", "".join(kept))
    return "\n".join(moved)


def _is_free_or_holds_id(path: str) -> bool:
    """Tell whether a loose ref is a plain file with an id, a folder (git sees to that), or not there."""
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.path.islink(path)):
        return True
    return not os.path.islink(path) and is_oid((read_small(path) or b"").decode("utf-8", "replace").strip())


def _is_sound(git_dir: str, name: str) -> bool:
    if not os.path.lexists(f"{git_dir}/{name}"):
        return True
    lines = (read_small(f"{git_dir}/{name}") or b"\0").decode("utf-8", "replace").splitlines()
    if name == "shallow":
        return all(is_oid(line) for line in lines)
    folders = [os.path.join(git_dir, "objects", line) for line in lines if line and not line.startswith("#")]
    own = os.path.realpath(f"{git_dir}/objects")
    return all("\0" not in f and os.path.isdir(f) and os.path.realpath(f) != own for f in folders)


def set_aside(git_dir: str, folder: str, names: list[str]) -> str:
    """Move what is there of `names` into `folder`; a name that is already aside gets a number. Return the names."""
    found = [name for name in dict.fromkeys(names) if os.path.lexists(f"{git_dir}/{name}")]
    if found:
        os.makedirs(folder, exist_ok=True)
    for name in found:
        if not os.path.lexists(f"{git_dir}/{name}"):
            continue  # it went along with the folder it is in
        relocate(f"{git_dir}/{name}", free_name(f"{folder}/{name.replace('/', '%')}"))
    return "\n".join(found)


def free_name(path: str) -> str:
    """Return `path`, or with a number what is still free of that name."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = f"{path}.{number}"
    return free


def write(path: str, text: str) -> None:
    """Write a small file in `.git` by rename."""
    temp = f"{path}.agentctl"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(fd)
    os.rename(temp, path)


def _locks(git_dir: str) -> list[str]:
    """Find every lock that a killed git left."""
    at_top = [n for n in ("objects/maintenance.lock",) if os.path.lexists(f"{git_dir}/{n}")]
    return at_top + [name for name, _ in entries(git_dir) if name.endswith(".lock")]


def open_modes(git_dir: str) -> None:
    """Give the owner the rights without which git cannot work here; others' rights stay."""
    folders = [git_dir, *(f"{git_dir}/{n}" for n in ("objects", "objects/info", "objects/pack", *LOOKED_INTO))]
    for path in folders:
        _allow(path)
    try:
        folders = [f"{git_dir}/objects/{name}" for name in os.listdir(f"{git_dir}/objects")]
    except OSError:
        folders = []
    for path in folders:
        _allow(path)
    for name, _ in list(entries(git_dir)):
        _allow(f"{git_dir}/{name}")


def _allow(path: str) -> None:
    try:
        facts = os.lstat(path)
        wanted = 0o700 if stat.S_ISDIR(facts.st_mode) else 0o400
        if facts.st_mode & wanted != wanted and not stat.S_ISLNK(facts.st_mode):
            os.chmod(path, stat.S_IMODE(facts.st_mode) | wanted)
    except OSError:
        return


def anchors(folder: str) -> dict[str, str]:
    """Return the commits that what was set aside in `folder` names: perhaps no branch leads to them."""
    found = {}
    for name in HOLDERS:
        text = (read_small(f"{folder}/{name}") or b"").decode("utf-8", "replace")
        label = name.rpartition("/")[2].lower().replace("_", "-")
        ids = [word for word in text.split() if is_oid(word)]
        found.update({label if n == 1 else f"{label}-{n}": oid for n, oid in enumerate(ids, 1)})
    return found


def compose_settings(listed: str) -> str:
    """Write a plain configuration with what `git config --list -z` told of another, but nothing about its core."""
    text = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
    for entry in listed.split("\0"):
        name, _, value = entry.partition("\n")
        section, _, key = name.rpartition(".")
        head, _, inner = section.partition(".")
        if not head or head in ("core", "extensions", "include", "includeif"):
            continue
        text += f'[{head} "{_escape(inner)}"]\n' if inner else f"[{head}]\n"
        text += f'\t{key} = "{_escape(value)}"\n'
    return text


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
