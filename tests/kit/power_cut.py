"""Power cuts: a machine whose only disk is a file system in a file, and that disk loses its power at a chosen moment.

The cut is the file system's own shutdown call: what was not on disk by then never will be, the journal may or may
not be. Then everything that runs there dies, the disk is unmounted, mounted again (which replays the journal), and
the machine boots anew: other process ids, another boot id, empty run-time folders.

All of it needs root and happens in a mount namespace of its own, which takes mounts and loop devices along when it
ends. `apart` makes that namespace; `Disk` is the disk, `Machine` boots on it, `Cut` says when the power fails.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import select
import signal
import struct
import sys
import time
import traceback
import uuid

from kit import deadline

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32)
EVERYTHING_WRITTEN, LOG_WRITTEN, NOTHING_WRITTEN = 0, 1, 2  # of what is still in memory
PR_SET_PDEATHSIG = 1
CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 4096, 16384, 1 << 18, 2
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LIMIT_SECONDS, APART_SECONDS = 180.0, 4 * 3600.0  # of one boot; of all, at night
KINDS = {  # small, and without work left for a kernel thread to do behind our back
    "ext4": (64, ["mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "loop"),
    "xfs": (320, ["mkfs.xfs", "-q", "-f"], "loop,nouuid"),
}


class Failed(AssertionError):
    """Something in another process failed; the text is its traceback."""


class Cut:
    """When the power fails (before the Nth line, or after some seconds), and how much had been written by then.

    `sync_line`: the kernel happened to write everything back before that line.
    """

    def __init__(
        self, *, line: int = 0, seconds: float = 0.0, flush: int = NOTHING_WRITTEN, sync_line: int = 0
    ) -> None:
        self.line, self.seconds, self.flush, self.sync_line = line, seconds, flush, sync_line

    def __str__(self) -> str:
        when = f"line {self.line}" if self.line else f"{self.seconds:.4f} s"
        synced = f", all written back at line {self.sync_line}" if self.sync_line else ""
        return f"power cut at {when} (flush {self.flush}{synced})"


def spread(lines: int, seconds: float, count: int, chance: random.Random) -> list[Cut]:
    """Choose `count` cuts over a run of so many lines: one in each part of it, some of them at a random moment."""
    cuts = []
    for number in range(count):
        line = int((number + chance.random()) * lines / count) + 1
        flush = chance.choices((NOTHING_WRITTEN, LOG_WRITTEN, EVERYTHING_WRITTEN), (6, 5, 1))[0]
        sync_line = chance.randrange(1, line + 1) if chance.random() < 0.5 else 0
        if chance.random() < 0.2:
            cuts.append(Cut(seconds=chance.random() * seconds, flush=flush))
        else:
            cuts.append(Cut(line=line, flush=flush, sync_line=sync_line))
    return cuts


class Disk:
    """A file system of a kind (`ext4`, `xfs`) in the file `image`, to be mounted at `path`."""

    def __init__(self, kind: str, image: str, path: str) -> None:
        self.kind, self.image, self.path = kind, image, path

    def make(self) -> None:
        """Make an empty file system and mount it."""
        size, argv, _ = KINDS[self.kind]
        with open(self.image, "wb") as file:
            file.truncate(size << 20)
        deadline.run([*argv, self.image], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        """Mount it; after a cut that replays the journal."""
        argv = ["mount", "-o", KINDS[self.kind][2], self.image, self.path]
        done = deadline.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, f"the disk does not mount any more: {done.stderr}"

    def unmount(self) -> None:
        """Unmount it; the loop device goes with it. Fails if something still uses it: nothing may."""
        deadline.run(["umount", self.path], check=True)

    def keep(self, copy: str) -> None:
        """Copy the (unmounted) disk, to come back to it."""
        _copy_sparse(self.image, copy)

    def reset(self, copy: str) -> None:
        """Be the disk again that was kept."""
        _copy_sparse(copy, self.image)

    def check(self) -> None:
        """Have the file system's own checker look at the unmounted disk."""
        argv = ["fsck.ext4", "-f", "-n"] if self.kind == "ext4" else ["xfs_repair", "-n"]
        done = deadline.run([*argv, self.image], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


class Run:
    """What one boot came to: what it told, how many lines it took, whether the power failed, what went wrong."""

    def __init__(self) -> None:
        self.told: list = []
        self.lines, self.seconds, self.was_cut, self.error = 0, 0.0, False, ""


class Machine:
    """Boots on a disk. `volatile` names the folders that are empty after a boot; `is_ours(path)` whose lines count."""

    def __init__(self, disk: Disk, volatile: list[str], is_ours, output: str) -> None:
        self.disk, self.volatile, self.is_ours, self.output = disk, volatile, is_ours, output

    def run(self, do, cut: Cut | None = None) -> Run:
        """Boot, run `do(tell)` in a process of its own, and (with `cut`) lose power: at the latest when it has ended.

        What `do` tells with `tell(value)` leaves the machine at once. Raise Failed if it fails, unless the power did.
        """
        found, began = Run(), time.monotonic()
        power = os.open(self.disk.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            _unshare(CLONE_NEWPID)
            pid = os.fork()
            if pid == 0:
                os.close(read_end)
                self._live(do, cut, power, write_end)
            os.close(write_end)
            self._listen(found, pid, cut, power, read_end)
            if cut is not None and not found.was_cut:
                shutdown(power, cut.flush)
        finally:
            os.close(read_end)
            os.close(power)
            self._forget_boot()
            _join_own_processes()
        found.seconds = time.monotonic() - began
        if found.error and not found.was_cut:
            raise Failed(found.error + self._last_words())
        return found

    def power_cycle(self) -> None:
        """Unmount and mount again."""
        self.disk.unmount()
        self.disk.mount()

    def _live(self, do, cut: Cut | None, power: int, pipe: int) -> None:
        """Be the first process of the machine: when it ends, every other one does."""
        status = 1
        try:
            _die_with_parent()
            self._boot()
            tracer = Tracer(cut or Cut(), power, self.is_ours, lambda: _say(pipe, "cut", True))
            sys.settrace(tracer.trace)
            try:
                do(lambda value: _say(pipe, "told", value))
            finally:
                sys.settrace(None)
            _say(pipe, "lines", tracer.count)
            status = 0
        except BaseException:  # noqa: BLE001 - a forked child must never run the parent's code
            _say(pipe, "error", traceback.format_exc())
        finally:
            os._exit(status)

    def _boot(self) -> None:
        output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for stream in (1, 2):
            os.dup2(output, stream)
        mount("proc", "/proc", "proc")
        boot_id = f"{self.output}.boot_id"
        with open(boot_id, "w") as file:
            file.write(f"{uuid.uuid4()}\n")
        mount(boot_id, BOOT_ID, None, MS_BIND)
        for folder in self.volatile:
            mount("tmpfs", folder, "tmpfs", 0, "size=16m,mode=755")

    def _forget_boot(self) -> None:
        for path in (*self.volatile, BOOT_ID):
            _libc.umount2(os.fsencode(path), MNT_DETACH)  # refused where the boot did not come that far
        if not os.path.exists("/proc/self"):  # the machine's, in which we are not; else it had none yet
            _libc.umount2(b"/proc", MNT_DETACH)

    def _listen(self, found: Run, pid: int, cut: Cut | None, power: int, pipe: int) -> None:
        began, text = time.monotonic(), b""
        cut_at = began + cut.seconds if cut and cut.seconds else None
        while True:
            until = cut_at or began + LIMIT_SECONDS
            if select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                data = os.read(pipe, 1 << 16)
                if not data:
                    break
                text += b"" if found.was_cut else data  # told while the power was out: no machine could have
                continue
            if cut_at:
                while select.select([pipe], [], [], 0)[0] and (data := os.read(pipe, 1 << 16)):
                    text += data
                shutdown(power, cut.flush)
                found.was_cut, cut_at = True, None
            os.kill(pid, signal.SIGKILL)
            began += 3 * LIMIT_SECONDS
        os.waitpid(pid, 0)
        for line in text.decode().splitlines():
            what, value = json.loads(line)
            if what == "told":
                found.told.append(value)
            elif what == "cut":
                found.was_cut = True
            else:
                setattr(found, what, value)
        if not (found.was_cut or found.error or found.lines):
            found.error = f"the run did not end within {LIMIT_SECONDS:g} s, or died"

    def _last_words(self) -> str:
        with open(self.output, errors="replace") as file:
            return f"\noutput:\n{file.read()[-3000:]}"


class Tracer:
    """Counts the lines of the process it is made in, and lets the power fail before the right one."""

    def __init__(self, cut: Cut, power: int, is_ours, say) -> None:
        self.cut, self.power, self.is_ours, self.say = cut, power, is_ours, say
        self.count, self.pid = 0, os.getpid()

    def trace(self, frame, event, _):
        """Be what sys.settrace wants."""
        if not self.is_ours(frame.f_code.co_filename):
            return None
        if event == "line" and os.getpid() == self.pid:
            self.count += 1
            if self.count == self.cut.sync_line:
                _check(_libc.syncfs(self.power), "syncfs")
            if self.count == self.cut.line:
                shutdown(self.power, self.cut.flush)
                self.say()
                os._exit(0)
        return self.trace


def shutdown(fd: int, flush: int) -> None:
    """Let the disk that `fd` is on lose its power, as the file system sees it."""
    fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", flush))


def apart(do):
    """Run `do()` in a forked process with mounts of its own and return its result; raise Failed with its traceback."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _die_with_parent()
            os.close(read_end)
            _unshare(CLONE_NEWNS)
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            _say(write_end, "result", do())
            status = 0
        except BaseException:  # noqa: BLE001 - a forked child must never run the parent's code
            _say(write_end, "error", traceback.format_exc())
        finally:
            os._exit(status)
    os.close(write_end)
    try:
        text = _read_all(read_end)
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not text:
        raise Failed("the process died without a word")
    what, value = json.loads(text)
    if what == "error":
        raise Failed(value)
    return value


def _read_all(pipe: int) -> str:
    """Read what a child says, to its end; each boot in it has a limit of its own."""
    data, over = b"", time.monotonic() + APART_SECONDS
    while True:
        if not select.select([pipe], [], [], max(0.0, over - time.monotonic()))[0]:
            raise Failed(f"waited {APART_SECONDS:g} s in vain for the end of what runs apart; it said: {data[-3000:]}")
        if not (more := os.read(pipe, 1 << 16)):
            return data.decode()
        data += more


def why_impossible(kinds: tuple[str, ...] = tuple(KINDS)) -> str:
    """Say why there can be no power cuts here, '' if there can."""
    if os.geteuid() != 0:
        return "power cuts need root"
    for kind in kinds:
        done = deadline.run(["sh", "-c", f"command -v {KINDS[kind][1][0]}"], capture_output=True)
        if done.returncode:
            return f"{KINDS[kind][1][0]} is missing"
    try:
        apart(lambda: [_try_cut(kind) for kind in kinds])
    except Failed as error:
        return f"a cut does not work here: {str(error).strip().splitlines()[-1]}"
    return ""


def _try_cut(kind: str) -> None:
    mount("tmpfs", "/mnt", "tmpfs")
    os.mkdir("/mnt/disk")
    disk = Disk(kind, "/mnt/image", "/mnt/disk")
    disk.make()
    fd = os.open(disk.path, os.O_RDONLY)
    shutdown(fd, NOTHING_WRITTEN)
    os.close(fd)
    disk.unmount()


def mount(source, target, kind, flags: int = 0, data=None) -> None:
    """mount(2); raise OSError."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(result, f"mount {kind or source or ''} at {target}")


_libc = ctypes.CDLL(None, use_errno=True)


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _die_with_parent() -> None:
    """Leave nothing behind, no mount and no loop device, when the test is killed."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _join_own_processes() -> None:
    """Have the next child be an ordinary one again: the namespace of the last boot is dead."""
    fd = os.open(f"/proc/{os.getpid()}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWPID), "setns")
    finally:
        os.close(fd)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _say(pipe: int, what: str, value) -> None:
    data = json.dumps([what, value]).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def _copy_sparse(source: str, target: str) -> None:
    """Copy what is data and not zero: an xfs log is 64 MB of nothing."""
    with open(source, "rb") as old, open(target, "wb") as new:
        size, at = os.fstat(old.fileno()).st_size, 0
        new.truncate(size)
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:  # a hole up to the end
                return
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                block = os.pread(old.fileno(), min(1 << 18, end - at), at)
                if block.strip(b"\0"):
                    os.pwrite(new.fileno(), block, at)
                at += len(block)
