"""Agents with a past that an older version left, as `make.py` made them by that version's own commands.

A tree of files that is put elsewhere has other paths and other inodes. Both are written anew where they are on record
(the settings, the ledger, the note of the standby, the links of git's worktrees) and nothing else is: no format, no
snapshot, no object, not the agent's own state.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).resolve().parents[2] / "data" / "state-0.1.0.tar.xz"
NAME = "old"
WHOLE, CUT = "whole", "cut"
AS_THEY_ARE = ("objects", "snapshots", "state", "said")
INODE = re.compile(r'("inode": )(\d+)')


def unpack(which: str, folder: Path) -> dict:
    """Unpack one of the two agents into the empty `folder`; return what the old version said of it, by verb."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)  # it keeps the modes
        members = [entry for entry in archive.getmembers() if entry.name.startswith(f"{which}/")]
        for entry in members:
            entry.name = entry.name.removeprefix(f"{which}/")
        archive.extractall(folder, members)
    about = json.loads((folder / "about.json").read_text())
    inodes = {str(number): str((folder / path).stat().st_ino) for path, number in about["inodes"].items()}

    def anew(text: str) -> str:
        moved = text.replace(about["folder"], str(folder))
        return INODE.sub(lambda found: found[1] + inodes.get(found[2], "0"), moved)

    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in AS_THEY_ARE]
        for name in names:
            _rewrite(Path(top, name), anew)
    _rewrite_ledger(folder / "r" / "data" / NAME / "ledger.db", anew)
    said = {path.stem: path.read_text().replace(about["folder"], str(folder)) for path in (folder / "said").iterdir()}
    return {verb: parse(text) for verb, text in said.items()}


def _rewrite(path: Path, anew) -> None:
    if path.is_symlink() or not path.is_file():
        return
    found = path.stat()
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return
    if anew(text) != text and "\0" not in text:
        path.write_text(anew(text))
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _rewrite_ledger(path: Path, anew) -> None:
    db = sqlite3.connect(path)
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    for table in tables:
        for row in db.execute(f"SELECT rowid, * FROM {table}").fetchall():
            columns = [column[1] for column in db.execute(f"PRAGMA table_info({table})")]
            changed = {name: anew(value) for name, value in zip(columns, row[1:], strict=True)
                       if isinstance(value, str) and anew(value) != value}  # fmt: skip
            for name, value in changed.items():
                db.execute(f"UPDATE {table} SET {name}=? WHERE rowid=?", (value, row[0]))
    db.commit()
    db.close()


def parse(text: str):
    """Return a JSON document, or the documents of several lines."""
    try:
        return json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]
