"""A container engine for tests: a dockerd and containerd of our own, with their own folder, socket and network.

The engine runs in a network and a mount namespace of its own, below a keeper process that adopts what the engine
leaves behind: when the keeper's input ends, however that happens, every process and every mount of it ends too.
Container ids, volumes (`volume_path`) and process ids are as seen from outside.
"""

from __future__ import annotations

import glob
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"  # Debian's docker before a stray newer one
START_SECONDS, STOP_SECONDS, CALL_SECONDS = 120.0, 30.0, 300.0
CLOSE_SECONDS = 4 * STOP_SECONDS  # the keeper waits for the engine, and then for containerd
PR_SET_CHILD_SUBREAPER = 36
NEEDED = ("dockerd", "containerd", "docker", "unshare", "ip")
BASE = "agentctl-base:13"


class EngineError(Exception):
    """The engine could not do what was asked."""


def why_not() -> str:
    """Say what hinders an engine on this machine, or nothing."""
    if os.geteuid() != 0:
        return "a container engine of our own needs root"
    lacking = [name for name in NEEDED if not shutil.which(name, path=PATH)]
    if lacking:
        return f"not installed: {', '.join(lacking)} (Debian: docker.io)"
    argv = ["unshare", "--net", "--mount", "true"]
    tried = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=CALL_SECONDS)
    return f"no namespaces of our own: {tried.stderr.strip()}" if tried.returncode else ""


class Engine:
    """One engine; `with Engine() as engine:` starts it and ends it with all that it ran."""

    def __init__(self, parent: str = "/tmp", plugin: Path | None = None, disk: str = "") -> None:
        """Make its folder; with `plugin` (a Compose v2 program) `environment` lets docker find it.

        `disk` is the size of a disk of its own, in memory; who asks for it is in a mount namespace (`kit.mounts`).
        """
        self.folder = Path(tempfile.mkdtemp(prefix="age", dir=parent))
        self.host = f"unix://{self.folder}/sock"
        self.log_path = self.folder / "log"
        self.environment = {"PATH": PATH, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.folder / "config")}
        (self.folder / "config/cli-plugins").mkdir(parents=True)
        if disk:
            from . import mounts

            mounts.tmpfs(self.folder / "data", disk)
        self._has_disk = bool(disk)
        if plugin is not None:
            (self.folder / "config/cli-plugins/docker-compose").symlink_to(plugin)
        self._keeper: subprocess.Popen | None = None

    def __enter__(self) -> Engine:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_) -> None:
        self.close()

    # -- life -----------------------------------------------------------------------------------------------

    def start(self) -> Engine:
        """Start the engine, for the first time or again; return when it answers."""
        if self._keeper is None:
            argv = ["unshare", "--net", "--mount", "--propagation", "slave", sys.executable, "-I", __file__, "keep"]
            with open(self.log_path, "ab") as log:
                self._keeper = subprocess.Popen(
                    [*argv, str(self.folder)],
                    stdin=subprocess.PIPE,
                    bufsize=0,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
        self._tell("start")
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            if time.monotonic() > deadline:
                raise EngineError(f"the engine does not answer within {START_SECONDS:g} s:\n{self.log()}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End the engine as a shutdown does: it stops its containers."""
        self._tell("stop")

    def kill(self) -> None:
        """SIGKILL the engine and containerd, as a crash does; what ran in containers goes on running."""
        self._tell("kill")

    def is_up(self) -> bool:
        return self.docker("version", check=False).returncode == 0

    def close(self) -> None:
        """End everything and remove the folder."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stdin.close()
            try:
                keeper.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                keeper.kill()
                keeper.wait(STOP_SECONDS)
            keeper.stdout.close()
        for depth in ("", "*/"):  # cgroup v2, and v1 with its many trees
            for folder in glob.glob(f"/sys/fs/cgroup/{depth}{self.folder.name}"):
                _remove_cgroup(folder)
        if self._has_disk:
            from . import mounts

            mounts.release(self.folder / "data")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _tell(self, word: str) -> None:
        self._keeper.stdin.write(word.encode() + b"\n")
        answer = b""
        if select.select([self._keeper.stdout], [], [], CLOSE_SECONDS)[0]:  # without a buffer nothing is hidden from it
            answer = self._keeper.stdout.readline()
        if answer.strip() != b"done":
            raise EngineError(f"{word}: the keeper of the engine says {answer!r}:\n{self.log()}")

    # -- work -----------------------------------------------------------------------------------------------

    def docker(self, *words: object, check: bool = True, **more) -> subprocess.CompletedProcess:
        """Run a docker command; raise EngineError with what it said if `check` and it fails."""
        return self.run(["docker", *map(str, words)], check=check, **more)

    def run(self, argv: list[str], *, check=True, env: dict | None = None, **more) -> subprocess.CompletedProcess:
        """Run a command that talks to this engine."""
        more.setdefault("timeout", CALL_SECONDS)
        try:
            env = {**self.environment, **(env or {})}
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, **more)
        except subprocess.TimeoutExpired as error:
            said = b"".join(filter(None, (error.stdout, error.stderr))).decode("utf-8", "replace")
            raise EngineError(f"waited {more['timeout']:g} s in vain for {' '.join(argv)}: {said[-2000:]}\n"
                              f"the engine's log:\n{self.log()}") from None  # fmt: skip
        if check and done.returncode:
            raise EngineError(f"{' '.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    def ask(self, form: str, *names: str) -> str:
        """Return what `docker inspect` says of things in that form."""
        return self.docker("inspect", "--format", form, *names).stdout.strip()

    def import_base(self, tar: Path, tag: str = BASE) -> str:
        """Import a root tree as the base image; return the image's id."""
        return self.docker("import", tar, tag).stdout.strip()

    def volume_path(self, name: str) -> Path:
        """Return where the files of a volume are, outside."""
        return Path(self.ask("{{.Mountpoint}}", name))

    def containers(self, *labels: str) -> list[str]:
        """List the ids of all containers with these labels, running or not."""
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return self.docker("ps", "--all", "--quiet", "--no-trunc", *filters).stdout.split()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]


def _remove_cgroup(folder: str) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while os.path.exists(folder) and time.monotonic() < deadline:
        for inner, _, _ in os.walk(folder, topdown=False):
            try:
                os.rmdir(inner)
            except OSError:  # something in it is still ending
                time.sleep(0.02)


# -- the keeper ---------------------------------------------------------------------------------------------


class Keeper:
    """Holds the namespaces and is the parent of last resort of all that runs in them."""

    def __init__(self, folder: str) -> None:
        self.folder, self.engine = folder, None

    def serve(self) -> None:
        """Do what the controller says, until its end of the pipe closes."""
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=STOP_SECONDS)
        try:
            for line in sys.stdin:
                getattr(self, line.strip())()
                print("done", flush=True)
        finally:
            self.stop()
            self.end_all()

    def start(self) -> None:
        for left_over in ("pid", "exec/containerd/containerd.pid"):
            Path(self.folder, left_over).unlink(missing_ok=True)  # of a killed one: its number may be another's now
        off = ("iptables", "ip6tables", "ip-forward", "ip-masq", "userland-proxy")
        argv = [
            "dockerd",
            "--data-root",
            f"{self.folder}/data",
            "--exec-root",
            f"{self.folder}/exec",
            "--pidfile",
            f"{self.folder}/pid",
            "--host",
            f"unix://{self.folder}/sock",
            "--bridge=none",
            "--default-address-pool",
            "base=172.16.0.0/12,size=26",  # nobody removes the networks of a test
            "--cgroup-parent",
            f"/{Path(self.folder).name}",
            *(f"--{name}=false" for name in off),
        ]
        self.engine = subprocess.Popen(argv, env={"PATH": PATH}, stdin=subprocess.DEVNULL, stdout=2)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        engine, self.engine = self.engine, None
        if engine is None:
            return
        children = [pid for pid in _children(engine.pid) if _name(pid) == "containerd"]
        engine.send_signal(number)
        try:
            engine.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait(STOP_SECONDS)
        for pid in children:  # an engine that was killed leaves its containerd running
            _signal(pid, signal.SIGKILL)
            _until_gone(pid)

    def end_all(self) -> None:
        """SIGKILL everything that came to us, until nothing comes any more."""
        while True:
            for pid in _children(os.getpid()):
                _signal(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def _children(pid: int) -> list[int]:
    found = []
    for task in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            found += map(int, Path(task).read_text().split())
        except OSError:
            continue
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _until_gone(pid: int) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return
        except ChildProcessError:
            if not os.path.exists(f"/proc/{pid}"):
                return
        time.sleep(0.02)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _prctl(option: int, value: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        Keeper(sys.argv[2]).serve()
    else:  # check: say whether an engine is possible here
        print(why_not() or "possible")
        sys.exit(1 if why_not() else 0)
