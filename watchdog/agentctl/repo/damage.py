"""Damage inside the agent's repository: objects, packs, refs and logs that fsck rejects go aside, the vault fills in.

Works while the agent runs, beside it: nothing that is whole is touched.
"""

from __future__ import annotations

import os
import time
import zlib

from .. import lean_json as json
from ..errors import CommandFailed
from ..machine import command
from . import git_folder, git_tidy
from .git import Git, pipe_pack
from .repository import Repository

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


def mend(repository: Repository, vault: Git, known: list[str], aside: str) -> list[str]:
    """Move aside what is damaged and bring `known` ids from the vault; return the names of what went aside."""
    moved = command.call_as(repository.user, _set_objects_aside, repository.git_dir, aside).splitlines()
    repository.git.standstills = 0
    _unpack(repository, aside, moved)
    try:
        pipe_pack(vault, known, [], repository.git)
    except CommandFailed:  # one that the vault lost must not keep out the others
        for oid in known:
            _try(pipe_pack, vault, [oid], [], repository.git)
    refs = json.loads(command.call_as(repository.user, _read, repository.git_dir))
    bad = [name for name, oid in refs.items() if not _is_whole(repository, oid)]
    moved += command.call_as(repository.user, _drop_refs, repository.git_dir, aside, json.dumps(bad)).splitlines()
    for _ in range(DEEPEST):  # what names something that is gone is of no use, and then what names that
        hollow = [f"objects/{oid[:2]}/{oid[2:]}" for oid in _find_hollow(repository)]
        gone = command.call_as(repository.user, git_tidy.set_aside, repository.git_dir, aside, hollow).splitlines()
        moved += gone
        if not gone:
            break
    return moved + _mend_logs(repository, aside)


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
    return json.dumps(git_folder.read_refs(git_dir))


def _is_whole(repository: Repository, oid: str) -> bool:
    asked = repository.git.run("rev-list", "--objects", "--quiet", oid, check=False, limit_seconds=FSCK_SECONDS)
    return asked.status == 0


def _set_objects_aside(git_dir: str, aside: str) -> str:
    """As the agent's user: every loose object that is not what its name says, and what git derives from objects."""
    git_tidy.open_modes(git_dir)
    names = [*git_tidy.DERIVED, *git_folder.find_special(git_dir), *git_folder.find_special_objects(git_dir)]
    for top, _, files in os.walk(f"{git_dir}/objects"):
        prefix = os.path.basename(top)
        if len(prefix) == 2:
            names += [f"objects/{prefix}/{name}" for name in files if not _is_true(f"{top}/{name}", prefix + name)]
    names += [f"objects/pack/{name}" for name in _stray_packs(f"{git_dir}/objects/pack")]
    return git_tidy.set_aside(git_dir, aside, names)


def _is_true(path: str, oid: str) -> bool:
    """Tell whether a loose object has the content that its name stands for; one that is being written has none yet."""
    if not git_folder.is_oid(oid):
        return oid.startswith("tm")  # tmp_obj_...: of a git at work; gc sweeps the old ones
    digest, unpacker = _new_digest(len(oid)), zlib.decompressobj()
    try:
        os.chmod(path, 0o444)
        with open(path, "rb") as file:
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
    names = [name for name in json.loads(bad) if os.path.lexists(f"{git_dir}/{name}")]
    for name, _ in git_folder.entries(git_dir):
        if (
            name.startswith("refs/")
            and not os.path.isdir(f"{git_dir}/{name}")
            and not name.endswith(".lock")
            and not git_folder.read_ref(git_dir, name)
        ):
            names.append(name)
    moved = git_tidy.set_aside(git_dir, aside, names)
    packed = git_folder.read_packed(git_dir)
    gone = [name for name in json.loads(bad) if name in packed]
    if gone:
        git_tidy.mend_packed(git_dir, aside, gone)
    return "\n".join([*moved.splitlines(), *gone])


def _mend_logs(repository: Repository, aside: str) -> list[str]:
    """Drop from the logs the lines that lead to nothing; the whole log goes aside."""
    logs = json.loads(command.call_as(repository.user, git_tidy.list_logs, repository.git_dir))
    ids = "".join(f"{oid}\n" for oid in {oid for found in logs.values() for oid in found})
    told = repository.git.run("cat-file", "--batch-check", stdin=ids.encode(), check=False).text.splitlines()
    missing = [line.split()[0] for line in told if line.endswith("missing")]
    return command.call_as(
        repository.user, git_tidy.mend_logs, repository.git_dir, aside, json.dumps(missing)
    ).splitlines()
