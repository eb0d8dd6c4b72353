"""State folders for the tests of snapshots: everything that one can hold, how it is ruined, and how it is looked at."""

from __future__ import annotations

import os
import socket
import sqlite3
import time

from agentctl.state.snapshots import capture

is_root = os.geteuid() == 0


def put(path, data=b"", mode=0o644, age=10):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    if age:
        old = time.time() - age
        os.utime(path, (old, old))


def look(folder):
    """Everything below a folder: kind, mode, content."""
    seen = {}
    for above, below, files in os.walk(os.fsencode(folder)):
        for name in below + files:
            path = os.path.join(above, name)
            stat = os.lstat(path)
            content = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            seen[os.path.relpath(path, os.fsencode(folder))] = (stat.st_mode, content)
    return seen


def settle():
    """Let the present become older than the racy span."""
    time.sleep(capture.SETTLED_NS / 1e9 + 0.02)


def nasty(state):
    put(f"{state}/plain", b"plain")
    put(f"{state}/empty")
    put(f"{state}/config/deep/er/tool", b"#!/bin/sh\n", 0o755)
    put(f"{state}/secret", b"hush", 0o000 if is_root else 0o400)
    put(f"{state}/suid", b"s", 0o4755)
    put(f"{state}/new\nline", b"n")
    put(os.fsencode(state) + b"/bad\xff\xfename", b"b")
    put(f"{state}/" + "n" * 255, b"long")
    os.mkdir(f"{state}/empty-folder", 0o750)
    os.mkdir(f"{state}/closed", 0o500)
    os.symlink("nowhere\n", f"{state}/link")
    os.symlink("/etc", f"{state}/link-to-folder")
    os.link(f"{state}/plain", f"{state}/hard")
    os.mkfifo(f"{state}/fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{state}/socket")
    with open(f"{state}/sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"in the middle")


def ruin(state):
    for name in ("plain", "suid", "link", "secret", "new\nline", "config/deep/er/tool"):
        os.unlink(f"{state}/{name}")
    put(f"{state}/plain", b"other", 0o600)
    put(f"{state}/newcomer/x", b"mine")
    os.symlink("else", f"{state}/link")
    os.rmdir(f"{state}/empty-folder")
    put(f"{state}/empty-folder", b"a file now")
    os.chmod(f"{state}/closed", 0o755)
    os.unlink(os.fsencode(state) + b"/bad\xff\xfename")
    os.mkdir(os.fsencode(state) + b"/bad\xff\xfename")
    with open(f"{state}/sparse", "r+b") as file:
        file.write(b"start")
    for folder in ("er", "deep", ""):
        at = {"er": "config/deep/er", "deep": "config/deep", "": "config"}[folder]
        os.rmdir(f"{state}/{at}")
    os.symlink("/etc", f"{state}/config")


def make_database(path, mode="wal"):
    base = sqlite3.connect(path, isolation_level=None)
    base.execute(f"PRAGMA journal_mode={mode}")
    base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
    return base


def leave(base, state):
    """As if the writer were killed: its journal stays behind."""
    import shutil

    shutil.copytree(state, f"{state}.then")
    base.close()
    shutil.rmtree(state)
    os.rename(f"{state}.then", state)
