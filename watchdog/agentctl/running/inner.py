"""The entry of an agent's container: tmux, output, signs of life outwards, signals inwards. It decides nothing.

No ledger and no rescue state is in here. What is to be started was left by the runner outside (`launch.json`); where
nobody waits for it, nothing is started. Its exit status is the agent's.
"""

from __future__ import annotations

import _signal as signal
import os
import time

from .. import lean_json as json
from ..compose.telling import Teller
from ..errors import AgentctlError
from ..machine import process
from ..machine.journal import Journal
from ..machine.loop import Loop
from ..machine.notify import NotifyReceiver
from ..machine.tmux import Tmux
from .feed import PaneFeed

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
            return json.loads(file.read())
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
        self.teller = Teller(self.launch, self.loop, self.journal)
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
        process.signal_and_wake(process.in_front(self.pane.pane_pid), signal.SIGTERM)
        self.loop.set_timer("grace", self.launch["stop_grace"], self._kill_rest)

    def _abort(self) -> None:
        """Have the agent tell where it hangs; not a shell, which would take the terminal along."""
        process.signal_and_wake(process.in_front_of_shell(self.pane.pane_pid), signal.SIGABRT)
        self.loop.set_timer("grace", ABORT_GRACE_SECONDS, self._kill_rest)

    # -- small parts ----------------------------------------------------------------------------------------

    def _kill_rest(self) -> None:
        """End every process of the launch; the end of the agent's own is seen by the loop."""
        process.end_all(
            lambda: process.with_variable("AGENT_LAUNCH_ID", self.launch["launch_id"]), limit_seconds=KILL_SECONDS
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
