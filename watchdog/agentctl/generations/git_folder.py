"""The agent's `.git` seen as files: what in it would make git hang or mislead it, and what its refs say.

It runs no git, never waits, changes nothing and believes no byte it reads.
"""

from __future__ import annotations

import os
import stat

# Where git reads files by fixed names or lists folders; objects are too many to look at each.
LOOKED_INTO = ("refs", "logs", "info", "objects/info", "objects/pack", "worktrees")
KNOWN_EXTENSIONS = ("worktreeconfig", "partialclone", "preciousobjects", "noop", "relativeworktrees",
                    "compatobjectformat")  # fmt: skip
SMALL_BYTES = 1 << 20
HEX = frozenset("0123456789abcdef")


def find_special(git_dir: str) -> list[str]:
    """Name what is neither file nor folder where git reads files: a FIFO there makes it wait for ever."""
    return [name for name, facts in entries(git_dir) if not _is_plain(f"{git_dir}/{name}", facts)]


def find_special_objects(git_dir: str) -> list[str]:
    """Name what is no file among the loose objects."""
    found = []
    for top, folders, files in os.walk(f"{git_dir}/objects"):
        for name in files:
            path = f"{top}/{name}"
            if not _is_plain(path, os.lstat(path)):
                found.append(path[len(git_dir) + 1 :])
        if len(os.path.basename(top)) == 2:
            found += [f"{top}/{name}"[len(git_dir) + 1 :] for name in folders]  # a folder where an object should be
    return found


def find_waiting_objects(git_dir: str) -> list[str]:
    """Name the loose objects at which git would wait for ever; a few milliseconds, for no file is looked at."""
    found = []
    for folder in _names(f"{git_dir}/objects", 1):
        try:
            with os.scandir(f"{git_dir}/objects/{folder}") as inside:
                odd = [entry.path for entry in inside if not entry.is_file(follow_symlinks=False)]
        except OSError:
            continue
        if len(folder) == 2:
            found += [path[len(git_dir) + 1 :] for path in odd if _waits(path)]
    return found


def find_waiting_object(git_dir: str) -> str:
    """Name one of them, '' if there is none."""
    return next(iter(find_waiting_objects(git_dir)), "")


def _waits(path: str) -> bool:
    try:
        return not _is_plain(path, os.lstat(path))
    except OSError:
        return False


def _is_plain(path: str, facts: os.stat_result) -> bool:
    if stat.S_ISLNK(facts.st_mode):
        try:
            facts = os.stat(path)
        except OSError:
            return True  # it leads nowhere: git is told so and waits for nothing
    return stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)


def entries(git_dir: str):
    """Yield (name, lstat) of what lies at the top of `.git` and all below the folders that git lists."""
    pending = ["", *LOOKED_INTO]
    while pending:
        folder = pending.pop()
        try:
            names = os.listdir(f"{git_dir}/{folder}")
        except OSError:
            continue
        for name in names:
            path = f"{folder}/{name}" if folder else name
            try:
                facts = os.lstat(f"{git_dir}/{path}")
            except OSError:
                continue
            yield path, facts
            if folder and stat.S_ISDIR(facts.st_mode) and path not in LOOKED_INTO:
                pending.append(path)


def what_hangs(git_dir: str) -> str:
    """Name what would make git wait for ever in this repository: '' if nothing."""
    special = find_special(git_dir)
    return special[0] if special else find_waiting_include(git_dir)


def find_waiting_include(git_dir: str) -> str:
    """Name an included configuration file that is no file, '' if there is none."""
    return next((path for path in _configurations(git_dir) if _waits(path)), "")


def _configurations(git_dir: str) -> list[str]:
    """List the configuration files of a repository: its own, and what they include, each once."""
    found = [f"{git_dir}/config", f"{git_dir}/config.worktree"]
    for path in found:  # grows while it is gone through
        for section, key, value in read_settings(path):
            if section.startswith("include") and key == "path" and len(found) < 16:
                full = os.path.normpath(os.path.join(os.path.dirname(path), value))
                found += [full] if full not in found else []
    return found


def read_settings(path: str) -> list[tuple[str, str, str]]:
    """Read a configuration file as git would where it is simple: (section, key, value), the first two in lower case."""
    found, section = [], ""
    for line in (read_small(path) or b"").decode("utf-8", "surrogateescape").splitlines():
        text = line.strip()
        if text.startswith("["):
            head, _, text = text[1:].partition("]")
            section = head.split(maxsplit=1)[0].strip('"').lower() if head.strip() else ""
            text = text.strip()
        if not text or text[0] in "#;":
            continue
        key, equals, value = text.partition("=")
        found.append((section, key.strip().lower(), value.strip().strip('"') if equals else "true"))
    return found


def why_misled(git_dir: str) -> str:
    """Say which setting makes git take this for another repository than it is: '' if none does."""
    for path in _configurations(git_dir):
        for section, key, value in read_settings(path):
            said = f"{section}.{key}={value}"
            if section == "core" and key == "bare" and value.lower() not in ("false", "no", "off", "0", ""):
                return said
            if section == "core" and key == "worktree" and not _is_own_tree(git_dir, value):
                return said
            if section == "core" and key == "repositoryformatversion" and value not in ("0", "1"):
                return said
            if section == "extensions" and not _is_true_extension(git_dir, key, value):
                return said
    return find_waiting_include(git_dir)


def _is_own_tree(git_dir: str, value: str) -> bool:
    return os.path.normpath(os.path.join(git_dir, value)) == os.path.dirname(git_dir)


def _is_true_extension(git_dir: str, key: str, value: str) -> bool:
    if key == "objectformat":
        return value == "sha1" or any(len(n) == 38 + 24 for n in _names(f"{git_dir}/objects", 2))
    if key == "refstorage":
        return value == "files" or os.path.isdir(f"{git_dir}/reftable")
    return key in KNOWN_EXTENSIONS


def _names(folder: str, depth: int) -> list[str]:
    try:
        inside = os.listdir(folder)
    except OSError:
        return []
    return inside if depth == 1 else [n for name in inside[:3] for n in _names(f"{folder}/{name}", depth - 1)]


def read_small(path: str) -> bytes | None:
    """Read a regular file of no more than 1 MiB; None for anything else. Never waits."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        facts = os.fstat(fd)
        return os.read(fd, SMALL_BYTES) if stat.S_ISREG(facts.st_mode) and facts.st_size <= SMALL_BYTES else None
    except OSError:
        return None
    finally:
        os.close(fd)


def read_ref(git_dir: str, name: str, depth: int = 5) -> str:
    """Return the id that a ref holds, without git: '' if it cannot be read."""
    text = (read_small(f"{git_dir}/{name}") or b"").decode("utf-8", "replace").strip()
    if text.startswith("ref: "):
        target = text[5:].strip()
        is_inside = target.startswith("refs/") and ".." not in target
        return read_ref(git_dir, target, depth - 1) if is_inside and depth else ""
    if is_oid(text):
        return text
    return read_packed(git_dir).get(name, "")


def read_packed(git_dir: str) -> dict[str, str]:
    """Read the lines of packed-refs that are lines of packed-refs."""
    try:
        fd = os.open(f"{git_dir}/packed-refs", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return {}
    with open(fd, "rb") as file:
        pairs = [line.decode("utf-8", "surrogateescape").rstrip("\n").split(" ", 1) for line in file]
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2 and is_oid(pair[0]) and pair[1].startswith("refs/")}


def is_oid(text: str) -> bool:
    """Tell whether a text is a full object id."""
    return len(text) in (40, 64) and HEX.issuperset(text)


def is_readable_head(git_dir: str) -> bool:
    """Tell whether git would take this HEAD for one."""
    text = (read_small(f"{git_dir}/HEAD") or b"").decode("utf-8", "replace").rstrip("\n")
    name = text.removeprefix("ref: ")
    return is_oid(text) or (
        name != text
        and name.startswith("refs/")
        and ".." not in name
        and not name.endswith(".lock")
        and name.isprintable()
        and os.path.lexists(f"{git_dir}/HEAD")
    )


def read_refs(git_dir: str) -> dict[str, str]:
    """Read every ref that holds an id, loose before packed, without git."""
    found = read_packed(git_dir)
    for name, facts in entries(git_dir):
        if name.startswith("refs/") and stat.S_ISREG(facts.st_mode) and not name.endswith(".lock"):
            oid = read_ref(git_dir, name)
            if oid:
                found[name] = oid
    return found


def read_log(git_dir: str, name: str) -> list[tuple[str, str]]:
    """Read a ref's log, oldest first: (id, message) of the lines that are lines of a log."""
    found = []
    for line in (read_small(f"{git_dir}/logs/{name}") or b"").decode("utf-8", "surrogateescape").split("\n"):
        words, _, message = line.partition("\t")
        ids = words.split(" ", 2)
        if len(ids) == 3 and is_oid(ids[0]) and is_oid(ids[1]):
            found.append((ids[1], message))
    return found


def last_logged(git_dir: str) -> str:
    """Return the commit that HEAD had last, by its log."""
    return next((oid for oid, _ in reversed(read_log(git_dir, "HEAD"))), "")


def find_home(git_dir: str, code_dir: str) -> str:
    """Follow a `.git` that is a link or a file to the folder it stands for, '' if there is none."""
    home = os.path.realpath(git_dir)
    if os.path.isfile(home):
        text = (read_small(home) or b"").decode("utf-8", "surrogateescape").strip()
        home = os.path.normpath(os.path.join(code_dir, text[8:])) if text.startswith("gitdir: ") else ""
    return home if home and os.path.isdir(f"{home}/objects") else ""


def find_inner_worktrees(git_dir: str, code_dir: str) -> str:
    """Return the paths, one a line, of the linked worktrees that stand inside the code folder."""
    found = []
    for name in sorted(os.listdir(f"{git_dir}/worktrees")):
        told = (read_small(f"{git_dir}/worktrees/{name}/gitdir") or b"").decode("utf-8", "surrogateescape").strip()
        path = os.path.normpath(os.path.join(git_dir, "worktrees", name, os.path.dirname(told)))
        if told and path.startswith(f"{code_dir}/") and not path.startswith(f"{git_dir}/") and "\n" not in path:
            found.append(path[len(code_dir) + 1 :])
    return "\n".join(found)
