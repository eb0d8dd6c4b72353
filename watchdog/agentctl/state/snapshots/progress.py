"""What a snapshot that was cut off had copied: the next one goes on from there.

Each copy is noted when it is whole. A note counts in the boot in which it was made only, for nothing of it was synced,
and for a file that has not changed since. Whatever else lies there is made anew.
"""

from __future__ import annotations

import os

from ...config.context import boot_id
from ...core.fast_json import dumps, loads
from .file_copy import remove_tree
from .manifest import Entry, Manifest, row_of, stored_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "progress"
AT_ONCE = 500  # entries; so many files are copied in a tenth of a second
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Progress:
    """The notes in one half-made snapshot: `kept` is what another run has copied, by path."""

    def __init__(self, folder: int, started_ns: int, kept: dict[str, Entry] | None = None) -> None:
        self.started_ns, self.kept, self.is_resumed = started_ns, kept or {}, kept is not None
        self._folder, self._fd, self._noted = folder, -1, 0
        self._met: set[str] = set()

    def note(self, entries: list[Entry]) -> None:
        """Note what has come in since the last time, once it is worth a write."""
        if len(entries) - self._noted < AT_ONCE:
            return
        new, self._noted = entries[self._noted :], len(entries)
        text = "".join(f"{row_of(entry)}\n" for entry in new if _is_plain(entry))
        if self._fd < 0:
            self._fd = os.open(NAME, _APPEND, 0o600, dir_fd=self._folder)
            text = text if self.is_resumed else f"{dumps([boot_id(), self.started_ns])}\n{text}"
        os.write(self._fd, text.encode("ascii"))

    def is_new(self, path: str) -> bool:
        """Tell whether what lies in this path's place may be of another run; true once."""
        if not self.is_resumed or path in self._met:
            return False
        self._met.add(path)
        return True

    def finish(self) -> None:
        """Take the notes away: the snapshot is complete."""
        remove_tree(self._folder, NAME)

    def close(self) -> None:
        """Let go of the notes."""
        for fd in (self._fd, self._folder):
            if fd >= 0:
                os.close(fd)


def open_in(folder: int, partial: str, started_ns: int) -> Progress:
    """Go on with a snapshot that was cut off, or begin it: return its notes, with the folder `partial` there."""
    try:
        inside = os.open(partial, _FOLDER, dir_fd=folder)
    except OSError:
        inside = -1
    found = _read(inside) if inside >= 0 else None
    if found is not None:
        return Progress(inside, *found)
    if inside >= 0:
        os.close(inside)
    remove_tree(folder, partial)
    os.mkdir(partial, 0o700, dir_fd=folder)
    return Progress(os.open(partial, _FOLDER, dir_fd=folder), started_ns)


def _read(inside: int) -> tuple[int, dict[str, Entry]] | None:
    """Return when the first run began and what is noted, None where it does not count."""
    try:
        with open(os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside), "rb") as file:
            lines = file.read().split(b"\n")[:-1]  # the last one may be half
        head: Any = loads(lines[0].decode())
        rows: Any = [loads(line.decode()) for line in lines[1:]]
        (boot, started_ns), entries = head, [Entry(*row) for row in rows]
    except (OSError, ValueError, IndexError, TypeError):
        return None
    return (started_ns, {entry.path: entry for entry in entries}) if boot == boot_id() else None


def clear_strays(folder: str, taken: Manifest) -> None:
    """Remove from a resumed snapshot what belongs to no entry: it is gone from the state by now."""
    known = {"tree", "extra"}
    places = [stored_at(place[0].rstrip("/")) for place in taken.about["places"] if place[0]]
    pending = [*places, *(entry.stored_at for entry in taken.entries)]
    while pending:
        path = pending.pop()
        if path not in known:
            known.add(path)
            pending.append(os.path.dirname(path))
    for top, folders, files in os.walk(folder):
        below = top[len(folder) + 1 :]
        at = os.open(top, _FOLDER)
        try:
            for name in (*folders, *files):
                if below and f"{below}/{name}" not in known:
                    remove_tree(at, name)
        finally:
            os.close(at)
        folders[:] = [name for name in folders if not below or f"{below}/{name}" in known]


def _is_plain(entry: Entry) -> bool:
    return bool(entry.type == "file" and entry.state == entry.sqlite == "")
