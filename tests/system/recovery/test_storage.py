"""A real file system that fills up or turns read-only under the agent: it comes back, and nothing is lost or half done.

No box: the agent runs in the runtime `direct`, with its code and our data on small ext4 file systems of their own.
"""

import os
import signal
import socket
from pathlib import Path

import pytest

from agentctl.core.errors import EXIT_NO_STORAGE
from agentctl.core.paths import USER, AgentPaths
from agentctl.generations.agent_context import AgentContext
from agentctl.host import disk_space
from agentctl.ledger.database import Ledger
from agentctl.runner import launch, resumption
from agentctl.state.snapshots import snapshot
from integration.world import World, git, wait_until, write
from kit import deadline, effort, launches, rows
from kit.manifest import manifest, missing
from kit.mounts import users
from kit.survival import survived

HISTORY = "".join(f'{{"id": "{n}", "role": "user", "content": "message {n}"}}\n' for n in range(50))
LIMIT_SECONDS = 120
LEFT_BYTES = effort.choose([0, 20_000, 150_000, 600_000, 3_000_000], 2, "bytes left")


BEATS = """
import os, socket, time

door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
while True:
    door.sendto(b"READY=1\\nWATCHDOG=1", os.environ["NOTIFY_SOCKET"])
    time.sleep(0.2)
"""


class Disk:
    """An ext4 of its own, of which root keeps nothing back."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder, self.image = folder, f"{folder}.img"
        folder.mkdir(parents=True)
        with open(self.image, "wb") as file:
            file.truncate(int(size.rstrip("M")) << 20)
        deadline.run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", self.image], check=True)
        deadline.run(["mount", "-o", "loop", self.image, folder], check=True)

    def fill(self, leave: int = 0) -> None:
        """Use up all but `leave` bytes."""
        found = os.statvfs(self.folder)
        fd = os.open(self.folder / "filler", os.O_CREAT | os.O_WRONLY)
        size, step = os.fstat(fd).st_size, max(0, found.f_bfree * found.f_frsize - leave)
        while step >= 1024:
            try:
                os.posix_fallocate(fd, size, step)
                size += step
            except OSError:
                step //= 2
        os.close(fd)

    def free(self) -> None:
        (self.folder / "filler").unlink()

    def remount(self, how: str) -> None:
        wait_until(
            lambda: deadline.run(["mount", "-o", f"remount,{how}", self.folder]).returncode == 0,
            f"a remount {how}",
            LIMIT_SECONDS,
        )

    def close(self) -> None:
        unmount(self.folder)
        os.unlink(self.image)


def unmount(folder: Path) -> None:
    try:
        wait_until(lambda: deadline.run(["umount", folder]).returncode == 0, "an unmount", LIMIT_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is used by {users(folder)}") from None


class StoredWorld(World):
    """A world whose data and state, and whose code, are on disks of their own (or on one)."""

    def __init__(self, monkeypatch, *, apart: bool = True, ballast: str = "8M", size: str = "64M") -> None:
        alert = ["sh", "-c", "echo >>$0 $AGENTCTL_EVENT; cat >>$0", ""]
        super().__init__(monkeypatch, {"probation": {"tries": 1}, "rollback": {"ballast": ballast, "restarts": 1}})
        self.alerts = self.folder / "alerts"
        self.settings["rollback"]["alert"] = [*alert[:3], str(self.alerts)]
        self.data = Disk(self.folder / "data", size)
        self.code_disk = Disk(self.folder / "codes", size) if apart else self.data
        deadline.run(["mv", self.code, self.state, self.code_disk.folder], check=True)
        self.code = self.code_disk.folder / "code"
        if apart:
            deadline.run(["mv", self.code_disk.folder / "state", self.data.folder], check=True)
        self.state = self.data.folder / "state"
        root = str(self.data.folder / "r")
        os.makedirs(f"{root}/run")
        deadline.run(["mount", "-t", "tmpfs", "none", f"{root}/run"], check=True)  # as everywhere
        self.environment["AGENTCTL_ROOT"] = root
        monkeypatch.setenv("AGENTCTL_ROOT", root)
        self.paths = AgentPaths(self.name, USER, dict(os.environ), os.getuid())
        write(self.state, {"history.jsonl": HISTORY})
        self.adopt()

    def break_it(self, unsaved: int = 0) -> None:
        """A candidate that failed for good, with work of every kind in its tree."""
        self.mode("crash", "a bad change")
        write(self.code, {"dirty.py": "not committed\n", "notes.cache": "ignored\n", "sub/deep/x": "untracked\n"})
        with Ledger(self.paths.ledger_path) as ledger:
            begun = launch.begin(AgentContext.open(self.name), ledger)
            launches.fail(ledger, begun.id)
        write(self.state, {"config/plan.json": "what the bad version wrote", "scratch": os.urandom(unsaved)})
        self.before = manifest(self.code, without=(".git",))
        self.rows = self.all("SELECT * FROM launches")

    def check_untouched(self) -> None:
        assert manifest(self.code, without=(".git",)) == self.before
        self.check_kept()

    def check_kept(self) -> None:
        assert "".join(self.history()[:50]) == HISTORY
        with Ledger(self.paths.ledger_path, read_only=True) as ledger:
            assert [rows.select(ledger, "SELECT id FROM launches WHERE id=?", row["id"])[0] for row in self.rows] == [
                {"id": row["id"]} for row in self.rows
            ]
        ids = snapshot.list_ids(self.paths.snapshots_dir)
        assert [problem for i in ids for problem in snapshot.verify(self.paths.snapshots_dir, i)] == []

    def check_rolled_back(self) -> dict:
        self.check_kept()
        assert git(self.code, "rev-parse", "HEAD", "main").split() == [self.first] * 2
        assert git(self.code, "status", "--porcelain") == ""
        (incident,) = self.incidents()
        old = manifest(self.quarantine(incident) / "tree")
        assert not missing(self.before, old, manifest(self.code, without=(".git",)))
        assert (self.state / "config/plan.json").read_text() == "the good plan"
        assert "exit status 1" in (self.state / "BRIEF.md").read_text()
        return incident

    def end(self) -> None:
        for disk in {self.data, self.code_disk}:
            deadline.run(["mount", "-o", "remount,rw", disk.folder], check=False)
        folder, self.folder = self.folder, self.folder / "nothing"
        super().end()
        unmount(self.data.folder / "r/run")
        for disk in {self.data, self.code_disk}:
            disk.close()
        deadline.run(["rm", "-rf", folder], check=True)


def size_of(path: Path) -> int:
    """Return a file's size, 0 where there is none: the ballast comes and goes."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.fixture
def make(monkeypatch):
    made = []
    yield lambda **more: made.append(StoredWorld(monkeypatch, **more)) or made[-1]
    for world in made:
        world.end()


# -- full --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", LEFT_BYTES)
@pytest.mark.parametrize("which", ["data", "code", "one for all"])
def test_a_rollback_on_a_full_disk_lives_on_the_ballast(make, which, leave):
    world = make(apart=which != "one for all")
    world.break_it(unsaved=6_000_000)
    disk_space.ballast_of(world.context).refill()
    (world.code_disk if which == "code" else world.data).fill(leave)
    status = world.rollback_once()
    assert status == 0, world.log
    incident = world.check_rolled_back()
    if which != "code":
        assert "the snapshot of the state as it was" in world.evidence(incident)["left_out"]
        assert "of the ballast" in world.log
    survived("a full disk", "rollback, with ballast", 1)


@pytest.mark.parametrize("leave", LEFT_BYTES)
@pytest.mark.parametrize("apart", [True, False])
def test_without_ballast_it_waits_and_goes_on_when_there_is_room(make, apart, leave):
    world = make(apart=apart, ballast="0")
    world.break_it()
    for disk in {world.data, world.code_disk}:
        disk.fill(leave)
    status = world.rollback_once()
    if status == 0:  # that little was enough
        assert leave > 0
    else:
        assert status == EXIT_NO_STORAGE, world.log
        assert "no room on the file system of" in world.log and "df -h" in world.log
        assert "Traceback" not in world.log
        for disk in {world.data, world.code_disk}:
            disk.free()
        world.check_kept()
        assert world.rollback_once() == 0, world.log
    world.check_rolled_back()
    survived("a full disk", "rollback, without ballast", 1)


def test_an_agent_that_fills_its_disk_is_brought_back_and_the_ballast_made_again(make):
    world = make(ballast="8M")
    world.start()
    world.until_beating(limit_seconds=LIMIT_SECONDS)
    files = [Path(path) for path in disk_space.ballast_of(world.context).paths]
    assert len(files) == 2
    wait_until(lambda: all(f.exists() for f in files), "the ballast", LIMIT_SECONDS)
    size = files[0].stat().st_size
    world.stop()
    world.rows, world.before = world.launches(), None
    world.mode("crash", "a bad change")
    world.data.fill()
    world.code_disk.fill()
    world.start()
    world.until_outcome("recovered", LIMIT_SECONDS)
    world.check_kept()
    assert size_of(files[0]) < size
    world.data.free()
    world.code_disk.free()
    wait_until(
        lambda: all(f.exists() for f in files) and not disk_space.ballast_of(world.context).is_wanted(),
        "the ballast again",
        LIMIT_SECONDS,
    )
    survived("a full disk", "the agent's whole life", 1)


def test_a_session_that_is_told_on_a_full_disk_ends_nobody(make):
    world = make(ballast="0")
    world.commit({"agent.py": BEATS}, "beats and writes nothing")
    world.start()
    launch = world.until_beating(2)
    world.data.fill()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        for session in ("first", "newest"):
            door.sendto(f"X_AGENTCTL_SESSION={session}".encode(), world.paths.notify_socket_path)
    world.until(lambda: "cannot be written down" in world.log or len(world.launches()) > 1, "the full disk to be met")
    world.data.free()
    world.until(lambda: resumption.read_session(world.context) == "newest", "the session")
    assert [row["id"] for row in world.launches() if not row["ended_at"]] == [launch["id"]]


def test_down_for_want_of_room_it_tells_once_and_comes_back_by_itself(make):
    world = make(ballast="0")
    world.break_it()
    world.data.fill()
    world.code_disk.fill()
    running = world.start()
    wait_until(
        lambda: world.alerts.exists() and "full or read-only" in world.alerts.read_text(), "the alert", LIMIT_SECONDS
    )
    assert running.poll() is None
    assert manifest(world.code, without=(".git",)) == world.before
    world.data.free()
    world.code_disk.free()
    world.until_outcome("recovered", LIMIT_SECONDS)
    assert world.alerts.read_text().count("is down: the disk is full or read-only") == 1
    survived("a full disk", "the agent's whole life", 1)


# -- read-only ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["data", "code", "one for all"])
def test_a_rollback_on_a_read_only_disk(make, which):
    world = make(apart=which != "one for all")
    world.break_it()
    disk = world.code_disk if which == "code" else world.data
    disk.remount("ro")
    assert world.rollback_once() == EXIT_NO_STORAGE, world.log
    assert "read-only" in world.log.lower() and "remount,rw" in world.log and "Traceback" not in world.log
    disk.remount("rw")
    world.check_untouched()
    assert all(incident["outcome"] == "" for incident in world.incidents())
    assert world.rollback_once() == 0, world.log
    world.check_rolled_back()
    survived("a read-only disk", "rollback", 1)


def test_the_code_turns_read_only_under_the_agent(make):
    world = make()
    world.start()
    first = world.until_beating(limit_seconds=LIMIT_SECONDS)
    world.stop()
    world.rows = world.launches()
    world.mode("crash", "a bad change")
    world.before = manifest(world.code, without=(".git",))
    world.code_disk.remount("ro")
    world.start()
    wait_until(
        lambda: world.alerts.exists() and "full or read-only" in world.alerts.read_text(), "the alert", LIMIT_SECONDS
    )
    world.check_untouched()
    assert not any(incident["outcome"] == "recovered" for incident in world.incidents())
    world.code_disk.remount("rw")
    world.until_outcome("recovered", LIMIT_SECONDS)
    world.until_beating(generation=1, after=first["id"], limit_seconds=LIMIT_SECONDS)
    world.check_kept()
    survived("a read-only disk", "the agent's whole life", 1)


def test_a_launch_on_a_read_only_disk_says_so(make):
    world = make()
    world.data.remount("ro")
    running = world.start()
    wait_until(lambda: "Read-only file system" in world.log, "the complaint", LIMIT_SECONDS)
    if running.poll() is None:
        running.send_signal(signal.SIGTERM)
        deadline.wait(running, timeout=LIMIT_SECONDS)
    world.data.remount("rw")
    world.start()
    world.until_beating(limit_seconds=LIMIT_SECONDS)
    survived("a read-only disk", "launch", 1)
