"""What is mounted where, as the kernel tells it: also a part of the same file system (a bind mount)."""

from __future__ import annotations

MOUNTS = "/proc/self/mountinfo"
ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def mount_points() -> set[str]:
    """Return the paths that something is mounted on."""
    found = set()
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
