"""The contract with agentctl, as an object for agents written in Python. Sugar, never required.

Standard library and sdnotify only. Works outside agentctl too: then notifications go nowhere and
the state folder is ./state. Refuses to beat from anywhere but where the agent calls it: a heartbeat
from a side thread would hide a hung work loop for ever.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import struct
import sys
import time

from .core import durable
from .state import history
from .state.task import Task, parse_bytes

PHASES = ("working", "waiting", "idle")
EXIT_RESTART = 75
SEND_PATIENCE_SECONDS = 1
BEAT_SECONDS = 1.0  # between two beats, where nobody said how often they are wanted


class Agent:
    """The calling process as agentctl sees it: who it is, its signs of life, its task and its history."""

    def __init__(self, *, install_faulthandler: bool = True, handle_sigterm: bool = True) -> None:
        env = os.environ
        self.name = env.get("AGENT_NAME", "agent")
        self.generation = int(env.get("AGENT_GENERATION") or 0)
        self.launch_id = env.get("AGENT_LAUNCH_ID", "")
        self.code_dir = env.get("AGENT_CODE_DIR") or os.getcwd()
        self.state_dir = os.path.abspath(env.get("AGENT_STATE_DIR") or "state")
        self.task = TaskFile(env.get("AGENT_TASK_FILE") or f"{self.state_dir}/current_task.md")
        self.history = History(env.get("AGENT_HISTORY_FILE") or f"{self.state_dir}/history.jsonl")
        self.should_stop = False
        self._resumed = env.get("AGENT_RESUMED")
        if self._resumed is None:
            self._resumed = "1" if self.task.exists or self.history.last(1) else "0"
        self._brief_path = env.get("AGENT_BRIEF_FILE")
        self._pulse = _Pulse(int(env.get("WATCHDOG_USEC") or 0) / 1e6)
        self._savers: list = []
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.makedirs(self.state_dir, exist_ok=True)
        if install_faulthandler:
            faulthandler.enable(file=2, all_threads=True)
        if handle_sigterm:
            signal.signal(signal.SIGTERM, self._on_sigterm)
            self._wake_up_for_signals()

    @property
    def is_resumed(self) -> bool:
        """Tell whether there was a task or a history to take up when this launch began."""
        return self._resumed == "1"

    def ready(self) -> None:
        """Say that this agent works now; call it once, when it is true."""
        self._pulse.send("READY=1")

    def beat(self, progress: int | None = None, phase: str = "working") -> None:
        """Give a sign of life from the work loop; called too often, it costs nothing.

        A `progress` once given has to grow for a beat to count while the phase is "working".
        """
        self._pulse.beat(progress, phase)

    def working(self, timeout: float, phase: str = "waiting") -> _LongStep:
        """Return a context for one silent step that may take `timeout` seconds."""
        return _LongStep(self._pulse, timeout, phase)

    def sleep(self, seconds: float, phase: str = "idle") -> None:
        """Wait, beating, and come back early if the agent should stop."""
        end = time.monotonic() + seconds
        while True:
            self.beat(phase=phase)
            remaining = min(end - time.monotonic(), self._pulse.interval)
            if remaining <= 0 or self.should_stop:
                return
            if select.select([self._wake_read], [], [], remaining)[0]:
                os.read(self._wake_read, 512)  # any signal may have left a byte, and not all of them end a sleep

    @property
    def brief(self) -> str | None:
        """The note left by a rollback: what was undone and why; None if there is none."""
        data = durable.read(self._brief_path) if self._brief_path else None
        return None if data is None else data.decode("utf-8", "replace")

    def understood(self) -> None:
        """Delete the brief, so that the next launch does not find it again."""
        if self._brief_path and os.path.lexists(self._brief_path):
            os.unlink(self._brief_path)
            durable.sync_folder(os.path.dirname(self._brief_path) or ".")

    def on_save(self, saver) -> None:
        """Have `saver()` called whenever everything has to be on the disk."""
        self._savers.append(saver)

    def save(self) -> None:
        """Call every saver."""
        for saver in self._savers:
            saver()

    def stop(self) -> None:
        """Save and exit 0: the answer to `should_stop`. Unasked, it means a restart too."""
        self.save()
        sys.exit(0)

    def restart(self) -> None:
        """Save and exit 75: start me again, with the source as it is now."""
        self.save()
        sys.exit(EXIT_RESTART)

    def _wake_up_for_signals(self) -> None:
        """Have the signal itself write: its handler runs only when a `select` that has just begun is over."""
        before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        if before != -1:  # an event loop's, which needs it more
            signal.set_wakeup_fd(before)

    def _on_sigterm(self, _number, _frame) -> None:
        self.should_stop = True
        with contextlib.suppress(BlockingIOError):  # full: whoever sleeps wakes up anyway
            os.write(self._wake_write, b"!")


class TaskFile:
    """`current_task.md` on the disk."""

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Tell whether there is a task."""
        return os.path.exists(self.path)

    def load(self) -> Task | None:
        """Return the task, None if there is none; raise TaskDamaged if it cannot be read."""
        data = durable.read(self.path)
        return None if data is None else parse_bytes(data)

    def save(self, task: Task) -> None:
        """Replace the file; it is on the disk when this returns."""
        durable.write(self.path, task.render().encode("utf-8"))


class History:
    """`history.jsonl` on the disk."""

    def __init__(self, path: str) -> None:
        self.path = path

    def append(self, role: str, content, **more) -> str:
        """Append one message; return its id when it is on the disk."""
        return history.append(self.path, {**more, "role": role, "content": content})

    def last(self, count: int) -> list[dict]:
        """Return the newest `count` messages, oldest first."""
        return history.tail(self.path, count)


class _Pulse:
    """Sends the signs of life: the newest counter, no more often than is useful."""

    def __init__(self, watchdog_seconds: float) -> None:
        self.interval = watchdog_seconds / 4 or BEAT_SECONDS
        self._notifier = _notifier()
        self._progress: int | None = None
        self._phase = ""
        self._next_at = 0.0

    def beat(self, progress: int | None, phase: str, extra: str = "") -> None:
        if progress is not None:
            self._progress = progress
        now = time.monotonic()
        if now < self._next_at and phase == self._phase and not extra:
            return
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r} is none of {', '.join(PHASES)}")
        self._next_at, self._phase = now + self.interval, phase
        counter = "" if self._progress is None else f"X_AGENTCTL_PROGRESS={self._progress}\n"
        self.send(f"WATCHDOG=1\n{extra}{counter}X_AGENTCTL_PHASE={phase}")

    def send(self, message: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(message)

    def beat_now(self, phase: str) -> None:
        self._next_at = 0.0
        self.beat(None, phase)


class _LongStep:
    """A silent step: on entering the time it may take is asked for, on leaving there is a beat."""

    def __init__(self, pulse: _Pulse, timeout: float, phase: str) -> None:
        self._pulse, self._timeout, self._phase = pulse, timeout, phase

    def __enter__(self) -> None:
        extra = f"EXTEND_TIMEOUT_USEC={int(self._timeout * 1e6)}\n"
        self._pulse.beat(None, self._phase, extra)

    def __exit__(self, *_) -> None:
        self._pulse.beat_now(self._phase)  # in this phase it counts without new progress


def _notifier():
    """Return sdnotify's notifier with a bounded send, None where there is nobody to tell."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    import socket

    import sdnotify

    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:  # not settimeout(): poll calls a full one writable, and spins
        patience = struct.pack("@ll", SEND_PATIENCE_SECONDS, 0)
        notifier.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    return notifier
