"""The files in which an agent keeps its own sessions: is there one, and when did it last grow.

Patterns are relative to the state folder or begin with `/` or `~/`. It only looks at names, sizes and times.
"""

from __future__ import annotations

import os

from ..snapshots.patterns import Patterns, fixed_folder

MOST_ENTRIES = 100_000  # a pattern that means a whole disk must not hold up a launch


def newest_change(patterns: list[str], state_dir: str, home: str) -> tuple[int, int, int]:
    """Return (newest mtime in ns, number of files, their bytes): it changes when any of the files does.

    What was committed to an SQLite database may be in its write-ahead log alone for a long time.
    """
    newest = count = size = 0
    for path in find(patterns, state_dir, home):
        for file in (path, f"{path}-wal"):
            try:
                found = os.stat(file)
            except OSError:
                continue
            newest, count, size = max(newest, found.st_mtime_ns), count + 1, size + found.st_size
    return newest, count, size


def has_any(patterns: list[str], state_dir: str, home: str) -> bool:
    """Tell whether any file is meant by the patterns."""
    return next(find(patterns, state_dir, home), None) is not None


def find(patterns: list[str], state_dir: str, home: str):
    """Yield the files that the patterns mean."""
    by_folder: dict[str, list[str]] = {}
    for pattern in (f"{home}{given[1:]}" if given.startswith("~/") else given for given in patterns):
        folder, rest = fixed_folder(pattern) if pattern.startswith("/") else (state_dir, pattern)
        by_folder.setdefault(folder, []).append(rest)
    left = MOST_ENTRIES
    for folder, rest in by_folder.items():
        wanted = Patterns(rest)
        for top, folders, files in os.walk(folder):
            left -= len(folders) + len(files)
            if left < 0:
                return
            below = top[len(folder) :].strip("/")
            yield from (f"{top}/{name}" for name in sorted(files) if wanted.matches(f"{below}/{name}"))
