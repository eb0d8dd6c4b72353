"""A real tmux in a temporary folder: what goes in arrives untouched, what comes out is true."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agentctl.core.errors import AgentctlError, CommandFailed
from agentctl.host import procfs
from agentctl.runtime import tmux
from kit import deadline

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None and not os.environ.get("CI"), reason="no tmux here")
ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C"}
PATIENCE_SECONDS = 60.0
ADDED_BY_TMUX = {"TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "SHELL", "PWD", "COLORTERM"}
SHOW = "import os, sys, json; open(sys.argv[1], 'w').write(json.dumps([sys.argv[2:], dict(os.environ), os.getcwd()]))"


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="atx", dir="/tmp"))  # pytest's own is too long for a socket
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(folder):
    hand = tmux.Tmux(str(folder / "s"), None, ENV)
    yield hand
    assert hand.kill_server(limit_seconds=PATIENCE_SECONDS)


class Fifo:
    """Stands in for the runner: reads what the pane prints."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path, self.data, self.screen = str(path), b"", ""
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self) -> None:
        try:
            while chunk := os.read(self.fd, 65536):
                self.data += chunk
        except BlockingIOError:
            pass

    def read_to_end(self, limit_seconds: float = PATIENCE_SECONDS) -> bytes:
        over = time.monotonic() + limit_seconds
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        while time.monotonic() < over:
            events = poll.poll(50)
            self.read()
            if events and events[0][1] & select.POLLHUP:
                return self.data
        raise AssertionError(f"the pipe never ended; it said {self.data[-3000:]}")


@pytest.fixture
def fifo(folder):
    pipe = Fifo(folder / "o'%H #{pid};")
    yield pipe
    os.close(pipe.fd)


def output_of(server, fifo, argv, **keywords) -> tuple[bytes, tuple]:
    pane = server.start("agent", argv, "/", ENV, pipe_fifo=fifo.path, **keywords)
    deadline.until(lambda: fifo.read() or not procfs.is_alive(pane.pane_pid), "the end of the pane")
    end = server.exit_of("agent", meanwhile=fifo.read, limit_seconds=PATIENCE_SECONDS)

    def is_drained():
        fifo.read()
        return server.is_drained("agent")

    deadline.until(is_drained, "the pane to be drained")
    fifo.screen = server.capture("agent", 10)
    assert server.kill_server(limit_seconds=PATIENCE_SECONDS)
    return fifo.read_to_end(), end


def end_of(server) -> tuple:
    """Wait until the agent has ended, as the runner does; tell how."""
    pid = int(server._ask("display-message", "-p", "-t", tmux._target("agent"), "#{pane_pid}"))
    deadline.until(lambda: not procfs.is_alive(pid), "the end of what ran there")
    return server.exit_of("agent", limit_seconds=PATIENCE_SECONDS)


ODD_ARGUMENTS = [
    "a b", "", "quote'\"", "end;", ";", "back\\;", "\\", "#{pid}", "#S", "%H", "$HOME", "~", "-x",
    "new\nline", "é✓", "`id`", "*", "{", "}", "a;b", ";;", "--",
]  # fmt: skip


def test_arguments_environment_and_folder_arrive_untouched(server, folder):
    import json

    given = {
        **ENV,
        "NOTIFY_SOCKET": "/run/x",
        "ODD": "a;b\n#{pid} 'é'",
        "EMPTY": "",
        "TERM": "dumb",
    }
    hidden = {"WATCHDOG_PID": "1", "XDG_RUNTIME_DIR": "/run/user/0", "TMUX": "/other,1,0"}
    hidden["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/x"
    work = folder / "work #{pid}"
    work.mkdir()
    out = folder / "out"
    argv = [sys.executable, "-I", "-S", "-c", SHOW, str(out), *ODD_ARGUMENTS]
    server.start("agent", argv, str(work), given | hidden)
    assert end_of(server) == (0, None)
    arguments, seen, cwd = json.loads(out.read_text())
    assert arguments == ODD_ARGUMENTS
    assert cwd == str(work)
    assert seen["TERM"] == tmux.TERM
    allowed = ADDED_BY_TMUX | {"LC_CTYPE"}  # Python's own coercion of the C locale
    assert {k: v for k, v in seen.items() if k not in allowed} == {k: v for k, v in given.items() if k not in allowed}


@pytest.mark.parametrize("name", ["prog", "a=b", "sp ace", "se;mi;"])
def test_a_program_without_arguments_is_not_given_to_a_shell(server, folder, name):
    program = folder / name
    program.write_text('#!/bin/sh\nprintf %s "$#" > "$0.ran"\n')
    program.chmod(0o755)
    server.start("agent", [str(program)], "/", ENV)
    assert end_of(server) == (0, None)
    assert Path(f"{program}.ran").read_text() == "0"


def test_a_program_that_is_not_there_says_so(server, folder):
    said = b""
    for number in range(3):  # a busy tmux may miss the words of who ends at once: see below
        pipe = Fifo(folder / f"f{number}")
        output, end = output_of(server, pipe, ["/no/such/agent"])
        os.close(pipe.fd)
        assert end == (127, None)
        said += output
    assert b"/no/such/agent" in said


def test_early_output_is_not_lost(server, folder):
    """All that tmux saw reaches the pipe.

    On an overloaded machine tmux itself can miss the output of an
    agent that ends at once (it hears of the death before the bytes): about 1 in 100.
    """
    missed_by_the_pipe, missed_by_tmux = [], []
    for number in range(100):
        pipe = Fifo(folder / f"f{number}")
        output, end = output_of(server, pipe, ["/bin/echo", f"round {number}"])
        os.close(pipe.fd)
        assert end == (0, None)
        if output != b"round %d\r\n" % number:
            (missed_by_the_pipe if pipe.screen else missed_by_tmux).append(number)
    assert missed_by_the_pipe == []
    assert len(missed_by_tmux) <= 10


def test_much_output_before_the_end_is_not_lost(server, fifo):
    output, end = output_of(server, fifo, ["/usr/bin/seq", "100000"])
    assert end == (0, None)
    assert output.split() == [b"%d" % n for n in range(1, 100001)]


def test_the_last_words_are_in_the_pipe_when_the_end_is_told(server, fifo):
    pane = server.start("agent", ["/usr/bin/seq", "150000"], "/", ENV, pipe_fifo=fifo.path)
    assert server.exit_of("agent", meanwhile=fifo.read, limit_seconds=60) == (0, None)
    assert server.was_drained
    server.end_server(pane.server_pid)
    assert fifo.read_to_end().split() == [b"%d" % n for n in range(1, 150001)]


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", (0, None)),
        ("exit 3", (3, None)),
        ("exit 137", (137, None)),
        ("kill -KILL $$", (None, signal.SIGKILL)),
        ("ulimit -c 0; kill -ABRT $$", (None, signal.SIGABRT)),
        ("kill -TERM $$", (None, signal.SIGTERM)),
        ("(trap '' HUP; sleep 5) & exit 4", (4, None)),
    ],
)
def test_the_end_is_told_truthfully(server, script, end):
    server.start("agent", ["/bin/sh", "-c", script], "/", ENV)
    told = end_of(server)
    if tmux_version() < (3, 3) and end[1] is not None:
        end = (None, 0)
    assert told == end


def tmux_version() -> tuple[int, ...]:
    words = os.popen(f"{tmux.find_program()} -V").read().split()[1]
    return tuple(int("".join(c for c in part if c.isdigit())) for part in words.split("."))


def test_a_living_agent_has_no_end_yet(server):
    server.start("agent", ["/bin/sleep", "100"], "/", ENV)
    assert server.exit_of("agent", limit_seconds=0.1) == (None, None)
    assert not server.is_drained("agent")


def test_a_persons_split_does_not_answer_for_the_agent(server):
    server.start("agent", ["/bin/sleep", "100"], "/", ENV)
    server._ask("split-window", "-t", "=agent:", "/bin/true", "x")
    deadline.until(lambda: "1" in server._ask("list-panes", "-t", "=agent:", "-F", "#{pane_dead}"), "a dead pane")
    assert server.exit_of("agent", limit_seconds=0.1) == (None, None)


def test_no_server_has_no_answer(server):
    assert not server.has_server()
    assert server.exit_of("agent") == (None, None)
    with pytest.raises(CommandFailed):
        server.capture("agent")
    assert server.kill_server()


def test_a_live_server_is_refused_and_a_dead_socket_is_not(server, folder):
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(server.socket_path)
        foreign.listen()
        with pytest.raises(tmux.TmuxBusy, match="already listens"):
            server.start("agent", ["/bin/true"], "/", ENV)
    assert os.path.exists(server.socket_path)
    server.start("agent", ["/bin/true"], "/", ENV)
    with pytest.raises(tmux.TmuxBusy):
        server.start("agent", ["/bin/true"], "/", ENV)


def test_a_frozen_server_does_not_hang_us(server):
    pane = server.start("agent", ["/bin/sleep", "100"], "/", ENV)
    os.kill(pane.server_pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert not server.kill_server(limit_seconds=0.5)
        assert time.monotonic() - began < 30  # it would for ever
    finally:
        os.kill(pane.server_pid, signal.SIGCONT)


def test_the_pane_is_as_asked(server):
    pane = server.start("agent", ["/bin/sh", "-c", "stty size; sleep 100"], "/", ENV, width=120)
    deadline.until(lambda: server.capture("agent") == "50 120", "the size on the screen")
    assert pane.tty.startswith("/dev/")
    assert procfs.foreground_group(pane.pane_pid) == pane.pane_pid
    assert tmux.server_cgroup(pane.server_pid) == tmux.server_cgroup(os.getpid())
    assert os.readlink(f"/proc/{pane.pane_pid}/fd/0") == pane.tty


class Late(tmux.Tmux):
    """A tmux whose look at the socket comes just before somebody else's server does."""

    def _take_socket(self):
        super()._take_socket()
        deadline.run(["tmux", "-S", self.socket_path, "-f", "/dev/null", "new-session", "-d", "-s", "other",
                      "sleep", "100"], check=True, preexec_fn=self.leave)  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
def test_a_server_of_another_unit_does_not_get_the_agent(server, folder):
    homes = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
    home = next(path for path in homes if os.path.exists(f"{path}/cgroup.procs"))
    group = Path(home, f"agentctl-test-{os.getpid()}")
    group.mkdir()
    late = Late(server.socket_path, None, ENV)
    late.leave = lambda: (group / "cgroup.procs").write_text("0")
    try:
        with pytest.raises(tmux.TmuxBusy, match="another unit"):
            late.start("agent", ["/bin/sleep", "100"], "/", ENV)
        assert late._ask("list-sessions", "-F", "#{session_name}").split() == ["other"]
    finally:
        late.kill_server(limit_seconds=PATIENCE_SECONDS)
        deadline.until(lambda: not (group / "cgroup.procs").read_text(), "an empty cgroup")
        group.rmdir()


def test_the_foreground_group_follows_job_control(server, folder):
    script = f"set -m; sh -c 'echo $$ > {folder}/pid; exec sleep 100'"
    pane = server.start("agent", ["/bin/sh", "-c", script + "; true"], "/", ENV)
    child = int(deadline.until(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "the pid"))
    deadline.until(lambda: procfs.foreground_group(pane.pane_pid) == child, "the child in front")
    assert procfs.foreground_group(2**22 + 1) is None
    assert tmux.server_cgroup(2**22 + 1) is None


def test_capture_shows_the_last_lines_with_history_and_letters(server):
    server.start("agent", ["/bin/sh", "-c", "seq 200; printf 'é✓'; sleep 0.5"], "/", ENV)
    assert end_of(server) == (0, None)
    deadline.until(lambda: server.is_drained("agent"), "the pane to be drained")
    assert server.capture("agent", 3) == "199\n200\né✓"
    assert server.capture("agent", 100).split("\n")[0] == "102"


def test_attach_names_the_same_server_and_session(server):
    argv = server.attach_argv("agent", read_only=True)
    assert argv[0].startswith("/")
    assert server.socket_path in argv and "=agent" in argv and "-r" in argv


@pytest.mark.parametrize("name", ["", "a.b", "a:b", "#{pid}", "-d", "a b"])
def test_a_name_that_tmux_would_change_is_refused(server, name):
    with pytest.raises(AgentctlError, match="cannot name"):
        server.start(name, ["/bin/true"], "/", ENV)


def test_a_folder_that_is_not_there_leaves_no_server(server):
    with pytest.raises(CommandFailed, match="/no/such"):
        server.start("agent", ["/bin/true"], "/no/such", ENV)
    assert not server.has_server()


def test_a_socket_path_too_long_is_refused_in_words():
    with pytest.raises(AgentctlError, match="over 107 bytes"):
        tmux.Tmux("/tmp/" + "x" * 120, None, ENV)


def test_a_missing_tmux_is_said_with_a_hint(monkeypatch):
    monkeypatch.setattr(tmux, "SEARCH_PATH", ("/nonexistent",))
    with pytest.raises(tmux.TmuxMissing) as caught:
        tmux.find_program()
    assert "apt-get install tmux" in caught.value.hint
