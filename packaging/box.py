#!/usr/bin/env python3
"""Boot a real systemd as PID 1 in namespaces, over an overlay of `/` or of another root tree.

For the demo and the system tests. Needs root, Linux 5.14+, Python 3.11+; nothing else to install.
It is no security boundary: it keeps the machine clean, it does not hold an attacker.

Three processes: the controller (whoever holds a `Box`), the keeper (owns the mount namespace with
the overlay, so the box's disk outlives a crash of the box), and the box's PID 1. The keeper ends
when the controller's end of its pipe closes, however that happens, and PID 1 ends with the keeper.
"""

import argparse
import contextlib
import ctypes
import fcntl
import functools
import json
import os
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from pathlib import Path

BASE = Path("/run/agentctl-box")
PREFIX = "agentctl-box-"
STALE_SECONDS = 60  # younger folders may belong to a box that is just being made
END_SECONDS = 60  # for the end of everything that runs in a box, on a machine that has much else to do
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")

DEBIAN13_PACKAGES = [
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "dbus-user-session"),
    *("python3", "python3-venv", "tmux", "git", "procps", "strace", "iproute2"),
    "ca-certificates",
]
DEBIAN_RELEASES = {
    *("bullseye", "bookworm", "trixie", "forky", "sid"),
    *("oldstable", "stable", "testing", "unstable"),
}
STAMP = ".agentctl-box-root"

# What the distribution's *.wants folders may still pull in: the rest is slow or wants hardware.
WANTED = {
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-journal-flush.service",
    "systemd-tmpfiles-setup.service",
    "systemd-user-sessions.service",
    "dbus.socket",
}

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x20000000, 0x40000000
CLONE_ALL = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
CAPS_THAT_REACH_THE_MACHINE = (16, 17, 25, 34, 35)  # module, rawio, time, syslog, wake alarm
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "loongarch64": 41}
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


class BoxError(Exception):
    """The box could not do what was asked."""


# ---------------------------------------------------------------------------------------------
# The box, as its user sees it
# ---------------------------------------------------------------------------------------------


class Box:
    """A machine to break: boot it, run things in it, crash it, boot it again, throw it away."""

    def __init__(
        self,
        root="/",
        *,
        name="box",
        workdir=None,
        shared=(),
        copied=(),
        ext4=None,
        tmpfs=None,
        size="4G",
        user_manager=False,
    ):
        """Describe a box; nothing happens before `boot()`.

        `workdir` is where the box makes its own folder. `shared` are (host path, box path) pairs,
        bound read-only; the folders of `copied` pairs are copied in, once. `ext4` and `tmpfs`
        map paths of the box to sizes of disks of their own, which live as long as the box.
        """
        self.root = os.path.realpath(root)
        self.name = name
        self.user_manager = user_manager
        self.boot_seconds = None
        self.pid = None
        self._base = Path(workdir) if workdir else BASE
        self._options = {
            "root": self.root,
            "name": name,
            "shared": [[os.path.realpath(host), str(inside)] for host, inside in shared],
            "copied": [[os.path.realpath(host), str(inside)] for host, inside in copied],
            "ext4": dict(ext4 or {}),
            "tmpfs": dict(tmpfs or {}),
            "size": size,
            "user_manager": user_manager,
        }
        self._keeper = None
        self._went_down = None
        self._folder = None
        self._unread = b""
        self._runs = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def is_up(self):
        """Say whether PID 1 of the box lives; notices a box that went down by itself."""
        while self.pid is not None and (event := self._next_event(0)):
            self._note(event)
        return self.pid is not None

    # -- life ----------------------------------------------------------------------------------

    def boot(self, timeout_seconds=120, *, wait=True):
        """Boot, and with `wait` return when systemd has finished every start job."""
        if self.is_up:
            raise BoxError(f"box {self.name} is up already")
        deadline = time.monotonic() + timeout_seconds
        started_at = time.monotonic()
        if self._keeper is None:
            self._start_keeper(deadline)
        self._tell("boot")
        self.pid = self._await("started", deadline)["pid"]
        if wait:
            self._await("booted", deadline)
        else:
            self._wait_for_manager(deadline)
        self.boot_seconds = time.monotonic() - started_at
        return self

    def reboot(self, timeout_seconds=60):
        """Shut down cleanly and boot again; files and journal persist, /run and /tmp do not."""
        self._shut_down("reboot", timeout_seconds)
        return self.boot(timeout_seconds)

    def power_off(self, timeout_seconds=60):
        """Shut down cleanly; `boot()` comes up on the same disk."""
        self._shut_down("poweroff", timeout_seconds)

    def crash(self):
        """Kill everything in the box at once. Unlike a power cut it loses no unsynced writes."""
        if self.is_up:
            os.kill(self.pid, signal.SIGKILL)
            self.wait_down(END_SECONDS)

    def wait_down(self, timeout_seconds=60):
        """Wait until the box is down, and say how it went: reboot, poweroff, or signal N."""
        if self.is_up:
            self._await("ended", time.monotonic() + timeout_seconds)
        return self._went_down

    def close(self):
        """Kill everything, unmount everything, remove the box's folder. Closing twice is fine."""
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        keeper.stdin.close()
        try:
            keeper.wait(2 * END_SECONDS)  # it waits that long itself
        except subprocess.TimeoutExpired:
            keeper.kill()  # PID 1 goes with it, and the mounts with the last of them
            keeper.wait()
        keeper.stdout.close()
        self.pid = None
        # Ours alone: what else is new there may be a box that somebody is just making.
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    # -- work ----------------------------------------------------------------------------------

    def run(self, argv, *, check=True, timeout=120, user=None, env=None, input=None, cwd="/"):
        """Run a command in the box to its end; return a CompletedProcess with text output.

        On a timeout everything the command started is killed. Raise CalledProcessError (its
        output is in the notes) if `check` and the status is not 0.
        """
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        pipe = subprocess.PIPE
        process, cgroup = self._popen(argv, user, env, cwd, stdin=stdin, stdout=pipe, stderr=pipe)
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            _write(cgroup / "cgroup.kill", "1")
            process.kill()
            process.communicate()
            raise
        finally:
            with contextlib.suppress(OSError):  # busy: the command left something running
                cgroup.rmdir()
        if check and process.returncode:
            error = subprocess.CalledProcessError(process.returncode, argv, out, err)
            error.add_note(f"stdout: {out[-4000:]}\nstderr: {err[-4000:]}")
            raise error
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def popen(self, argv, *, user=None, env=None, cwd="/", **popen_options):
        """Start a command in the box and return its Popen; it dies with the box at the latest."""
        return self._popen(argv, user, env, cwd, **popen_options)[0]

    def path(self, inside):
        """Return the host's path of a file in the box. Absolute links in it lead to the host's."""
        if self.is_up:
            return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")
        return self._kept / "root" / str(inside).lstrip("/")

    def start_user_manager(self, user, timeout_seconds=60):
        """Start the user's own systemd and keep it over boots; `run(user=)` then reaches it."""
        if not self.user_manager:
            raise BoxError("the box was made without user_manager=True")
        self.run(["loginctl", "enable-linger", user], timeout=timeout_seconds)
        uid = self._account(user)[0]
        self.run(["systemctl", "start", f"user@{uid}.service"], timeout=timeout_seconds)

    # -- inner ---------------------------------------------------------------------------------

    @property
    def _kept(self):
        """Return the box's folder as the keeper sees it, with the mounts."""
        if self._keeper is None:
            raise BoxError(f"box {self.name} is not there")
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}")

    def _start_keeper(self, deadline):
        if reason := is_possible(self.root):
            raise BoxError(f"cannot make a box: {reason}")
        self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(self._base)
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._base.resolve()))
        self._lock = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        options = json.dumps(self._options | {"folder": str(self._folder)})
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__), "keep", options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._lock],
            start_new_session=True,  # a ^C at the terminal is for the controller
            bufsize=0,
        )
        self._unread = b""
        try:
            self._await("kept", deadline)
        except BaseException:
            self.close()
            raise

    def _tell(self, word):
        self._keeper.stdin.write(word.encode() + b"\n")

    def _next_event(self, timeout_seconds):
        """Return the keeper's next word, or None after the timeout. Raise BoxError at its end."""
        pipe = self._keeper.stdout
        while b"\n" not in self._unread:
            if not select.select([pipe], [], [], max(0, timeout_seconds))[0]:
                return None
            data = os.read(pipe.fileno(), 65536)
            if not data:
                raise BoxError(f"the keeper of box {self.name} ended")
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return json.loads(line)

    def _note(self, event):
        if event["event"] == "ended":
            self.pid, self._went_down = None, event["how"]
        if event["event"] == "error":
            raise BoxError(event["text"])

    def _await(self, wanted, deadline):
        while event := self._next_event(deadline - time.monotonic()):
            self._note(event)
            if event["event"] == wanted:
                return event
            if event["event"] == "ended":
                raise BoxError(f"the box went down ({event['how']}){self._last_words()}")
        raise BoxError(f"box {self.name}: no '{wanted}' in time{self._last_words()}")

    def _last_words(self):
        words = []
        with contextlib.suppress(OSError):
            words.append((self._folder / "console").read_text(errors="replace"))
        for question in (["systemctl", "list-jobs"], ["journalctl", "-b", "-n", "30"]):
            with contextlib.suppress(OSError, BoxError, subprocess.TimeoutExpired):
                words.append(self.run([*question, "--no-pager"], check=False, timeout=5).stdout)
        return ":\n" + "\n".join(words)[-6000:]

    def _wait_for_manager(self, deadline):
        while self.run(["systemctl", "list-jobs"], check=False).returncode:
            if time.monotonic() > deadline:
                raise BoxError(f"systemd does not answer in box {self.name}{self._last_words()}")
            time.sleep(0.02)

    def _shut_down(self, verb, timeout_seconds):
        if not self.is_up:
            raise BoxError(f"box {self.name} is not up")
        ask = ["systemctl", "--no-wall", "--no-block", verb]
        self.run(ask, check=False, timeout=timeout_seconds)
        self.wait_down(timeout_seconds)

    def _popen(self, argv, user, env, cwd, **popen_options):
        if not self.is_up:
            raise BoxError(f"box {self.name} is not up")
        self._runs += 1
        cgroup = self._kept / "cgroup" / self._folder.name / "box/box-exec" / str(self._runs)
        cgroup.mkdir(parents=True)
        as_user, environment = self._as_user(user)
        entering = [
            *("/bin/sh", "-c", 'echo 0 >"$0" && exec "$@"', str(cgroup / "cgroup.procs")),
            *(shutil.which("nsenter", path=PATH), "-t", str(self.pid), "-m", "-u", "-i", "-n"),
            *("-p", "-C", "--wdns=" + str(cwd), "--", *as_user, *map(str, argv)),
        ]
        if popen_options.get("stdout") == subprocess.PIPE:
            popen_options |= {"text": True, "encoding": "utf-8", "errors": "replace"}
        environment |= {key: str(value) for key, value in (env or {}).items()}
        return subprocess.Popen(entering, env=environment, **popen_options), cgroup

    def _as_user(self, user):
        environment = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/root", "USER": "root"}
        if term := os.environ.get("TERM"):
            environment["TERM"] = term
        if user is None:
            return [], environment
        uid, gid, home = self._account(user)
        environment |= {"HOME": home, "USER": user, "LOGNAME": user}
        if self.path(f"/run/user/{uid}").is_dir():
            environment["XDG_RUNTIME_DIR"] = f"/run/user/{uid}"
            environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path=/run/user/{uid}/bus"
        return ["setpriv", "--reuid", uid, "--regid", gid, "--init-groups", "--"], environment

    def _account(self, user):
        for line in self.path("/etc/passwd").read_text().splitlines():
            name, _, uid, gid, _, home, _ = line.split(":")
            if name == user:
                return uid, gid, home
        raise BoxError(f"no user {user} in box {self.name}")


def is_possible(root="/"):
    """Return None if a box can be booted here, else the reason in words."""
    if os.geteuid() != 0:
        return "not root"
    if not sys.platform.startswith("linux"):
        return "not Linux"
    for tool in ("nsenter", "mount"):
        if not shutil.which(tool, path=PATH):
            return f"no {tool} (util-linux)"
    if not any(os.path.exists(f"{root}/{path}") for path in SYSTEMD):
        return f"no systemd in {root}"
    return _probe()


@functools.cache
def _probe():
    """Try in a child what a box needs of the kernel; return None or what went wrong."""
    code = "import box; box._try_namespaces()"
    probe = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={"PATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = (probe.stderr or probe.stdout).strip().splitlines()
    return None if probe.returncode == 0 else (lines or ["the probe of the kernel failed"])[-1]


def _try_namespaces():
    base = tempfile.mkdtemp(prefix=PREFIX)
    try:
        _unshare(CLONE_ALL)
        if pid := os.fork():
            _, status = os.waitpid(pid, 0)
            raise SystemExit(os.waitstatus_to_exitcode(status))
        status = 1
        try:
            _mount(None, "/", None, MS_REC | MS_PRIVATE)
            _mount("tmpfs", base, "tmpfs")
            for folder in ("upper", "work", "root", "cgroup"):
                os.mkdir(f"{base}/{folder}")
            data = f"lowerdir=/,upperdir={base}/upper,workdir={base}/work"
            _mount("overlay", f"{base}/root", "overlay", data=data)
            _mount("proc", f"{base}/root/proc", "proc")
            _mount("sysfs", f"{base}/root/sys", "sysfs", MS_RDONLY)
            _mount("cgroup2", f"{base}/cgroup", "cgroup2")
            status = 0
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            with contextlib.suppress(OSError):
                _umount(base)  # or the parent, in the same mount namespace, could not remove it
            os._exit(status)
    except OSError as error:
        raise SystemExit(str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(base)


def _remove_stale(base):
    """Remove folders of boxes whose controller and keeper are both gone."""
    for folder in base.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime < STALE_SECONDS:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(handle)


# ---------------------------------------------------------------------------------------------
# The keeper: a process of its own that holds the disk and starts PID 1
# ---------------------------------------------------------------------------------------------


class Keeper:
    """Hold the box's mounts and cgroup, boot it on request, clean up when the pipe closes."""

    def __init__(self, options):
        self.options = options
        self.folder = Path(options["folder"])
        self.disk = self.folder / "disk"
        self.root = self.folder / "root"
        self.cgroups = self.folder / "cgroup"
        self.cgroup = self.cgroups / self.folder.name
        self.init_pid = self.stage_pid = self.stage_fd = None

    def serve(self):
        try:
            self.set_up()
            say("kept")
            while self.serve_one():
                pass
        except Exception:  # noqa: BLE001 - whatever it is, the controller hears of it
            say("error", text=traceback.format_exc())
        finally:
            self.clean_up()

    def serve_one(self):
        waiting_for = [0, self.notify] + ([self.stage_fd] if self.stage_fd else [])
        ready = select.select(waiting_for, [], [])[0]
        if self.notify in ready and b"READY=1" in self.notify.recv(65536).split(b"\n"):
            say("booted")
        if self.stage_fd in ready:
            say("ended", how=self.bury())
        if 0 in ready:
            if not os.read(0, 4096):
                return False
            self.boot()
        return True

    # -- the disk ------------------------------------------------------------------------------

    def set_up(self):
        _unshare(CLONE_NEWNS)
        _mount(None, "/", None, MS_REC | MS_PRIVATE)
        for folder in (self.disk, self.root, self.cgroups, self.folder / "notify"):
            folder.mkdir()
        self.join_cgroup()
        _mount("tmpfs", self.disk, "tmpfs", data=f"mode=755,size={self.options['size']}")
        self.lay_over(self.options["root"], self.root)
        for place in _mounts_below(self.options["root"]):
            inside = self.root / os.path.relpath(place, self.options["root"])
            self.lay_over(place, inside)
        for path, size in self.options["tmpfs"].items():
            _mount("tmpfs", self.make(path), "tmpfs", data=f"mode=755,size={size}")
        for path, size in self.options["ext4"].items():
            self.add_ext4(path, size)
        for host, inside in self.options["copied"]:
            command(["cp", "-a", f"{host}/.", self.make(inside)])
        furnish(self.root, self.options["name"], self.options["user_manager"])
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.folder / "notify/socket"))

    def lay_over(self, lower, at):
        number = len(os.listdir(self.disk))
        upper, work = self.disk / f"{number}/upper", self.disk / f"{number}/work"
        upper.mkdir(parents=True)
        work.mkdir()
        status = os.stat(lower)
        os.chmod(upper, status.st_mode & 0o7777)
        os.chown(upper, status.st_uid, status.st_gid)
        lower = str(lower).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
        _mount("overlay", at, "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={work}")

    def add_ext4(self, path, size):
        image = self.disk / f"{len(os.listdir(self.disk))}.ext4"
        command(["truncate", "-s", size, image])
        command(["mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", image])
        command(["mount", "-t", "ext4", "-o", "loop", image, self.make(path)])

    def make(self, path):
        place = self.root / str(path).lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        return place

    # -- the cgroup ----------------------------------------------------------------------------

    def join_cgroup(self):
        """Make our own branch of the tree; /keeper below it shows that the box is not stale."""
        _mount("cgroup2", self.cgroups, "cgroup2")
        self.came_from = _own_cgroup()
        remove_stale_cgroups(self.cgroups)
        (self.cgroup / "keeper").mkdir(parents=True)
        _write(self.cgroup / "keeper/cgroup.procs", "0")
        for controller in (self.cgroup / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                _write(self.cgroup / "cgroup.subtree_control", f"+{controller}")

    # -- PID 1 ---------------------------------------------------------------------------------

    def boot(self):
        self.forget_notifications()
        remove_cgroup(self.cgroup / "box")
        (self.cgroup / "box").mkdir()
        read_end, write_end = os.pipe()
        self.stage_pid = os.fork()
        if self.stage_pid == 0:
            os.close(read_end)
            _never_return(self.stage, write_end)
        os.close(write_end)
        self.stage_fd = os.pidfd_open(self.stage_pid)
        word = os.read(read_end, 64)
        os.close(read_end)
        if word:
            self.init_pid = int(word)
            # The helper must leave the box's root cgroup: processes there keep systemd from
            # handing controllers down.
            _write(self.cgroup / "keeper/cgroup.procs", str(self.stage_pid))
            say("started", pid=self.init_pid)

    def forget_notifications(self):
        """Read what the box said before it went down: its READY=1 is not one of the next boot."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.notify.recv(65536, socket.MSG_DONTWAIT)

    def stage(self, report):
        """Enter the box's namespaces and fork PID 1: only a child enters a new pid namespace."""
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        console = os.open(self.folder / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open("/dev/null", os.O_RDWR)
        for source, target in ((nothing, 0), (console, 1), (console, 2)):
            os.dup2(source, target)
        _write(self.cgroup / "box/cgroup.procs", "0")
        _unshare(CLONE_ALL)
        pid = os.fork()
        if pid == 0:
            os.close(report)
            _never_return(become_init, self.root, self.options, self.folder / "notify")
        os.write(report, str(pid).encode())
        os.close(report)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(128 - code if code < 0 else code)

    def bury(self):
        _, status = os.waitpid(self.stage_pid, 0)
        code = os.waitstatus_to_exitcode(status)
        os.close(self.stage_fd)
        self.init_pid = self.stage_pid = self.stage_fd = None
        # reboot(2) in a pid namespace ends its init with one of these two signals
        known = {128 + signal.SIGHUP: "reboot", 128 + signal.SIGINT: "poweroff"}
        return known.get(code, f"signal {code - 128}" if code > 128 else f"exit {code}")

    # -- the end -------------------------------------------------------------------------------

    def clean_up(self):
        if self.init_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
        if self.stage_pid:
            os.waitpid(self.stage_pid, 0)
        if self.cgroup.exists():
            with contextlib.suppress(OSError):
                _write(self.cgroups / self.came_from / "cgroup.procs", "0")
            remove_cgroup(self.cgroup)
        for place in (self.root, self.disk, self.cgroups):
            with contextlib.suppress(OSError):
                _umount(place)
        shutil.rmtree(self.folder, ignore_errors=True)


def say(event, **more):
    """Tell the controller; a controller that is gone does not matter here."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"event": event, **more}).encode() + b"\n")


def _never_return(function, *arguments):
    """Run in a forked child and leave without the parent's clean-up, whatever happens."""
    try:
        function(*arguments)
    except BaseException:  # noqa: BLE001 - a forked child must never run the parent's code
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def _own_cgroup():
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:].lstrip("/")
    return ""


def remove_cgroup(cgroup):
    """Kill what lives in a cgroup and remove it with all below it; it may be missing."""
    deadline = time.monotonic() + END_SECONDS
    while cgroup.exists():
        with contextlib.suppress(OSError):
            _write(cgroup / "cgroup.kill", "1")
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if time.monotonic() > deadline:
            raise BoxError(f"cgroup {cgroup.name} cannot be emptied")
        if cgroup.exists():
            time.sleep(0.005)


def remove_stale_cgroups(cgroups):
    for cgroup in cgroups.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            is_old = time.time() - cgroup.stat().st_mtime > STALE_SECONDS
            if is_old and "populated 0" in (cgroup / "cgroup.events").read_text():
                remove_cgroup(cgroup)


def _mounts_below(root):
    """Return where real file systems are mounted below the root: an overlay hides them."""
    own = ("proc", "sys", "dev", "run", "tmp", "boot")
    pseudo = set()
    for line in Path("/proc/filesystems").read_text().splitlines():
        if line.startswith("nodev") and line.split()[1] not in ("overlay", "zfs", "virtiofs", "9p"):
            pseudo.add(line.split()[1])
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        place = fields[4].encode().decode("unicode_escape")
        relative = os.path.relpath(place, root)
        is_below = relative != "." and not relative.startswith("..")
        if not is_below or relative.split("/")[0] in own or place in found:
            continue
        if fields[fields.index("-") + 1] not in pseudo and os.path.isdir(place):
            found.append(place)
    return sorted(found)


def furnish(root, name, user_manager):
    """Make a copy of a machine a quiet machine of its own, once, before its first boot."""
    etc = root / "etc"
    _replace(etc / "machine-id", uuid.uuid4().hex + "\n", 0o444)
    _replace(etc / "hostname", name + "\n")
    _replace(etc / "fstab", "")
    _replace(etc / "crypttab", "")
    _replace(etc / "resolv.conf", "")
    for gone in (root / ".dockerenv", root / "var/lib/systemd/linger"):
        _remove(gone)
    units = etc / "systemd/system"
    _remove(units)
    units.mkdir(parents=True)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    keep_wants(root, WANTED | ({"systemd-logind.service"} if user_manager else set()))
    mask_generators(root)
    config = {
        "journald": "[Journal]\nStorage=persistent\nSystemMaxUse=256M\nRateLimitIntervalSec=0\n",
        # a core pattern is the machine's, not the box's
        "system": "[Manager]\nDefaultLimitCORE=0\n",
    }
    for which, text in config.items():
        (etc / f"systemd/{which}.conf.d").mkdir(exist_ok=True)
        _replace(etc / f"systemd/{which}.conf.d/zz-box.conf", text)
    journal = root / "var/log/journal"
    _remove(journal)
    journal.mkdir(parents=True)


def keep_wants(root, wanted):
    """Remove every other link from the distribution's own *.wants folders."""
    for lib in {os.path.realpath(root / lib) for lib in ("usr/lib", "lib")}:
        for wants in Path(lib, "systemd/system").glob("*.wants"):
            for link in wants.iterdir():
                if link.name not in wanted:
                    link.unlink()


def mask_generators(root):
    """Mask all generators: they would read the machine's tables and old init scripts."""
    masks = root / "etc/systemd/system-generators"
    masks.mkdir(parents=True, exist_ok=True)
    for place in ("usr/lib", "lib", "usr/local/lib"):
        for generator in (root / place / "systemd/system-generators").glob("*"):
            _remove(masks / generator.name)
            (masks / generator.name).symlink_to("/dev/null")


def _replace(path, text, mode=0o644):
    _remove(path)
    path.write_text(text)
    path.chmod(mode)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------
# PID 1 of the box, until systemd takes over
# ---------------------------------------------------------------------------------------------


def become_init(root, options, notify):
    """Mount what a machine needs, enter the root, become systemd."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    furnish_kernel_views(root, notify)
    make_devices(root / "dev")
    for path, mode in (("run", "755"), ("tmp", "1777")):
        (root / path).mkdir(exist_ok=True)
        _mount("tmpfs", root / path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    bind(notify, root / "run/host")
    for host, inside in options["shared"]:
        bind(host, root / inside.lstrip("/"), read_only=True)
    socket.sethostname(options["name"])
    raise_loopback()
    for capability in CAPS_THAT_REACH_THE_MACHINE:
        _prctl(PR_CAPBSET_DROP, capability)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would pass that on
    enter(root)
    environment = {
        "container": "agentctl-box",
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "NOTIFY_SOCKET": "/run/host/socket",
    }
    systemd = next(path for path in SYSTEMD if os.path.exists(path))
    os.execve(systemd, ["/sbin/init", "--log-target=journal", "--show-status=no"], environment)


def furnish_kernel_views(root, notify):
    """Mount /proc and /sys so that settings of the machine cannot be changed from the box."""
    for path in ("proc", "sys", "dev"):
        (root / path).mkdir(exist_ok=True)
    _mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    bind(root / "proc/sys/net", root / "proc/sys/net")  # ours: it belongs to the net namespace
    boot_id = notify / "boot_id"  # the kernel's own does not change when only the box boots
    _replace(boot_id, f"{uuid.uuid4()}\n", 0o444)
    bind(boot_id, root / "proc/sys/kernel/random/boot_id", read_only=True)
    for path in (root / "proc/sys", root / "proc/sysrq-trigger"):
        if path.exists():
            bind(path, path, read_only=True)
    _mount("sysfs", root / "sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _mount("cgroup2", root / "sys/fs/cgroup", "cgroup2", flags)


def make_devices(dev):
    _mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=4M")
    nodes = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9, "console": 3}
    for name, minor in nodes.items():
        make_node(dev / name, 1, minor)
    make_node(dev / "tty", 5, 0)
    for name, target in {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }.items():
        (dev / name).symlink_to(target)
    (dev / "pts").mkdir()
    (dev / "shm").mkdir()
    _mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC,
           "newinstance,ptmxmode=0666,mode=620,gid=5")  # fmt: skip
    _mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def make_node(path, major, minor):
    os.mknod(path, 0o020666, os.makedev(major, minor))
    path.chmod(0o666)  # whatever the umask


def bind(source, target, read_only=False):
    source, target = Path(source), Path(target)
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        # A remount must repeat the flags that the mount has.
        kept = os.statvfs(target).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def raise_loopback():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def enter(root):
    """Make the folder the root, and let go of the machine's mounts."""
    os.chdir(root)
    _check(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root", root)
    _umount(".")
    os.chdir("/")


# ---------------------------------------------------------------------------------------------
# System calls
# ---------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what, subject):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", str(subject))


def _mount(source, target, kind, flags=0, data=None):
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(result, f"mount {kind or source or ''}".strip(), target)


def _umount(target):
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), "umount", target)


def _unshare(flags):
    _check(_libc.unshare(flags), "unshare", hex(flags))


def _prctl(option, value):
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl", option)


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


# ---------------------------------------------------------------------------------------------
# A root tree with another systemd
# ---------------------------------------------------------------------------------------------


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "agentctl"


def default_debian13():
    return cache_folder() / "debian13"


def is_debian13(folder):
    """Say whether the folder holds a complete tree with the packages wanted today."""
    with contextlib.suppress(OSError):
        return set((Path(folder) / STAMP).read_text().split()) == set(DEBIAN13_PACKAGES)
    return False


def build_debian13(folder=None, mirror=None):
    """Build a Debian 13 tree in the folder unless it is there; return the folder."""
    folder = Path(folder or default_debian13()).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_debian13(folder):
            for left_over in folder.parent.glob(f".{folder.name}.tmp-*"):
                shutil.rmtree(left_over)
            _build_debian13(folder, mirror or debian_mirror())
    return folder


def _build_debian13(folder, mirror):
    place = tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent)
    try:
        tree = Path(place, "tree")
        command(debootstrap_command(tree, mirror))
        (tree / STAMP).write_text("\n".join(DEBIAN13_PACKAGES) + "\n")
        tree.chmod(0o755)
        if folder.exists():
            folder.rename(Path(place, "old"))
        tree.rename(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def debootstrap_command(tree, mirror):
    packages = ",".join(DEBIAN13_PACKAGES)
    if not shutil.which("mmdebstrap") and not shutil.which("debootstrap"):
        command(["apt-get", "install", "-y", "--no-install-recommends", "mmdebstrap"])
    if not shutil.which("mmdebstrap"):
        return ["debootstrap", "--variant=minbase", f"--include={packages}", "trixie", tree, mirror]
    slim = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "locale", "doc")]
    start = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={packages}"]
    return [*start, '--aptopt=Acquire::Languages "none"', *proxies(), *slim, "trixie", tree, mirror]


def proxies():
    """Return mmdebstrap's options for the proxies that this machine's apt uses."""
    found = []
    for scheme in ("http", "https"):
        if value := _output(["apt-config", "dump", "--format=%v", f"Acquire::{scheme}::Proxy"]):
            found.append(f'--aptopt=Acquire::{scheme}::Proxy "{value}"')
    return found


def debian_mirror():
    """Return the Debian archive that this machine's own package sources name."""
    if mirror := os.environ.get("AGENTCTL_DEBIAN_MIRROR"):
        return mirror
    form = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    for line in _output(["apt-get", "indextargets", "--format", form]).splitlines():
        uri, release, component = (line.split() + ["", "", ""])[:3]
        if release in DEBIAN_RELEASES and component == "main":
            return uri
    raise BoxError("apt's sources name no Debian archive; set AGENTCTL_DEBIAN_MIRROR to one")


def command(argv):
    """Run a helper: its chatter goes to stderr; raise BoxError if it fails."""
    try:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BoxError(f"{argv[0]} failed: {error}") from error


def _output(argv):
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise BoxError(f"{argv[0]} failed: {error}") from error


# ---------------------------------------------------------------------------------------------
# The command line
# ---------------------------------------------------------------------------------------------


def main(arguments=None):
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        return options.do(options)
    except KeyboardInterrupt:
        return 130
    except BoxError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def parser():
    top = argparse.ArgumentParser(prog="box.py", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(required=True, metavar="VERB")
    run = verbs.add_parser("run", help="boot, run a command inside, clean up, exit with its status")
    run.add_argument("command", nargs="+", metavar="CMD")
    run.set_defaults(do=do_run)
    shell = verbs.add_parser("shell", help="boot and open a shell inside")
    shell.set_defaults(do=do_run, command=["/bin/bash", "-i"])
    for verb in (run, shell):
        verb.add_argument("--root", default="/", help="root tree to boot (default: /)")
        verb.add_argument("--name", default="box", help="host name inside")
        verb.add_argument("--user", help="run as this user of the box")
        verb.add_argument("--share", action="append", default=[], metavar="HOST:BOX")
        verb.add_argument("--ext4", action="append", default=[], metavar="PATH:SIZE")
        verb.add_argument("--size", default="4G", help="room for changes, in memory")
        verb.add_argument("--user-manager", action="store_true", help="start logind")
    debian = verbs.add_parser("debian13", help="build a Debian 13 root tree, once")
    debian.add_argument("folder", nargs="?", help=f"default: {default_debian13()}")
    debian.set_defaults(do=do_debian13)
    check = verbs.add_parser("check", help="say whether a box is possible here")
    check.add_argument("--root", default="/")
    check.set_defaults(do=do_check)
    return top


def do_run(options):
    pairs = [pair.split(":", 1) for pair in options.share]
    disks = dict(pair.split(":", 1) for pair in options.ext4)
    box = Box(options.root, name=options.name, shared=pairs, ext4=disks, size=options.size,
              user_manager=options.user_manager)  # fmt: skip
    with box:
        box.boot()
        process = box.popen(options.command, user=options.user)
        if sys.stdin.isatty():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a ^C is for the command
        code = process.wait()
        return 128 - code if code < 0 else code


def do_debian13(options):
    print(build_debian13(options.folder))
    return 0


def do_check(options):
    reason = is_possible(options.root)
    print(reason or "possible")
    return 1 if reason else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        Keeper(json.loads(sys.argv[2])).serve()
    else:
        sys.exit(main())
