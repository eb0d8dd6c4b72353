"""The entry of an agent's container: tmux, output, signs of life outwards, signals inwards. It decides nothing.

No ledger and no rescue state is in here. What is to be started was left by the runner outside (`launch.json`); where
nobody waits for it, nothing is started. Its exit status is the agent's.
"""

from __future__ import annotations

import _signal as signal
import _socket as socket
import errno
import os
import time
from select import POLLOUT, poll

from ...core import fast_json
from ...core.errors import AgentctlError
from ...host import procfs
from ...host.journald import Journal
from ...host.poll_loop import Loop
from ...host.sd_notify import NotifyReceiver
from ...host.terminal_output import PaneFeed
from ..tmux import Tmux

VARIABLE = "AGENTCTL_CONTAINER"  # the runner's folder, mounted; that it is set says that this is a container
FOLDER = "/tmp/agentctl-inside"
TMUX_SOCKET = f"{FOLDER}/tmux"
SESSION_NAME = "agent"
EXIT_NOBODY_WAITS = 65
ABORT_GRACE_SECONDS = 2.0
KILL_SECONDS = 5.0
LOOK_SECONDS = 0.02
ABORT_SIGNAL = "USR1"  # an init such as tini passes this on to us, and SIGABRT not
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Run the launch that the runner has left; return its exit status."""
    journal = Journal("agent", to_stdout=True)
    try:
        return Inside(read_launch(os.environ.get(VARIABLE, "")), journal).run()
    except AgentctlError as error:
        journal.error(f"agentctl: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return EXIT_NOBODY_WAITS


def read_launch(folder: str) -> dict:
    """Read what is to be started; raise AgentctlError where the runner has left nothing for us."""
    try:
        with open(f"{folder}/launch.json", encoding="utf-8") as file:
            return fast_json.loads(file.read())
    except (OSError, ValueError) as error:
        raise AgentctlError(
            f"no launch is wanted here: {folder}/launch.json: {error}",
            "the runner outside starts this container: agentctl start",
        ) from error


class Inside:
    """One launch in this container."""

    def __init__(self, launch: dict, journal: Journal) -> None:
        self.launch, self.journal = launch, journal
        self.loop = Loop()
        self.exit_status: int | None = None
        self.stop_asked_at: float | None = None

    def run(self) -> int:
        """Start the agent and serve until it has ended; return its exit status."""
        _make_folder()
        self._listen_to_signals()
        self.receiver = NotifyReceiver(f"{FOLDER}/notify", 0o600)
        self.loop.watch(self.receiver.fileno(), self._on_notifications)
        self.teller = ContainerSignals(self.launch, self.loop, self.journal)
        self.teller.check()
        self.feed = PaneFeed(f"{FOLDER}/pane", None, self.loop, self.journal)
        env = {**os.environ, **self.launch["env"], "NOTIFY_SOCKET": self.receiver.path}
        self.tmux = Tmux(TMUX_SOCKET, None, env)
        self.pane = self.tmux.start(
            SESSION_NAME, self.launch["argv"], cwd=self.launch["cwd"], env=env, pipe_fifo=f"{FOLDER}/pane"
        )
        self.loop.watch_end(self.pane.pane_pid, self._on_agent_end)
        self.loop.watch_end(self.pane.server_pid, self._on_server_end)
        while self.exit_status is None:
            self.loop.serve_once(lambda: self.exit_status is not None)
        self._kill_rest()
        self.tmux.end_server(self.pane.server_pid)
        self.feed.drain()
        return self.exit_status

    # -- what comes -----------------------------------------------------------------------------------------

    def _on_notifications(self) -> None:
        for message in self.receiver.receive():
            self.teller.tell(message.fields)

    def _on_agent_end(self) -> None:
        status, number = self.tmux.exit_of(SESSION_NAME, meanwhile=self.feed.read)
        if number:
            self.exit_status = 128 + number
        else:
            self.exit_status = 1 if status is None else status
        self._on_notifications()  # what it said last
        self.teller.finish()

    def _on_server_end(self) -> None:
        self.journal.error("agentctl: the agent's tmux server ended")
        self.exit_status = self.exit_status or 128 + signal.SIGKILL

    def _on_signal(self) -> None:
        for number in os.read(self.wakeup, 64):
            if number == signal.SIGUSR1:
                self._abort()
            elif number in STOP_SIGNALS and self.stop_asked_at is None:
                self._stop()

    def _stop(self) -> None:
        """Ask the agent to save, also below a shell; what does not end in time is killed."""
        self.stop_asked_at = time.monotonic()
        procfs.signal_and_wake(procfs.in_front(self.pane.pane_pid), signal.SIGTERM)
        self.loop.set_timer("grace", self.launch["stop_grace"], self._kill_rest)

    def _abort(self) -> None:
        """Have the agent tell where it hangs; not a shell, which would take the terminal along."""
        procfs.signal_and_wake(procfs.in_front_of_shell(self.pane.pane_pid), signal.SIGABRT)
        self.loop.set_timer("grace", ABORT_GRACE_SECONDS, self._kill_rest)

    # -- small parts ----------------------------------------------------------------------------------------

    def _kill_rest(self) -> None:
        """End every process of the launch; the end of the agent's own is seen by the loop."""
        procfs.end_all(
            lambda: procfs.with_variable("AGENT_LAUNCH_ID", self.launch["launch_id"]), limit_seconds=KILL_SECONDS
        )

    def _listen_to_signals(self) -> None:
        self.wakeup, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        for number in (*STOP_SIGNALS, signal.SIGUSR1):
            signal.signal(number, lambda *_: None)
        self.loop.watch(self.wakeup, self._on_signal)


def _make_folder() -> None:
    """Make our own folder; one that an earlier launch of this container left is used again."""
    try:
        os.mkdir(FOLDER, 0o700)
    except FileExistsError:
        found = os.lstat(FOLDER)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise AgentctlError(f"{FOLDER} is not ours", "give the container a /tmp of its own") from None


# -- telling ---------------------------------------------------------------------------------------
# Signs of life from inside a container to the runner outside: HTTP, one request at a time, never waiting.
# A heartbeat that could not be told is replaced by the next one. READY and what else is said only once is told until
# it was heard.


DEADLINE_SECONDS = 5.0
AGAIN_SECONDS = 0.2
OFTEN = ("WATCHDOG", "X_AGENTCTL_PROGRESS", "X_AGENTCTL_PHASE", "STATUS")  # the newest counts
MOST_ANSWER = 65536


class ContainerSignals:
    """Tells one launch's notifications at the runner's address."""

    def __init__(self, launch: dict, loop, journal) -> None:
        self.launch, self.loop, self.journal = launch, loop, journal
        self.waiting: dict[str, str] = {}
        self.under_way: dict[str, str] = {}
        self.peer = None
        self.answer = b""
        self.complaint = ""

    def check(self) -> None:
        """Raise AgentctlError where nobody listens: then nobody has started us."""
        try:
            self._connect().close()
        except OSError as error:
            raise AgentctlError(
                f"no runner listens at {self.launch['api']}: {os.strerror(error.errno)}",
                "the runner outside starts this container: agentctl start",
            ) from error

    def tell(self, fields: dict[str, str]) -> None:
        """Have these fields told as soon as may be."""
        self.waiting.update(fields)
        self._send()

    def finish(self) -> None:
        """The agent has ended: what it said last is still on its way, and is not waited for."""
        if self.waiting:
            self._send()

    def _send(self) -> None:
        if self.peer is not None or not self.waiting:
            return
        self.under_way, self.waiting, self.answer = self.waiting, {}, b""
        body = fast_json.dumps({"launch_id": self.launch["launch_id"], "notify": self.under_way}).encode()
        head = (
            f"POST /health HTTP/1.1\r\nHost: agentctl\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        try:
            self.peer = self._connect()
            self.peer.send(head.encode() + body)
        except OSError as error:
            self._failed(os.strerror(error.errno or errno.EIO))
            return
        self.loop.watch(self.peer.fileno(), self._read)
        self.loop.set_timer("tell", DEADLINE_SECONDS, lambda: self._failed("no answer"))

    def _connect(self):
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        peer = socket.socket(socket.AF_UNIX, kind)
        try:
            peer.connect(self.launch["api"])
        except OSError:
            peer.close()
            raise
        if not _is_writable(peer):
            peer.close()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return peer

    def _read(self) -> None:
        try:
            data = self.peer.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.answer += data
        if data and len(self.answer) < MOST_ANSWER:
            return
        status = self.answer.split(b" ", 2)[1:2]
        if status == [b"200"]:
            self._let_go()
            self.complaint = ""
            self._send()
        else:
            self._failed(f"answered {status[0].decode('ascii', 'replace') if status else 'nothing'}")

    def _failed(self, why: str) -> None:
        """Keep what is said only once for another time."""
        kept = {name: value for name, value in self.under_way.items() if name not in OFTEN}
        self.waiting = {**kept, **self.waiting}
        self._let_go()
        if why != self.complaint:
            self.complaint = why
            self.journal.warning(f"agentctl: the runner outside was not told of a sign of life: {why}")
        if self.waiting:
            self.loop.set_timer("tell again", AGAIN_SECONDS, self._send)

    def _let_go(self) -> None:
        self.loop.cancel("tell")
        self.under_way = {}
        if self.peer is not None:
            self.loop.forget(self.peer.fileno())
            self.peer.close()
            self.peer = None


def _is_writable(peer) -> bool:
    asked = poll()
    asked.register(peer.fileno(), POLLOUT)
    return bool(asked.poll(0))
