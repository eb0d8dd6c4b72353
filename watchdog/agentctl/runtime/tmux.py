"""Own one private tmux server that holds one agent: start it, ask how it ended, read it, end it.

Refuses a server that already listens: its panes would live in a foreign cgroup, without our
environment. One session, one pane that counts (the first); tmux 3.2a and newer.
"""

from __future__ import annotations

import _socket  # `socket` costs 10 ms of import (selectors, enum); one connect is all we need
import errno
import os
import time
from _signal import SIGCHLD, SIGKILL  # plain numbers; `signal` costs an enum import

from ..core.errors import AgentctlError, CommandFailed
from ..core.identity import Identity
from ..host import command

SEARCH_PATH = ("/usr/bin", "/bin", "/usr/local/bin")
TERM = "screen-256color"  # in every ncurses-base; tmux-256color is not
LONGEST_SOCKET_PATH = 107
# With the bus, tmux >= 3.4 moves the pane into a scope of the user manager and its notifications
# are lost. WATCHDOG_PID would be ours, and a correct agent falls silent. TMUX is another server.
NOT_FOR_THE_SERVER = frozenset(("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "WATCHDOG_PID", "TMUX", "TMUX_PANE"))
# `env` names what could not be started and exits 127 where tmux would exit 1 in silence, and keeps
# a lone word from a shell. Without TMUX, the agent's `tmux kill-server` does not end the agent.
EXEC = ("/usr/bin/env", "-u", "TMUX", "-u", "TMUX_PANE", "--")
EXEC_ODD_NAME = (*EXEC, "/bin/sh", "-c", 'exec "$0" "$@"')  # env takes 'a=b' for a variable
POLL_SECONDS = 0.01
LAST_WORDS_SECONDS = 2.0  # a child that goes on writing holds up the end this long
UNTOLD_SECONDS = 0.3  # dead this long without a status: tmux 3.2a does not tell signals
SAFE_IN_A_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class TmuxBusy(AgentctlError):
    """A live server already has the socket."""


class TmuxMissing(AgentctlError):
    """There is no tmux on this machine."""


class Pane:
    """What was started. The agent may be dead and reaped by now: only `exit_of` tells."""

    __slots__ = ("pane_pid", "server_pid", "tty")

    def __init__(self, pane_pid: int, server_pid: int, tty: str) -> None:
        self.pane_pid, self.server_pid, self.tty = pane_pid, server_pid, tty


class Tmux:
    """One private server on `socket_path`, run as `user`; `env` is for questions asked later."""

    def __init__(self, socket_path: str, user: Identity | None, env: dict[str, str]) -> None:
        if len(os.fsencode(socket_path)) > LONGEST_SOCKET_PATH:
            raise AgentctlError(
                f"cannot use {socket_path} as tmux's socket: over {LONGEST_SOCKET_PATH} bytes",
                "choose a shorter runtime folder",
            )
        self.socket_path, self.user, self.env = socket_path, user, _clean(env)
        self.program = find_program()
        self.was_drained = False  # all the agent ever printed has been handed to the pipe

    def start(
        self,
        session: str,
        argv: list[str],
        cwd: str,
        env: dict[str, str],
        *,
        width: int = 200,
        height: int = 50,
        history_limit: int = 50_000,
        pipe_fifo: str | None = None,
    ) -> Pane:
        """Start the server and `argv` in it with `env`; copy all its output into `pipe_fifo`.

        Have the FIFO open for reading. Raise TmuxBusy if a live server has the socket, also one
        that appeared between our look and tmux's; CommandFailed if tmux refuses. On an overloaded
        machine tmux may close the terminal before the kernel hands it the last bytes: about 1 in
        100 ends, on 3 times more work than CPUs.
        """
        _check_name(session)
        self._take_socket()
        commands = [
            *_preparations(history_limit),
            ["new-session", "-d", "-s", session, "-x", str(width), "-y", str(height)]
            + ["-P", "-F", "#{pane_pid} #{pid} #{pane_tty}", "--", *_direct(argv)],
        ]
        if pipe_fifo is not None:
            commands.append(["pipe-pane", "-t", _target(session), f"exec cat >{_quote(pipe_fifo)}"])
        try:
            said = self._run(_joined(commands), _clean(env), cwd)
        except CommandFailed:
            self.kill_server()
            raise
        pane_pid, server_pid, tty = said.split(maxsplit=2)
        if server_cgroup(int(server_pid)) not in (None, server_cgroup(os.getpid())):
            self._ask("kill-session", "-t", f"={session}")
            what = f"the tmux server on {self.socket_path} (pid {server_pid}) is of another unit"
            raise TmuxBusy(what, "the agent would not be stopped with its own; end that server")
        return Pane(int(pane_pid), int(server_pid), tty)

    def exit_of(
        self, session: str, *, meanwhile=None, limit_seconds: float = 2.0, answer_seconds: float = 10.0
    ) -> tuple[int | None, int | None]:
        """Tell how the agent ended, once its process is gone: (status, None) or (None, signal).

        (None, 0) is a signal that this tmux does not name (3.2a); (None, None): tmux does not know.
        `meanwhile` is called between two questions: who reads the FIFO goes on reading there.
        A busy tmux knows of the end before it has handed on the last words: it is given time for that.
        """
        deadline = time.monotonic() + limit_seconds
        dead_at = told_at = None
        told = None, None
        while True:
            is_dead, status, signal, server_pid = self._end(session, answer_seconds)
            self.was_drained = bool(is_dead)
            now = time.monotonic()
            if status is not None or signal is not None:
                told, told_at = (status, signal), told_at or now
                if is_dead or now - told_at >= LAST_WORDS_SECONDS:
                    return told
            dead_at = dead_at or (now if is_dead else None)
            if dead_at is not None and now - dead_at >= UNTOLD_SECONDS:
                return None, 0
            if is_dead is None or (told_at is None and now >= deadline):
                return told
            _nudge(server_pid)
            if meanwhile is not None:
                meanwhile()
            time.sleep(POLL_SECONDS)

    def is_drained(self, session: str) -> bool:
        """Tell whether the agent is dead and all it ever printed has been handed to the pipe."""
        return bool(self._end(session)[0])

    def capture(self, session: str, lines: int = 50) -> str:
        """Return the last `lines` lines of screen and history, wrapped lines joined."""
        text = self._ask("capture-pane", "-p", "-J", "-S", f"-{lines}", "-t", _target(session))
        kept = text.rstrip().split("\n")[-lines:]
        return "\n".join(line.rstrip() for line in kept)

    def type(self, session: str, text: str) -> None:
        """Type `text` into the session's terminal, as somebody attached to it would; no Enter."""
        self._ask("send-keys", "-t", _target(session), "-l", "--", text)

    def press(self, session: str, key: str) -> None:
        """Press one key by tmux's name for it, such as `Enter` or `Escape`."""
        self._ask("send-keys", "-t", _target(session), key)

    def has_server(self) -> bool:
        """Tell whether somebody listens on the socket; when that cannot be known, assume so."""
        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        probe = _socket.socket(_socket.AF_UNIX, kind)
        try:
            answer = probe.connect_ex(self.socket_path)
        finally:
            probe.close()
        return answer not in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED)

    def kill_server(self, limit_seconds: float = 2.0) -> bool:
        """End the server, and with it the terminal; tell whether it is gone."""
        deadline = time.monotonic() + limit_seconds
        while self.has_server() and (left := deadline - time.monotonic()) > 0:
            try:
                self._ask("kill-server", limit_seconds=left)
            except CommandFailed:  # already going, or stuck: the deadline decides
                time.sleep(POLL_SECONDS)
        return not self.has_server()

    def end_server(self, server_pid: int) -> None:
        """End the server after the agent's end: at once where nothing of its output is left in it."""
        if not self.was_drained:
            self.kill_server()
            return
        try:
            os.kill(server_pid, SIGKILL)
        except ProcessLookupError:
            return

    def attach_argv(self, session: str, *, read_only: bool = False) -> list[str]:
        """Return what a person's terminal has to run to see the agent."""
        attach = ["attach-session", "-r"] if read_only else ["attach-session"]
        return [self.program, "-u", "-S", self.socket_path, *attach, "-t", f"={session}"]

    def _take_socket(self) -> None:
        if self.has_server():
            raise TmuxBusy(
                f"cannot start tmux on {self.socket_path}: a server already listens there",
                f"look: '{self.program} -S {self.socket_path} list-panes -a'; then end it",
            )
        if os.path.lexists(self.socket_path):
            os.unlink(self.socket_path)

    def _end(self, session: str, limit_seconds: float = 10.0) -> tuple[bool | None, int | None, int | None, int]:
        """Ask once: (dead, status, signal, server); dead is None when there is no such pane."""
        question = "#{pane_dead},#{pane_dead_status},#{pane_dead_signal},#{pid}"
        try:
            said = self._ask("display-message", "-p", "-t", _target(session), question, limit_seconds=limit_seconds)
            is_dead, status, signal, server_pid = said.split(",")
        except (CommandFailed, ValueError):
            return None, None, None, 0
        end = int(status) if status else None, _signal_number(signal)
        return is_dead == "1", *end, int(server_pid)

    def _ask(self, *arguments: str, limit_seconds: float = 10.0) -> str:
        return self._run(list(arguments), self.env, "/", limit_seconds)

    def _run(self, words: list[str], env: dict[str, str], cwd: str, limit_seconds: float = 10.0) -> str:
        # -u: else a client in the C locale gets '_' for every character that is not ASCII.
        argv = [self.program, "-u", "-S", self.socket_path, "-f", "/dev/null", *words]
        return command.run(argv, env=env, cwd=cwd, user=self.user, limit_seconds=limit_seconds).text


def find_program() -> str:
    """Return tmux's absolute path; raise TmuxMissing."""
    for folder in SEARCH_PATH:
        path = f"{folder}/tmux"
        if os.access(path, os.X_OK):
            return path
    raise TmuxMissing(f"no tmux in {', '.join(SEARCH_PATH)}", "install it: 'apt-get install tmux'")


def server_cgroup(pid: int) -> str | None:
    """Return the control group of `pid` (unified, else systemd's own), or None if it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    named = [line for line in lines if ":name=systemd:" in line]
    unified = [line for line in lines if line.startswith("0::")]
    return (named or unified or ["::"])[0].split(":", 2)[2]


def _clean(env: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in env.items() if name not in NOT_FOR_THE_SERVER}
    return {**kept, "TERM": TERM}


def _check_name(session: str) -> None:
    """Refuse names that tmux would change ('#{...}', '.', ':'): nobody would find the session."""
    if not session or not SAFE_IN_A_NAME.issuperset(session) or session.startswith("-"):
        hint = "use letters, digits, '-' and '_'"
        raise AgentctlError(f"cannot name a tmux session {session!r}", hint)


def _target(session: str) -> str:
    """Name the agent's pane, the server's first (%0): a person's split must not answer for it."""
    return f"={session}:.%0"


def _preparations(history_limit: int) -> list[list[str]]:
    return [
        ["start-server"],
        ["set-option", "-g", "history-limit", str(history_limit)],
        ["set-option", "-s", "default-terminal", TERM],
        ["set-option", "-wg", "remain-on-exit", "on"],
        # Absent in 3.2a, hence -q; elsewhere keeps tmux's own words off the last screen.
        ["set-option", "-wgq", "remain-on-exit-format", ""],
    ]


def _direct(argv: list[str]) -> list[str]:
    return [*(EXEC_ODD_NAME if "=" in argv[0] else EXEC), *argv]


def _joined(commands: list[list[str]]) -> list[str]:
    """Join commands with ';' words; a word that itself ends in ';' would end its command."""
    words = []
    for words_of_one in commands:
        words += [w[:-1] + "\\;" if w.endswith(";") else w for w in words_of_one]
        words.append(";")
    return words[:-1]


def _quote(path: str) -> str:
    """Quote for the shell, then for tmux, which expands '#{...}' and dates (%H) there."""
    quoted = "'" + path.replace("'", "'\\''") + "'"
    return quoted.replace("#", "##").replace("%", "%%")


def _nudge(server_pid: int) -> None:
    """Make the server look for dead children.

    Before 3.5 it can lose the signal of a quick death, and then keeps a zombie and no status for ever (3.3a: 3
    in 100 agents that exit at once).
    """
    try:
        os.kill(server_pid, SIGCHLD)
    except (ProcessLookupError, PermissionError):
        return


def _signal_number(told: str) -> int | None:
    """Read a signal: a number with glibc, a name where the C library has names for them."""
    if not told or told.isdigit():
        return int(told) if told else None
    import _signal

    return int(getattr(_signal, "SIG" + told.upper().removeprefix("SIG"), 0))
