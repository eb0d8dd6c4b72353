"""The switch where two folders cannot be exchanged (a mount point, an overlay, another file system), on record.

In two phases: everything of the live tree goes out to quarantine, then everything of the fresh tree goes in. Each
phase is written down, durable, before it starts; the record tells which way entries go, so that a move that was cut
off anywhere is gone on with by whoever comes next. The agent is down meanwhile, and nothing launches it.
"""

from __future__ import annotations

import os

from ..core import durable, fast_json
from ..core.errors import AgentctlError, TooNew
from ..host import command
from .move_entries import Folder, Mover, dress

OUT, IN, DONE = "out", "in", "done"
PARTIAL = "partial"
VERSION = 1  # of the record; one that does not say is of version 1


class Move:
    """The move whose record is at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> dict:
        """Return the record, {} if there is none that can be read; raise TooNew if a newer agentctl began the move."""
        try:
            record = fast_json.loads(durable.read(self.path) or b"{}")
        except ValueError:
            return {}
        if not isinstance(record, dict):
            return {}
        if (found := record.get("version", 1)) > VERSION:
            raise TooNew(f"the switch under way in {self.path}", found, VERSION)
        return record

    @property
    def is_open(self) -> bool:
        """Tell whether a move was begun and is not done."""
        return self.read().get("phase") in (OUT, IN)

    def has_put_in(self, inode: int) -> bool:
        """Tell whether the last move is done and was that of the tree with this inode."""
        record = self.read()
        return record.get("phase") == DONE and record.get("inode") == inode

    def begin(self, *, live: str, below: str, fresh: str, quarantine: str, stay: list[str]) -> None:
        """Write down what is to be moved: the entries of `live` but `stay` to quarantine/tree, those of `fresh` in.

        No link is followed beneath the folder `below`. Raise AgentctlError if there is a tree in quarantine already.
        """
        if os.path.lexists(f"{quarantine}/tree"):
            raise AgentctlError(f"cannot move {live} to {quarantine}: a tree is there already")
        with Folder.open(fresh, below) as folder:
            inode = os.fstat(folder.fd).st_ino
        self._write(
            {
                "version": VERSION,
                "phase": OUT,
                "live": live,
                "below": below,
                "fresh": fresh,
                "inode": inode,
                "quarantine": quarantine,
                "stay": stay,
                "partial": f".agentctl-{os.urandom(6).hex()}.partial",
            }
        )

    def go_on(self) -> list[str]:
        """Do what the record says is left to do; return what stayed because something is mounted there."""
        record, stayed = self.read(), []
        if record.get("phase") == OUT:
            stayed = _take_out(record)
            _sync(record)
            record = {**record, "phase": IN}
            self._write(record)
        if record.get("phase") == IN:
            stayed += _put_in(record)
            _sync(record)
            self._write({**record, "phase": DONE})
        return stayed

    def _write(self, record: dict) -> None:
        durable.write(self.path, fast_json.dumps(record).encode(), 0o600)


def bring_standby(partial: str, folder: str, below: str) -> None:
    """Bring a finished standby into slots inside the code: by descriptor, for the agent runs and may plant links."""
    with Folder.open(folder, below) as slots:
        _remove(slots, "standby.old")
        _remove(slots, "standby.new")
        if slots.look("standby") is not None:  # in one rename: half removed, its note would still vouch for it
            os.rename("standby", "standby.old", src_dir_fd=slots.fd, dst_dir_fd=slots.fd)
        with Folder.open(partial) as source, slots.make("standby.new") as target:
            Mover(slots, "standby.part").move_all(source, target, [])
        os.rename("standby.new", "standby", src_dir_fd=slots.fd, dst_dir_fd=slots.fd)
        durable.sync_filesystem(slots.path)
        _remove(slots, "standby.old")
    os.rmdir(partial)


def _remove(slots: Folder, name: str) -> None:
    if slots.look(name) is not None:
        command.run(
            ["/bin/rm", "-rf", "--", f"/proc/{os.getpid()}/fd/{slots.fd}/{name}"],
            env={"LC_ALL": "C"},
            limit_seconds=3600,
        )


def _take_out(record: dict) -> list[str]:
    live, quarantine = record["live"], record["quarantine"]
    if os.path.lexists(live) and (os.path.islink(live) or not os.path.isdir(live)):
        os.rename(live, f"{quarantine}/tree")
    if not os.path.lexists(live):
        return []
    with Folder.open(quarantine, record["below"]) as room, Folder.open(live) as source, room.make("tree") as target:
        mover = Mover(room, PARTIAL)
        mover.move_all(source, target, record["stay"])
        dress(target.fd, source.fd, os.fstat(source.fd))
    return mover.stayed


def _put_in(record: dict) -> list[str]:
    fresh, name = os.path.split(record["fresh"])
    with Folder.open(fresh, record["below"]) as above:
        if above.look(name) is None:
            return []
        with above.enter(name) as source:
            if os.fstat(source.fd).st_ino != record["inode"]:
                return []  # it is in already; this is another one
            if not os.path.isdir(record["live"]):
                _make_live(record["live"], source)
            with Folder.open(record["live"]) as target:
                mover = Mover(target, record["partial"])
                mover.move_all(source, target, record["stay"])
        _remove_emptied(record, above, name)
    return mover.stayed


def _make_live(live: str, fresh: Folder) -> None:
    """The agent's path is gone: make it, for who owns what comes in."""
    os.mkdir(live, 0o755)
    owner = os.fstat(fresh.fd)
    for name in fresh.names()[:1]:
        owner = fresh.look(name)
    if os.geteuid() == 0:
        os.chown(live, owner.st_uid, owner.st_gid)


def _remove_emptied(record: dict, above: Folder, name: str) -> None:
    """A tree that still holds what could not go in must not be taken for a whole one."""
    try:
        os.rmdir(name, dir_fd=above.fd)
    except OSError:
        os.rename(name, f"{name}.left-{record['inode']}", src_dir_fd=above.fd, dst_dir_fd=above.fd)


def _sync(record: dict) -> None:
    """Make what moved durable, on every file system that took part."""
    known = set()
    for path in (record["live"], record["quarantine"], os.path.dirname(record["fresh"])):
        if os.path.isdir(path) and (device := os.stat(path).st_dev) not in known:
            known.add(device)
            durable.sync_filesystem(path)
