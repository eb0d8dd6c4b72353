"""Run one outside program: argv only, environment as given, a wall-clock limit, optionally as another user.

The only place that starts processes on the recovery path. Written on fork and exec because importing
`subprocess` costs 13 ms there, as much as everything this module does.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from ..core.errors import AgentctlError, CommandFailed
from ..core.identity import Identity
from . import procfs

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IDLE_SECONDS = 1.0
SIGTERM, SIGKILL = 15, 9  # `signal` costs an enum import; these two never change


class Result:
    """How a program ended: `status` is the exit status, or minus the signal that killed it."""

    __slots__ = ("argv", "status", "stderr", "stdout")

    def __init__(self, argv: list[str], status: int, stdout: bytes, stderr: bytes) -> None:
        self.argv, self.status, self.stdout, self.stderr = argv, status, stdout, stderr

    @property
    def text(self) -> str:
        """Standard output as text, without the final newline."""
        return self.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


def run(
    argv: list[str],
    *,
    env: dict[str, str],
    cwd: str = "/",
    stdin: bytes = b"",
    user: Identity | None = None,
    limit_seconds: float = 60.0,
    check: bool = True,
    pass_fds: tuple[int, ...] = (),
) -> Result:
    """Run `argv` to its end and return what it said; kill its whole process group after `limit_seconds`.

    Raise CommandFailed if `check` and it did not exit 0, if it could not be started, or ran out of time.
    """
    running = start(argv, env=env, cwd=cwd, user=user, pass_fds=pass_fds)
    return running.finish(stdin, limit_seconds=limit_seconds, check=check)


def start(
    argv: list[str],
    *,
    env: dict[str, str],
    cwd: str = "/",
    user: Identity | None = None,
    pass_fds: tuple[int, ...] = (),
    own_session: bool = True,
    stdin_fd: int | None = None,
    stdout_fd: int | None = None,
    stderr_fd: int | None = None,
) -> Running:
    """Start `argv` and return it running; pipes stand where no descriptor was given.

    The child gets only the descriptors 0, 1, 2 and `pass_fds`.
    """
    ends = []  # (parent end, child end) for 0, 1, 2
    for fd, given in enumerate((stdin_fd, stdout_fd, stderr_fd)):
        if given is not None:
            ends.append((-1, given))
            continue
        read_end, write_end = os.pipe()
        ends.append((write_end, read_end) if fd == 0 else (read_end, write_end))
    fds = [child_end for _, child_end in ends]
    is_plain = own_session and not pass_fds and (user is None or user.is_us) and cwd == "/" == os.getcwd()
    if is_plain and all(fd > 2 or fd == target for target, fd in enumerate(fds)):
        pid, fault = _spawn(argv, env, fds)
    else:
        pid, fault = _fork(argv, env, cwd, user, pass_fds, own_session, fds)
    for (_, child_end), given in zip(ends, (stdin_fd, stdout_fd, stderr_fd), strict=True):
        if given is None:
            os.close(child_end)
    if fault:
        for parent_end, _ in ends:
            if parent_end >= 0:
                os.close(parent_end)
        raise CommandFailed(argv, 127, b"", b"", fault.decode("utf-8", "replace"))
    return Running(argv, pid, ends[0][0], ends[1][0], ends[2][0])


def _spawn(argv, env, fds) -> tuple[int, bytes]:
    """Start the plain case, where nothing of ours has to run in the child: a third of what fork costs."""
    import _signal

    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)]
    try:
        return os.posix_spawn(
            argv[0],
            argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ),
        ), b""
    except OSError as error:
        return 0, f"cannot start: {error}".encode()


def _fork(argv, env, cwd, user, pass_fds, own_session, fds) -> tuple[int, bytes]:
    """Start a program that needs another user, folder or session; return its pid and why it did not start."""
    fault_read, fault_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(argv, env, cwd, user, pass_fds, own_session, fds, fault_write)
    os.close(fault_write)
    fault = _read_all(fault_read)
    if fault:
        os.waitpid(pid, 0)
    return pid, fault


def call_as(user: Identity | None, function, *args):
    """Call `function(*args)` in a forked child that became `user`, and return its text ('' for None).

    For file work in folders the agent controls: a link planted there must lead no further than the agent's
    own rights. Raise AgentctlError with the child's message if it raised.
    """
    if user is None or user.is_us:
        return function(*args) or ""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _answer(user, write_end, function, args)
    os.close(write_end)
    said = _read_all(read_end).decode("utf-8", "surrogateescape")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        raise AgentctlError(said or f"{function.__name__} as {user.name}: ended with {status}")
    return said


def _answer(user: Identity, write_end: int, function, args) -> None:
    """In the forked child of `call_as`: drop rights, call, write the answer. Never returns."""
    status = 1
    try:
        leave()
        _drop_to(user)
        said = function(*args) or ""
        status = 0
    except BaseException as error:  # noqa: BLE001 - a forked child must never run the parent's code
        said = f"{function.__name__} as {user.name}: {error}"
    try:
        os.write(write_end, said.encode("utf-8", "surrogateescape"))
    finally:
        os._exit(status)


def _drop_to(user: Identity) -> None:
    os.setgroups(user.groups)
    os.setgid(user.gid)
    os.setuid(user.uid)


class Running:
    """A started program; `finish` waits for it. A descriptor of -1 means the caller kept that stream."""

    def __init__(self, argv: list[str], pid: int, stdin: int, stdout: int, stderr: int) -> None:
        self.argv, self.pid = argv, pid
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    def finish(self, stdin: bytes = b"", *, limit_seconds: float = 60.0, check: bool = True, on_idle=None) -> Result:
        """Feed `stdin`, collect both outputs, reap; raise CommandFailed as `run` does.

        `on_idle` is called after each second without a word of the program; where it returns true, that is the end,
        and a text says why.
        """
        deadline = time.monotonic() + limit_seconds
        output = {self.stdout: bytearray(), self.stderr: bytearray()}
        given_up = self._pump(stdin, output, deadline, on_idle)
        status = None if given_up else self._reap(deadline)
        out, err = bytes(output[self.stdout]), bytes(output[self.stderr])
        if status is None:
            self.kill()
            why = given_up if isinstance(given_up, str) else f"no end after {limit_seconds:g}s"
            raise CommandFailed(self.argv, -SIGKILL, out, err, why)
        if check and status != 0:
            raise CommandFailed(self.argv, status, out, err)
        return Result(self.argv, status, out, err)

    def kill(self) -> None:
        """Kill the program's process group and reap it."""
        for pid in (-self.pid, self.pid):
            try:
                os.kill(pid, SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        os.waitpid(self.pid, 0)

    def _pump(self, stdin: bytes, output: dict[int, bytearray], deadline: float, on_idle=None):
        """Feed and collect until all is said; return something true, or why, where that was given up."""
        given_up = False
        poll = select.poll()
        open_fds = {fd for fd in (self.stdin, self.stdout, self.stderr) if fd >= 0}
        for fd in open_fds:
            poll.register(fd, select.POLLOUT if fd == self.stdin else select.POLLIN)
        if self.stdin >= 0:
            os.set_blocking(self.stdin, False)
        sent = 0
        while open_fds:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            ready = poll.poll((min(remaining, IDLE_SECONDS) if on_idle else remaining) * 1000)
            if not ready and on_idle is not None and (given_up := on_idle()):
                break
            for fd, _ in ready:
                if fd == self.stdin:
                    try:
                        sent += os.write(fd, stdin[sent : sent + 65536]) if sent < len(stdin) else 0
                    except BrokenPipeError:
                        sent = len(stdin)
                    is_done = sent >= len(stdin)
                else:
                    chunk = os.read(fd, 65536)
                    output[fd] += chunk
                    is_done = not chunk
                if is_done:
                    poll.unregister(fd)
                    os.close(fd)
                    open_fds.discard(fd)
        for fd in open_fds:
            os.close(fd)
        return given_up or bool(open_fds)

    def _reap(self, deadline: float) -> int | None:
        """Wait for the end: outputs are closed by now, so it is near; a pidfd makes it exact."""
        pidfd = os.pidfd_open(self.pid)
        try:
            remaining = max(0.0, deadline - time.monotonic())
            if not select.select([pidfd], [], [], remaining)[0]:
                return None
        finally:
            os.close(pidfd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _become(argv, env, cwd, user, pass_fds, own_session, fds, fault_write) -> None:
    """In the forked child: turn into the program, or write why not and leave. Never returns."""
    try:
        if own_session:
            os.setsid()
        # Move the wanted descriptors above 2 first, or one dup2 could overwrite the source of the next.
        high = [_dup_above_two(fd) for fd in fds]
        for target, fd in enumerate(high):
            os.dup2(fd, target)
        for fd in pass_fds:
            os.set_inheritable(fd, True)
        if user is not None and not user.is_us:
            _drop_to(user)
        os.chdir(cwd)
        _forgive_signals()
        os.execve(argv[0], argv, env)
    except BaseException as error:  # noqa: BLE001 - a forked child must never run the parent's code
        os.write(fault_write, f"cannot start: {error}".encode())
    os._exit(127)


def _dup_above_two(fd: int) -> int:
    """Duplicate `fd` to a number above 2, closed on exec."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _forgive_signals() -> None:
    """Give the program default signals: Python ignores SIGPIPE and SIGXFSZ, and a child would inherit that."""
    import _signal

    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _read_all(fd: int) -> bytes:
    data = bytearray()
    while chunk := os.read(fd, 4096):
        data += chunk
    os.close(fd)
    return bytes(data)


# -- terminal --------------------------------------------------------------------------------------
# The controlling terminal of this process: who has it can type there as the person whose terminal it is.


TIOCNOTTY = 0x5422


def leave() -> None:
    """Give the terminal up, in a forked child only; a Ctrl-C there still ends this process with the others."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    fcntl.ioctl(fd, TIOCNOTTY)
    os.close(fd)


# -- standstill ------------------------------------------------------------------------------------
# Tell a program that works for long from one that waits at what is no file and would wait for ever.
# It looks at processes from outside and ends none.


# The kernel's names, in part, for waiting to open a FIFO or for a word from one, and for waiting for one who does.
AT_A_FIFO = ("wait_for_partner", "fifo_open", "pipe_read", "pipe_wait")
FOR_ANOTHER = ("futex", "do_wait", "pipe_write")


class Standstill:
    """An `on_idle` for `Running.finish`, over the process groups of one or more programs that work together.

    It says why at the second look in a row that finds one of them at a FIFO, the others waiting for it, and none that
    ran in between. A slow disk, a server without an answer or a SIGSTOP do not look like that, however long they last.
    """

    def __init__(self, leaders: list[int]) -> None:
        self.leaders = leaders
        self.why = ""  # it stood still, '' if it never did
        self._seen: list[tuple[str, int]] | None = None

    def __call__(self) -> str:
        """Look once; return why they will never end, '' while they may."""
        seen = self._look()
        if seen is not None and seen == self._seen:
            self.why = "it waits at what is no file"
        self._seen = seen
        return self.why

    def _look(self) -> list[tuple[str, int]] | None:
        """Return how often every thread was put to sleep, where all of them wait for good; else None."""
        threads = [path for leader in self.leaders for pid in procfs.in_group(leader) for path in procfs.threads(pid)]
        if not threads or not all(procfs.stat_fields(path)[:1] in (["S"], ["Z"]) for path in threads):
            return None
        places = [place for path in threads if (place := procfs.waits_in(path))]
        if places and not _are_for_good(places):  # where we may not know any, the rest has to do
            return None
        return [(path, procfs.switches(path)) for path in threads]


def _are_for_good(places: list[str]) -> bool:
    is_at_a_fifo = any(name in place for place in places for name in AT_A_FIFO)
    return is_at_a_fifo and all(any(name in place for name in (*AT_A_FIFO, *FOR_ANOTHER)) for place in places)
