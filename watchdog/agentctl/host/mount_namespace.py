"""Mounts: what is mounted where, and a view of the file system of one's own.

Needs root, or user namespaces (user_namespaces(7)); where neither is to be had `enter` says so, nothing has changed.
Programs started in it have no rights over the mounts: what is covered cannot be uncovered.
"""

from __future__ import annotations

import os

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
KEPT_FLAGS = {
    os.ST_NOSUID: 2,
    os.ST_NODEV: 4,
    os.ST_NOEXEC: 8,
    os.ST_NOATIME: 1024,
    os.ST_NODIRATIME: 2048,
    os.ST_RELATIME: 1 << 21,
}  # a remount may not take off what others have put on (mount(2))


def enter() -> None:
    """Go into a mount namespace of our own; raise OSError where that is not allowed. Only for a single thread."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call_libc("unshare", CLONE_NEWNS, what="a mount namespace")
    else:
        call_libc("unshare", CLONE_NEWNS | CLONE_NEWUSER, what="a user namespace")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)


def put_over(source: str, target: str) -> None:
    """Have `target` mean `source`; both folders, or both files."""
    _mount(source, target, "", MS_BIND | MS_REC)


def make_read_only(folder: str, but: list[str]) -> None:
    """Take the right to write below a folder from everybody here; what is below the folders `but` stays as it is."""
    kept = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in but]
    try:
        put_over(folder, folder)
        facts = os.statvfs(folder)
        flags = sum(flag for shown, flag in KEPT_FLAGS.items() if facts.f_flag & shown)
        _mount("none", folder, "", MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
        for fd, path in zip(kept, but, strict=True):
            put_over(f"/proc/self/fd/{fd}", path)
    finally:
        for fd in kept:
            os.close(fd)


def write_apart(folder: str, aside: str) -> None:
    """Let everybody here write below a folder, into `aside` (a folder that is made) instead of the folder itself."""
    for part in ("new", "work"):
        os.makedirs(f"{aside}/{part}", mode=0o700)
    if any(c in folder + aside for c in ",:\\"):  # they part mount's options
        raise OSError(22, "its name cannot be given to the kernel", folder)
    data = f"lowerdir={folder},upperdir={aside}/new,workdir={aside}/work"
    _mount("overlay", folder, "overlay", 0, data if os.geteuid() == 0 else f"{data},userxattr")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    kinds = (kind.encode() or None, flags, data.encode() or None)
    call_libc("mount", os.fsencode(source), os.fsencode(target), *kinds, what=target)


def call_libc(name: str, *arguments: int | bytes | None, what: str) -> None:
    """Call a function of the C library that Python has none for; raise OSError, of `what`, where it fails."""
    import ctypes  # some milliseconds, which a recovery has only where it needs one

    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.argtypes = [ctypes.c_long if isinstance(given, int) else ctypes.c_char_p for given in arguments]
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


# -- mounts ----------------------------------------------------------------------------------------
# What is mounted where, as the kernel tells it: also a part of the same file system (a bind mount).


MOUNTS = "/proc/self/mountinfo"
ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def mount_points() -> set[str]:
    """Return the paths that something is mounted on."""
    found: set[str] = set()
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        path = line.split(" ")[4]
        for escape, plain in ESCAPES:
            path = path.replace(escape, plain)
        found.add(path)
    return found
