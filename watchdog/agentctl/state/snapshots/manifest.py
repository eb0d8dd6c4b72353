"""The list of what a snapshot holds: one row per entry, guarded by a checksum, readable by any JSON tool.

It refuses a list that is damaged rather than guess. `json` costs 9 ms to import (it pulls in
`re`), half a rescue, so this uses the C scanner behind it where there is one.
"""

from __future__ import annotations

import os
from zlib import crc32

from ...core import durable
from ...core.errors import AgentctlError, TooNew
from ...core.fast_json import loads, quoted

NAME = "manifest.json"
FORMAT = 1
FIELDS = (
    "path",  # below the state folder, or absolute for what lives outside it
    "type",  # file, dir, link, fifo, socket, char, block
    "mode",
    "uid",
    "gid",
    "size",  # of the copy
    "mtime_ns",
    "ctime_ns",
    "ino",
    "crc32",  # of the copy, see `filecopy`
    "state",  # "", unsettled (changed while copied), unreadable or left-out (no copy)
    "sqlite",  # "", files (copied as they lie), backup (by SQLite itself, journals merged)
    "also",  # what else the copy depends on: a database's size and journals
    "target",  # of a link
)
_HEAD = b'{"crc32": "%08x", "manifest":\n'
_HEAD_LENGTH, _TAIL = len(_HEAD % 0), b"}\n"


class SnapshotFailed(AgentctlError):
    """A snapshot could not be taken, read or restored; nothing was half done."""


class SnapshotTooNew(TooNew, SnapshotFailed):
    """A newer agentctl has taken it."""


class Entry:
    """One path of a snapshot."""

    __slots__ = tuple("crc" if field == "crc32" else field for field in FIELDS)

    def __init__(self, path, kind, mode, uid, gid, size, mtime_ns, ctime_ns, ino, crc=0,
                 state="", sqlite="", also="", target=""):  # fmt: skip
        self.path, self.type, self.mode, self.uid, self.gid = path, kind, mode, uid, gid
        self.size, self.mtime_ns, self.ctime_ns, self.ino = size, mtime_ns, ctime_ns, ino
        self.crc, self.state, self.sqlite, self.also, self.target = crc, state, sqlite, also, target

    @property
    def has_copy(self) -> bool:
        """Tell whether the snapshot holds bytes for it."""
        return self.type == "file" and self.state != "unreadable"

    @property
    def stored_at(self) -> str:
        """Where its copy is, below the snapshot's folder."""
        return stored_at(self.path)


class Manifest:
    """Everything one snapshot knows about itself."""

    def __init__(self, id: str, started_ns: int, entries: list[Entry], **about) -> None:
        self.id, self.started_ns, self.entries = id, started_ns, entries
        self.about = {
            "note": "",
            "seconds": 0.0,
            "copied_bytes": 0,
            "keep": [],
            "places": [],
            "skipped": [],
            **about,
        }

    def by_path(self) -> dict[str, Entry]:
        """Index the entries."""
        return {entry.path: entry for entry in self.entries}


def stored_at(path: str) -> str:
    """Map an entry's path to its place: `tree/`, or `extra/` for an absolute one."""
    return "extra" + path if path.startswith("/") else "tree/" + path


def load(folder: str) -> Manifest:
    """Read the manifest in `folder`; raise SnapshotFailed if it is missing, damaged or of a newer version."""
    raw = durable.read(os.path.join(folder, NAME), limit=1 << 32)
    number = os.path.basename(folder)
    hint = "'agentctl snapshot list' shows the ones that are whole"
    if raw is None:
        raise SnapshotFailed(f"cannot read snapshot {number}: no {NAME} in {folder}", hint)
    body = raw[_HEAD_LENGTH : -len(_TAIL)]
    if not raw.endswith(_TAIL) or raw[:_HEAD_LENGTH] != _HEAD % crc32(body):
        raise SnapshotFailed(f"cannot read snapshot {number}: its {NAME} fails its checksum", hint)
    data = loads(body.decode("ascii"))
    if (found := data.pop("format", 1)) > FORMAT:
        raise SnapshotTooNew(f"snapshot {folder}", found, FORMAT)
    if data.pop("fields") != list(FIELDS):
        raise SnapshotFailed(f"cannot read snapshot {number}: its {NAME} has other columns", hint)
    entries = [Entry(*row) for row in data.pop("entries")]
    return Manifest(data.pop("id"), data.pop("started_ns"), entries, **data)


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's bytes: about it first, then one line per entry."""
    about = {
        "format": FORMAT,
        "id": manifest.id,
        "started_ns": manifest.started_ns,
        **manifest.about,
    }
    head = ",\n".join(f"{quoted(key)}: {_value(value)}" for key, value in about.items())
    rows = ",\n".join([row_of(entry) for entry in manifest.entries])
    fields = ", ".join(quoted(field) for field in FIELDS)
    body = f'{{{head},\n"fields": [{fields}],\n"entries": [\n{rows}]}}'.encode("ascii")
    return _HEAD % crc32(body) + body + _TAIL


def row_of(e: Entry) -> str:
    """Return an entry as one line of JSON, in ASCII."""
    return (
        f'[{quoted(e.path)},"{e.type}",{e.mode},{e.uid},{e.gid},{e.size},'
        f"{e.mtime_ns},{e.ctime_ns},{e.ino},"
        f'{e.crc},"{e.state}","{e.sqlite}","{e.also}",{quoted(e.target)}]'
    )


def _value(value) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)  # int or float
