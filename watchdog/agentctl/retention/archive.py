"""Pack what a folder holds and nothing else does into the vault, so that the folder may go.

A folder becomes one commit: `manifest.jsonl` names every entry, `blobs/` holds the contents by id, once each. Nothing
of the folder is interpreted: a `.git`, any name, any kind of file may be in it. Changes nothing in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat

from ..core import durable
from ..core.errors import AgentctlError
from ..generations.vault import Vault

BLOCK_BYTES = 1 << 20
HOLE_BYTES = 1 << 16
KINDS = {stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFREG: "file", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
LIMIT_SECONDS = 4 * 3600


class Changed(Exception):
    """A file is not what it was when it was looked at."""


class Survey:
    """What is in a folder: its entries, what of it can be rebuilt, and what the vault would have to take in."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries: list[dict] = []
        self.rebuilt: dict[str, int] = {}  # declared environments and byte code, by name: bytes
        self.unreadable: list[str] = []
        self.missing: dict[str, str] = {}  # object id -> path, of what the vault does not hold
        self.new_bytes = 0
        self.fingerprint: tuple = ()


def survey(folder: str, vault: Vault, live: str, rebuildable: tuple[str, ...] = ()) -> Survey:
    """Look at every entry of `folder`; `live` is where equal files at the same path (below `tree/`) may be.

    `rebuildable` names paths below `tree/` that are left out; so is byte code.
    """
    found = Survey(folder)
    left_out = {f"tree/{path.strip('/')}" for path in rebuildable}
    found.fingerprint = fingerprint(folder)
    sizes: dict[str, int] = {}
    for top, folders, files, at in os.fwalk(folder, onerror=lambda e: found.unreadable.append(_below(folder, e))):
        above = "" if top == folder else top[len(folder) + 1 :] + "/"
        for name in list(folders):
            path = above + name
            if path in left_out or name == "__pycache__":
                folders.remove(name)
                found.rebuilt[path] = _disk_bytes(f"{top}/{name}")
            else:
                _add(found, path, name, at, live, sizes)
        for name in files:
            if above + name in left_out or name.endswith(".pyc"):
                found.rebuilt[above + name] = os.stat(name, dir_fd=at, follow_symlinks=False).st_size
            else:
                _add(found, above + name, name, at, live, sizes)
    _ask_vault(found, vault, sizes)
    return found


def pack(found: Survey, vault: Vault, ref: str) -> str:
    """Bring what is missing into the vault and have `ref` keep all of the survey; return the commit.

    Raise AgentctlError if a file has changed since it was looked at; then there is no ref.
    """
    with vault.writing():
        read_end, write_end = os.pipe()
        importing = vault.git.start("fast-import", "--done", "--quiet", "--force", stdin_fd=read_end)
        os.close(read_end)
        try:
            with os.fdopen(write_end, "wb") as stream:
                _write_stream(stream, found, ref)
        except (BrokenPipeError, Changed, OSError) as error:
            importing.kill()
            _remove_crash_reports(vault.path)
            raise AgentctlError(f"cannot archive {found.folder}: {error}", "nothing was removed") from error
        importing.finish(limit_seconds=LIMIT_SECONDS)
        durable.sync_filesystem(vault.path)
    vault.git.run("rev-list", "--objects", "--quiet", ref, limit_seconds=LIMIT_SECONDS)
    if fingerprint(found.folder) != found.fingerprint:
        raise AgentctlError(f"{found.folder} has changed while it was archived", "nothing was removed; try again later")
    return vault.refs(ref).get(ref, "")


def bring_back(vault: Vault, ref: str, target: str) -> int:
    """Write what an archive holds into the new folder `target`; return the number of entries."""
    os.mkdir(target, 0o700)
    blobs = f"{target}/.blobs"
    os.mkdir(blobs)
    vault.lay_out(ref, blobs)
    with open(f"{blobs}/manifest.jsonl", encoding="ascii") as file:
        entries = [json.loads(line) for line in file]
    for entry in entries:
        _bring_back_one(entry, blobs, f"{target}/{entry['path']}")
    for entry in reversed(entries):
        if entry["type"] == "dir":
            os.chmod(f"{target}/{entry['path']}", entry["mode"] | 0o700)
    _remove_tree(blobs)
    return len(entries)


def open_up(folder: str) -> None:
    """Give ourselves the right to read what we own; root has it anyway."""
    if os.geteuid() == 0:
        return
    for top, folders, files in os.walk(folder):
        for name, wanted in [(n, 0o700) for n in folders] + [(n, 0o400) for n in files]:
            path = f"{top}/{name}"
            s = os.lstat(path)
            if not stat.S_ISLNK(s.st_mode) and s.st_uid == os.geteuid() and s.st_mode & wanted != wanted:
                os.chmod(path, stat.S_IMODE(s.st_mode) | wanted)


def fingerprint(folder: str) -> tuple:
    """Tell by the newest change and the number of entries whether a folder has changed."""
    newest = count = 0
    for _, folders, files, at in os.fwalk(folder):
        newest = max(newest, os.fstat(at).st_ctime_ns)
        for name in (*folders, *files):
            newest = max(newest, os.stat(name, dir_fd=at, follow_symlinks=False).st_ctime_ns)
            count += 1
    return newest, count


# -- looking ------------------------------------------------------------------------------------------------


def _add(found: Survey, path: str, name: str, at: int, live: str, sizes: dict[str, int]) -> None:
    s = os.stat(name, dir_fd=at, follow_symlinks=False)
    kind = KINDS.get(stat.S_IFMT(s.st_mode), "device")
    entry = {"path": path, "type": kind, "mode": stat.S_IMODE(s.st_mode), "uid": s.st_uid, "gid": s.st_gid,
             "mtime_ns": s.st_mtime_ns}  # fmt: skip
    if kind == "link":
        entry["target"] = os.readlink(name, dir_fd=at)
    if kind == "file":
        try:
            entry["size"], entry["oid"] = _hash(name, at)
        except OSError as error:
            found.unreadable.append(f"{path}: {error.strerror}")
            return
        if path.startswith("tree/") and _is_in_live(f"{live}/{path[5:]}", entry):
            entry["live"] = True
        else:
            sizes[entry["oid"]] = min(entry["size"], s.st_blocks * 512 or entry["size"])  # holes cost nothing
            found.missing.setdefault(entry["oid"], path)
    found.entries.append(entry)


def _open(name: str, at: int | None) -> int:
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)


def _hash(name: str, at: int | None) -> tuple[int, str]:
    """Return a file's size and the id that git gives its content."""
    fd = _open(name, at)
    try:
        size = os.fstat(fd).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        left = size
        while left and (block := os.read(fd, min(left, BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    finally:
        os.close(fd)
    return size, digest.hexdigest()


def _is_in_live(path: str, entry: dict) -> bool:
    try:
        s = os.lstat(path)
        return stat.S_ISREG(s.st_mode) and s.st_size == entry["size"] and _hash(path, None)[1] == entry["oid"]
    except OSError:
        return False


def _ask_vault(found: Survey, vault: Vault, sizes: dict[str, int]) -> None:
    """Leave in `missing` what the vault does not hold."""
    asked = "".join(f"{oid}\n" for oid in found.missing).encode()
    told = vault.git.run("cat-file", "--batch-check", stdin=asked, limit_seconds=3600).text.splitlines()
    held = {line.split(" ", 1)[0] for line in told if not line.endswith(" missing")}
    found.missing = {oid: path for oid, path in found.missing.items() if oid not in held}
    found.new_bytes = sum(sizes[oid] for oid in found.missing)


def _disk_bytes(path: str) -> int:
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_blocks * 512
    return sum(
        os.stat(name, dir_fd=at, follow_symlinks=False).st_blocks * 512
        for _, folders, files, at in os.fwalk(path)
        for name in (*folders, *files)
    )


def _below(folder: str, error: OSError) -> str:
    name = str(error.filename)  # below the folder's own level `fwalk` knows but the last name
    return f"{os.path.relpath(name, folder) if os.path.isabs(name) else name}: {error.strerror}"


# -- packing ------------------------------------------------------------------------------------------------


def _write_stream(stream, found: Survey, ref: str) -> None:
    for oid, path in found.missing.items():
        _write_blob(stream, f"{found.folder}/{path}", oid)
    listed = "".join(json.dumps(entry) + "\n" for entry in found.entries).encode("ascii")
    message = f"archive of {os.path.basename(found.folder)}\n".encode("ascii", "replace")
    stream.write(
        b"commit %s\ncommitter agentctl <agentctl@localhost> %d +0000\ndata %d\n%s\n"
        % (ref.encode(), found.fingerprint[0] // 10**9, len(message), message)
    )
    for oid in dict.fromkeys(entry["oid"] for entry in found.entries if "oid" in entry and "live" not in entry):
        stream.write(f"M 100644 {oid} blobs/{oid[:2]}/{oid[2:]}\n".encode())
    stream.write(b"M 100644 inline manifest.jsonl\ndata %d\n%s\ndone\n" % (len(listed), listed))


def _write_blob(stream, path: str, oid: str) -> None:
    fd = _open(path, None)
    try:
        size = os.fstat(fd).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        stream.write(b"blob\ndata %d\n" % size)
        left = size
        while left and (block := os.read(fd, min(left, BLOCK_BYTES))):
            digest.update(block)
            stream.write(block)
            left -= len(block)
        stream.write(b"\n")
    finally:
        os.close(fd)
    if left or digest.hexdigest() != oid:
        raise Changed(f"{path} has changed")


def _remove_crash_reports(path: str) -> None:
    for name in os.listdir(path):
        if name.startswith("fast_import_crash_"):
            os.unlink(f"{path}/{name}")


# -- bringing back ------------------------------------------------------------------------------------------


def _bring_back_one(entry: dict, blobs: str, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    kind = entry["type"]
    if kind == "dir":
        os.makedirs(path, exist_ok=True)
    elif kind == "link":
        os.symlink(entry["target"], path)
    elif kind == "fifo":
        os.mkfifo(path, entry["mode"])
    elif kind == "file" and "live" not in entry:
        with open(f"{blobs}/blobs/{entry['oid'][:2]}/{entry['oid'][2:]}", "rb") as source, open(path, "xb") as file:
            while block := source.read(HOLE_BYTES):
                if block.count(0) == len(block):  # a hole, or as good as one
                    file.seek(len(block), os.SEEK_CUR)
                else:
                    file.write(block)
            file.truncate()
        os.chmod(path, entry["mode"])
        os.utime(path, ns=(entry["mtime_ns"], entry["mtime_ns"]))


def _remove_tree(path: str) -> None:
    import shutil

    shutil.rmtree(path)
