"""Copy SQLite databases so that the copy is one committed state, whoever is writing.

A database that lies still is copied file by file with its journals, which SQLite recovers by
design. One that moves is copied by SQLite's own backup, in a process that runs as the file's
owner and has a time limit: nothing an agent writes is parsed with more rights than it has. This
module never writes to the database it copies.
"""

from __future__ import annotations

import os

MAGIC = b"SQLite format 3\0"
JOURNALS = ("-wal", "-journal")  # hold committed data
SUFFIXES = (*JOURNALS, "-shm")  # -shm is rebuilt from the -wal and never copied


def companions_in(names: list[str]) -> dict[str, list[str]]:
    """Map each name that has journals beside it to their names."""
    found: dict[str, list[str]] = {}
    for name in names:
        for suffix in SUFFIXES:
            if name.endswith(suffix):
                found.setdefault(name[: -len(suffix)], []).append(name)
    return found


def is_database(fd: int) -> bool:
    """Tell whether an open file starts like an SQLite database."""
    try:
        return os.pread(fd, len(MAGIC), 0) == MAGIC
    except OSError:
        return False


def signature(folder: int, name: str, stat) -> tuple[str, int]:
    """Describe a database and its journals as they lie: text to compare, their newest time."""
    parts, newest = [f"{stat.st_size}:{stat.st_mtime_ns}"], max(stat.st_mtime_ns, stat.st_ctime_ns)
    for suffix in JOURNALS:
        try:
            s = os.stat(name + suffix, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        parts.append(f"{suffix}:{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}:{s.st_ino}")
        newest = max(newest, s.st_mtime_ns, s.st_ctime_ns)
    return " ".join(parts), newest


def backup(source: str, target: str, owner: tuple[int, int], limit_seconds: float) -> bool:
    """Copy a live database into the empty file `target`; return whether that went well.

    In a fresh interpreter, not a fork, which would copy the locks our other threads hold.
    """
    import sys

    from ...core.errors import AgentctlError
    from ...host import command  # not above: as a program this file stands alone

    argv = [sys.executable, "-I", "-S", __file__, source, target, str(owner[0]), str(owner[1])]
    try:
        command.run(argv, env={"LC_ALL": "C.UTF-8"}, limit_seconds=limit_seconds)
    except AgentctlError:
        return False
    return True


def main(source: str, target: str, uid: int, gid: int) -> None:
    """In the child: open the target, become the owner, open the source, copy it in one step."""
    import sqlite3

    # No journal, no syncs: the caller throws the file away if this fails.
    to = sqlite3.connect(target, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
        to.execute(f"PRAGMA {pragma}")
    to.execute("BEGIN EXCLUSIVE")
    to.execute("COMMIT")  # from here on it is open and ours, whoever we are
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    quoted = "".join(f"%{byte:02x}" for byte in os.fsencode(source))
    live = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, timeout=5)
    live.backup(to, sleep=0.002)  # in steps, every commit of the writer would start it over
    live.close()
    to.close()


if __name__ == "__main__":
    import sys

    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
