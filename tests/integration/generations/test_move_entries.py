"""The switch entry by entry, where folders cannot be exchanged, on real mounts: killed at every line, it ends the same.

At each kill: nothing is missing (I3), and the agent's path is one complete version or the move is on record (I1).
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations.slots import MOVED, Slots
from agentctl.state.snapshots import file_copy
from integration.world import write
from kit import effort, line_killer, mounts
from kit.line_killer import killed_at
from kit.manifest import manifest, missing
from kit.survival import survived

POINTS = 30  # of each kind, in CI
OURS = {"entries.py", "moving.py", "slots.py"}
BAD = {"agent.py": "bad\n", "sub/deep/a": "bad a\n", "sub/deep/b": "b" * 200_000, "dirty": "x", "cache/x": "ignored"}
GOOD = {"agent.py": "good\n", "sub/deep/a": "good a\n", "sub/other": "new\n", "tool.sh": "#!/bin/sh\n"}
NOBODY = 65534


class Arena:
    """A live tree and a fresh one, and slots that cannot be exchanged for one of four reasons."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind, self.count = folder, kind, 0
        self.live = folder / "code"
        self.mounted: list[Path] = []
        inside = kind in ("mount", "bind")
        self.top = self.live / ".agentctl" if inside else folder / ".code.agentctl"
        self.notes = folder / "notes" if inside else self.top
        if kind == "overlay":
            self._make_live(folder / "lower/code")
        self.reset()

    def reset(self) -> None:
        """Have everything as before the switch."""
        self.end()
        for path in (self.live, self.top, self.notes):
            shutil.rmtree(path, ignore_errors=True)
        self._mount()
        self.notes.mkdir(exist_ok=True)
        self.slots = Slots(str(self.top), str(self.live), None, notes=str(self.notes), is_mounted=self.kind == "mount")
        self.slots.create()
        fresh = Path(self.slots.standby)
        fresh.mkdir(mode=0o700)
        write(fresh, GOOD)
        os.symlink("tool.sh", fresh / "link")
        self.inode = fresh.stat().st_ino
        self.quarantine = self.slots.quarantine_path("i", 1)
        self.before, self.good = self.tree(self.live), manifest(fresh)

    def _mount(self) -> None:
        if self.kind == "overlay":
            self.mounted = [self.live.parent / "merged", self.live.parent / "merged.upper"]
            mounts.overlay(self.folder / "lower", self.folder / "merged")
            self.live = self.folder / "merged/code"
            self.top = self.notes = self.folder / "merged/.code.agentctl"
            return
        self.live.mkdir()
        self.mounted = [self.live]
        if self.kind == "bind":
            (self.folder / "elsewhere").mkdir(exist_ok=True)
            shutil.rmtree(self.folder / "elsewhere")
            (self.folder / "elsewhere").mkdir()
            mounts.mount("--bind", self.folder / "elsewhere", self.live)
        else:
            mounts.tmpfs(self.live)
        self._make_live(self.live)

    def _make_live(self, live: Path) -> None:
        write(live, {**BAD, ".git/HEAD": "ref: refs/heads/main\n"})
        os.symlink("nowhere", live / "link")
        os.mkfifo(live / "sub/fifo")
        (live / "sub/deep").chmod(0o750)
        (live / "agent.py").chmod(0o4755)
        os.chown(live / "sub/deep/a", NOBODY, NOBODY)
        os.utime(live / "dirty", (1_000_000_000, 1_000_000_000))
        os.setxattr(live / "dirty", "trusted.note", b"kept")
        with open(live / "sparse", "wb") as file:
            file.truncate(1 << 30)
            file.seek(1 << 29)
            file.write(b"in the middle")
        with socket.socket(socket.AF_UNIX) as door:
            here = os.getcwd()
            os.chdir(live)  # the name of a socket is short
            door.bind("door")
            os.chdir(here)

    def tree(self, path) -> dict:
        return manifest(path, without=(".git", ".agentctl"))

    def switch(self) -> str:
        return self.slots.switch(self.slots.standby, self.inode, self.quarantine)

    def check_at_the_kill(self) -> None:
        """I3 and I1 in the middle."""
        live, kept = self.tree(self.live), self.there(f"{self.quarantine}/tree")
        assert not missing(without_folders(self.before), live, kept)
        assert not missing(without_folders(self.good), live, self.there(self.slots.standby))
        assert self.slots.is_moving or live in (self.before, self.good)
        assert (self.live / ".git/HEAD").exists()

    def there(self, path) -> dict:
        return manifest(path) if os.path.isdir(path) else {}

    def check_done(self) -> None:
        kept = self.there(f"{self.quarantine}/tree")
        assert self.tree(self.live) == self.good
        assert kept == self.before
        assert (self.live / ".git/HEAD").exists() and not self.slots.is_moving
        assert not os.path.lexists(self.slots.standby) and self.slots.standby_note() == {}
        dirty = os.stat(f"{self.quarantine}/tree/dirty")
        assert dirty.st_mtime == 1_000_000_000
        assert os.getxattr(f"{self.quarantine}/tree/dirty", "trusted.note") == b"kept"
        assert os.stat(f"{self.quarantine}/tree/sub/deep/a").st_uid == NOBODY
        assert os.stat(f"{self.quarantine}/tree/sparse").st_blocks < 10_000
        assert set(os.listdir(self.live)) <= {".git", ".agentctl", *(name.split("/")[0] for name in self.good)}

    def end(self) -> None:
        mounts.release(*self.mounted)


def without_folders(tree: dict) -> dict:
    """A folder under way has another mode; what counts in the middle is what is in it."""
    return {name: what for name, what in tree.items() if what[0] != "folder"}


@pytest.fixture(params=["mount", "bind", "other", "overlay"])
def arena(request, tmp_path):
    mounts.need_mounts()
    mounts.tmpfs(tmp_path, "256m")  # what counts is the order of the calls, not the disk
    made = Arena(tmp_path, request.param)
    yield made
    made.end()
    mounts.release(tmp_path)


def test_a_switch_moves_and_keeps_the_old_tree_whole(arena):
    inode = arena.live.stat().st_ino
    for _ in range(3):
        assert arena.switch() == MOVED
        arena.check_done()
    assert arena.live.stat().st_ino == inode


def test_undo_is_a_move_as_well(arena):
    arena.switch()
    tree = f"{arena.quarantine}/tree"
    back = arena.slots.quarantine_path("j", 1)
    for _ in range(2):
        assert arena.slots.switch(tree, os.stat(tree).st_ino if os.path.exists(tree) else arena.inode, back) == MOVED
        arena.inode = arena.slots._move().read()["inode"]
        assert arena.tree(arena.live) == arena.before
        assert manifest(f"{back}/tree") == arena.good
        assert not os.path.lexists(tree)


@pytest.mark.every_night
def test_killed_at_any_line_it_is_gone_on_with(arena):
    def is_ours(path):
        return os.path.basename(path) in OURS and "agentctl" in path

    lines = line_killer.run(arena.switch, 0, is_ours).lines
    tried = 0
    for line in effort.lines(lines, POINTS, "moving", arena.kind):
        arena.reset()
        if not killed_at(line, arena.switch, is_ours):
            break
        try:
            arena.check_at_the_kill()
            if line % 3 == 0:  # killed again while it goes on
                killed_at(1 + (line * 7) % 400, arena.switch, is_ours)
                arena.check_at_the_kill()
            arena.switch()
            arena.check_done()
        except AssertionError as error:
            raise AssertionError(f"killed at line {line} of {lines}: {error}") from error
        tried += 1
    assert effort.NIGHT or tried >= POINTS // 2
    survived("SIGKILL at a line", f"a switch entry by entry ({arena.kind})", tried)


def test_what_is_mounted_inside_stays(arena):
    """A volume of the agent's, in the old tree or in the way of the new one, is neither emptied nor filled."""
    volumes = [arena.live / "cache", arena.live / "sub/other"]
    volumes[1].mkdir()
    for volume in volumes:
        (volume.parent / "volume").mkdir(exist_ok=True)
        (volume / "x").unlink(missing_ok=True)
        mounts.tmpfs(volume)
        write(volume, {"data": "big"})
    arena.mounted[:0] = volumes
    how = arena.switch()
    assert how.startswith(MOVED)
    for volume in volumes:
        places = [volume, Path(arena.quarantine) / "tree" / volume.relative_to(arena.live)]
        assert any((place / "data").exists() for place in places)
    arena.mounted[:0] = [Path(arena.quarantine) / "tree/sub/other"]
    assert (arena.live / "agent.py").read_text() == "good\n"
    assert not arena.slots.is_moving and not os.path.lexists(arena.slots.standby)


@pytest.mark.parametrize("arena", ["other"], indirect=True)
def test_a_tree_deeper_than_python_and_descriptors_go(arena):
    depth, fd = 1500, os.open(arena.live, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)
    assert arena.switch() == MOVED
    fd = os.open(f"{arena.quarantine}/tree", os.O_RDONLY)
    for _ in range(depth):
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    assert os.listdir(fd) == ["file"]
    os.close(fd)


@pytest.mark.parametrize("arena", ["other"], indirect=True)
def test_a_copy_that_is_not_the_same_keeps_the_original(arena, monkeypatch):
    monkeypatch.setattr(file_copy, "copy", lambda source, target, facts: os.ftruncate(target, facts.st_size))
    with pytest.raises(AgentctlError, match="not the same"):
        arena.switch()
    assert not missing(without_folders(arena.before), arena.tree(arena.live))
    assert arena.slots.is_moving
