"""The slots: `standby` (last known good, ready to be switched in) and `quarantine`, beside the code or inside it.

A switch is one `renameat2(RENAME_EXCHANGE)`: 20 us whatever the size, and at every instant the agent's path is
one complete version. Where that is impossible it is a `Move`, entry by entry, on record. Nothing is deleted here but
half-made standbys of our own.
"""

from __future__ import annotations

import errno
import os
import stat

from ..core import durable, fast_json
from ..core.errors import AgentctlError, CommandFailed
from ..core.identity import Identity
from ..core.paths import SLOTS_INSIDE
from ..host import command
from ..host.mount_namespace import call_libc, mount_points
from .agent_repo import Repository
from .move_entries import Folder, is_under_way, relocate
from .tree_capture import Staging
from .vault import Vault

RENAME_EXCHANGE = 2
AT_FDCWD = -100
COPY = "/bin/cp"
MOVED = "moved entry by entry"
VERSION = 1  # of the standby's note; one that does not say is of version 1


class Slots:
    """The slots folder of one code folder. `owner` is who the trees belong to.

    `notes` is a folder of ours for what is known about them: inside the code the agent could take it away.
    """

    def __init__(
        self, folder: str, live: str, owner: Identity | None, *, notes: str = "", is_mounted: bool = False
    ) -> None:
        self.folder, self.live, self.owner = folder, live, owner
        self.notes = notes or folder
        self.is_inside, self.is_mounted = folder.startswith(f"{live}/"), is_mounted
        self.standby = f"{folder}/standby"
        self.standby_index = f"{self.notes}/standby.index"
        self._note_path = f"{self.notes}/standby.json"
        self.move_path = f"{self.notes}/moving.json"

    def create(self) -> None:
        """Make the folder; the agent may pass through it but not list or change it.

        Nothing of the agent's is taken for it: what stands there and is not ours is moved aside.
        """
        self.check_mounted()
        above, name = os.path.split(self.folder)
        if self._is_planted():
            os.rename(self.folder, f"{above}/{name}.not-ours-{os.urandom(4).hex()}")
        os.makedirs(self.folder, mode=0o711, exist_ok=True)
        os.makedirs(f"{self.folder}/quarantine", mode=0o711, exist_ok=True)

    def _is_planted(self) -> bool:
        """Tell whether something of another user's stands where the slots belong; inside the code, also a link."""
        try:
            facts = os.lstat(self.folder) if self.is_inside else os.stat(self.folder)
        except FileNotFoundError:
            return False
        if facts.st_uid != os.geteuid() or not stat.S_ISDIR(facts.st_mode):
            return True
        return self.is_inside and facts.st_mode & 0o022 != 0

    def check_mounted(self) -> None:
        """Raise AgentctlError where a file system is to be mounted at the agent's path, and none is."""
        if not self.is_mounted:
            return
        if self.live not in mount_points():
            raise AgentctlError(
                f"nothing is mounted at {self.live}: the agent's file system is missing",
                f"mount {self.live}, then start the agent again",
            )

    @property
    def is_moving(self) -> bool:
        """Tell whether a switch entry by entry was begun and is not done: the agent's path is no version then."""
        return os.path.exists(self.move_path) and self._move().is_open

    def finish_move(self) -> str:
        """Go on with a switch entry by entry that was cut off; say how it went."""
        stayed = self._move().go_on()
        return MOVED + (f"; a mount stayed where it was: {', '.join(stayed)}" if stayed else "")

    def _move(self):
        from .move_tree import Move  # only where it is needed: the ordinary switch is an exchange

        return Move(self.move_path)

    def standby_note(self) -> dict:
        """Return what the standby holds ({} if there is none that is complete, or we cannot tell: it is made anew)."""
        raw = durable.read(self._note_path)
        if not raw or not os.path.isdir(self.standby) or self.is_moving or self._is_planted():
            return {}
        try:
            note = fast_json.loads(raw)
        except ValueError:
            return {}
        if not isinstance(note, dict) or note.get("version", 1) != VERSION:
            return {}
        return note if note.get("inode") == os.stat(self.standby).st_ino else {}

    def prepare(self, vault: Vault, generation: int, revision: str, commit: str, environment: list[str]) -> None:
        """Make the standby of a generation: tree, declared environment, index; durable before it counts.

        `environment` names folders of the live tree that belong to the code and are copied from it.
        """
        self.create()
        name = os.path.basename(self.standby)  # a candidate's is made while a rollback may make the good one's
        partial = f"{self.notes}/{name}.partial"
        self._discard(partial)
        os.mkdir(partial, mode=0o700)  # sealed from the first byte on: we write there as root what the agent made
        vault.lay_out(revision, partial)
        self._own(partial)
        for path in environment:
            self._copy_environment(path, partial)
        index = f"{self.notes}/{name}.index.partial"
        vault.write_index(commit or revision, partial, index)
        durable.sync_filesystem(self.notes)
        if self.is_inside:
            from .move_tree import bring_standby

            bring_standby(partial, self.folder, self.live)
            os.rename(index, self.standby_index)
        else:
            self._retire_standby()
            os.rename(index, self.standby_index)
            os.rename(partial, self.standby)
        inode = os.stat(self.standby).st_ino
        note = {"version": VERSION, "generation": generation, "inode": inode, "environment": environment}
        durable.write(self._note_path, fast_json.dumps(note).encode(), 0o600)
        if not self.is_inside:
            self._discard(f"{self.standby}.old")

    def _retire_standby(self) -> None:
        """Take the present standby away in one rename: half removed in its place, its note would still vouch for it.

        A tree there that no note vouches for may be the agent's, from a switch that was cut off: it is kept.
        """
        old = f"{self.standby}.old"
        self._discard(old)
        if self.standby_note():
            os.rename(self.standby, old)
        elif os.path.lexists(self.standby):
            kept = f"{self.folder}/quarantine/set-aside-{os.lstat(self.standby).st_ino}-{os.urandom(3).hex()}"
            os.mkdir(kept, mode=0o711)
            os.rename(self.standby, f"{kept}/tree")

    def quarantine_path(self, incident: str, move: int) -> str:
        """Where the tree goes that the `move`-th switch of an incident replaces."""
        return f"{self.folder}/quarantine/{incident}" + ("" if move <= 1 else f"-{move}")

    def switch(self, fresh: str, fresh_inode: int, quarantine: str) -> str:
        """Put the tree at `fresh` at the agent's path and the old one whole at `quarantine/tree`; tell how.

        Safe to repeat: what is already done is recognised by `fresh_inode`, the inode of the fresh tree.
        """
        self.create()
        if self.is_moving:
            self.finish_move()
        if _inode(fresh) != fresh_inode and self._move().has_put_in(fresh_inode):
            return MOVED
        self._make_quarantine(quarantine)
        if self.is_inside:
            return self._put_in_by_entry(fresh, quarantine)
        kept = f"{quarantine}/tree"
        how = "already there"
        if _inode(self.live) != fresh_inode:
            self._unseal(fresh)
            how = self._put_in_place(fresh, quarantine)
        if _inode(fresh) not in (0, fresh_inode) and not os.path.lexists(kept):
            os.rename(fresh, kept)
        for folder in (os.path.dirname(self.live), self.folder, quarantine):
            durable.sync_folder(folder)
        return how

    def _make_quarantine(self, path: str) -> None:
        if not self.is_inside:
            os.makedirs(path, mode=0o711, exist_ok=True)
            return
        folder = Folder.open(self.folder, self.live)
        for name in path[len(self.folder) + 1 :].split("/"):
            with folder as above:
                folder = above.make(name, 0o711)
        os.close(folder.fd)

    def _put_in_place(self, fresh: str, quarantine: str) -> str:
        try:
            if not os.path.lexists(self.live):
                os.rename(fresh, self.live)
                return "the agent's path was gone; the good tree was put there"
            exchange(fresh, self.live)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EBUSY, errno.EINVAL):
                raise
            return self._put_in_by_entry(fresh, quarantine)
        return "exchanged"

    def _put_in_by_entry(self, fresh: str, quarantine: str) -> str:
        """Move instead. `.git` stays where it is: it would be carried back at once; lost+found is the file system's."""
        stay = [".git", SLOTS_INSIDE, "lost+found"] if self.is_inside else [".git"]
        below = self.live if self.is_inside else self.folder
        self._move().begin(live=self.live, below=below, fresh=fresh, quarantine=quarantine, stay=stay)
        return self.finish_move()

    def _copy_environment(self, name: str, target: str) -> None:
        source = f"{self.live}/{name}"
        if not os.path.lexists(source) or not _make_way(f"{target}/{name}"):
            return
        os.makedirs(os.path.dirname(f"{target}/{name}"), exist_ok=True)
        for last_try in (False, False, True):
            before = _fingerprint(source)
            copied = command.run(
                [COPY, "-a", "--reflink=auto", "-T", source, f"{target}/{name}"],
                env={"LC_ALL": "C"},
                limit_seconds=3600,
                check=False,
            )
            if copied.status == 0 and (before == _fingerprint(source) or last_try):
                return
            self._discard(f"{target}/{name}")
        raise CommandFailed(copied.argv, copied.status, copied.stdout, copied.stderr)

    def _own(self, folder: str) -> None:
        """Give what is in a tree that we wrote to the agent's user; the folder itself stays ours until it goes in.

        Nobody reaches into a tree that waits: what the agent breaks while it runs must not reach its way back.
        """
        if self.owner is None or self.owner.is_us:
            return
        uid, gid = self.owner.uid, self.owner.gid
        for top, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(f"{top}/{name}", uid, gid, follow_symlinks=False)

    def _unseal(self, fresh: str) -> None:
        """Give the tree that goes in to the agent, with the mode of the folder it replaces."""
        if os.path.isdir(self.live):
            os.chmod(fresh, os.stat(self.live).st_mode & 0o7777 | 0o700)  # whatever the agent did to itself
        else:
            os.chmod(fresh, 0o755)
        if self.owner is not None and not self.owner.is_us:
            os.chown(fresh, self.owner.uid, self.owner.gid)

    def _discard(self, path: str) -> None:
        """Remove a copy of ours that is not needed (never anything that was the agent's)."""
        if not os.path.lexists(path):
            return
        if not path.startswith((f"{self.folder}/standby", f"{self.notes}/standby")):
            raise AgentctlError(f"refusing to remove {path}: not a standby of ours")
        command.run(["/bin/rm", "-rf", "--", path], env={"LC_ALL": "C"}, limit_seconds=3600)


def exchange(one: str, other: str) -> None:
    """Exchange two paths in one system call; raise OSError where the file system cannot."""
    paths = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other))
    try:
        call_libc("renameat2", *paths, RENAME_EXCHANGE, what=one)
    except OSError as error:
        raise OSError(error.errno, error.strerror, one, None, other) from None


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return 0


def _make_way(path: str) -> bool:
    """Take an empty folder away, as git makes one for a submodule; tell whether nothing is there."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _fingerprint(folder: str) -> tuple:
    """Tell whether a folder changed while it was copied: newest change time and number of entries."""
    newest, count = os.lstat(folder).st_ctime_ns, 0
    for top, folders, files in os.walk(folder):
        newest = max(newest, os.lstat(top).st_ctime_ns)
        count += len(folders) + len(files)
    return newest, count


# -- carrying --------------------------------------------------------------------------------------
# Carry entries of the replaced tree over into the good one, by rename. Runs as the agent's user, deletes nothing.


def carry_over(old: str, new: str, names: list[str]) -> str:
    """Move entries from the old tree into the new one; what is in the way there stays. Safe to repeat.

    Run it as the agent's user. Returns the names that were not moved because something was in the way.
    """
    blocked = []
    _allow_moves(old)
    for name in (given.rstrip("/") for given in names):
        source, target = f"{old}/{name}", f"{new}/{name}"
        if not os.path.lexists(source) and not is_under_way(target):
            continue
        if os.path.lexists(target):
            blocked.append(name)
            continue
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _move(source, target)
        except (OSError, AgentctlError):
            blocked.append(name)
    return "\n".join(blocked)


def _move(source: str, target: str) -> None:
    """Rename; a folder that its owner may not write to cannot change its parent, nor leave one like it."""
    try:
        relocate(source, target)
    except PermissionError:
        _allow_moves(os.path.dirname(source))
        mode = os.lstat(source).st_mode & 0o7777
        is_folder = os.path.isdir(source) and not os.path.islink(source)
        if is_folder:
            os.chmod(source, mode | 0o700)
        relocate(source, target)
        if is_folder:
            os.chmod(target, mode)


def _allow_moves(folder: str) -> None:
    """Give the owner of a folder the right to move what is in it."""
    try:
        mode = os.stat(folder).st_mode & 0o7777
        if mode & 0o700 != 0o700:
            os.chmod(folder, mode | 0o700)
    except OSError:
        return


# -- what git ignores ------------------------------------------------------------------------------
# In the replaced tree: asked ahead, and chosen from for the good one.


def ask_ignored(staging: Staging, folder: str) -> command.Running | None:
    """Ask git ahead what it ignores in the old tree: on a large one that takes longer than all the steps together.

    git works from its current folder, so it goes on with the old tree when the trees are exchanged under it. What
    appears after it has looked stays in quarantine with the rest.
    """
    try:
        return staging.ask_ignored(folder)
    except (CommandFailed, OSError):  # the tree is gone; then there is nothing to carry over
        return None


def choose_carried(
    staging: Staging, repository: Repository, old: str, inquiry: command.Running | None, environment: list[str]
) -> list[str]:
    """Choose what moves into the good tree: what git ignores there, too, but no environment and no byte code.

    Byte code stays behind because a stale one with a matching time stamp would run the condemned code again.
    """
    carried = [
        name
        for name in _read_ignored(staging, old, inquiry)
        if name.rstrip("/") not in environment and "__pycache__" not in name.split("/") and not name.endswith(".pyc")
    ]
    return staging.keep_ignored(carried) + repository.inner_worktrees()


def _read_ignored(staging: Staging, old: str, inquiry: command.Running | None) -> list[str]:
    """Return what git ignores; asked again where it failed, because tree and `.git` moved while it looked."""
    for asked in (inquiry, None):
        try:
            return staging.read_ignored(asked or staging.ask_ignored(old), (old, staging.code_dir))
        except (CommandFailed, OSError):
            continue
    from .repair_staging import find_ignored

    # A power cut may have torn the index for good, and `.env` and its like must come along.
    return find_ignored(staging, old)
