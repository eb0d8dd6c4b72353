"""What the agent writes: from the pane's FIFO, as clean lines, into the journal; the last ones are kept."""

from __future__ import annotations

import os
import select
import time
from _collections import deque

from ..machine.journal import Journal
from ..machine.loop import Loop
from ..machine.pane import LineStream

KEPT_LINES = 400
DRAIN_SECONDS = 2.0  # what is left is in a `cat` that has to get the CPU first
FLUSH_IDLE_SECONDS = 0.3  # a prompt without a newline becomes a line after this


class PaneFeed:
    """Reads one launch's pane; `owner` is who may write to the FIFO."""

    def __init__(self, path: str, owner: tuple[int, int] | None, loop: Loop, journal: Journal) -> None:
        self._loop, self._journal = loop, journal
        self._stream = LineStream()
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.last_output_at = time.monotonic()
        self.drawn_at: float | None = None  # when its first line came: no mere control codes
        if os.path.isdir(path) and not os.path.islink(path):  # the agent made it; it must not hinder a launch
            os.rename(path, f"{path}.{os.urandom(4).hex()}")
        elif os.path.lexists(path):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        if owner:  # the folder is the agent's: what stands there by now may be a link
            os.chown(path, *owner, follow_symlinks=False)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        loop.watch(self.fd, self.read)

    @property
    def is_open(self) -> bool:
        """Tell whether more may come; a FIFO that has hung up would wake a poll for ever."""
        return self._loop.watches(self.fd)

    def read(self) -> None:
        """Take what is there."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(self.fd)
            return
        self.last_output_at = time.monotonic()
        self._emit(self._stream.feed(data))
        self._loop.set_timer("flush", FLUSH_IDLE_SECONDS, self._flush)

    def drain(self) -> None:
        """Read what is still on its way after the end: tmux and its pipe are dead, so its end comes soon."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                select.select([self.fd], [], [], 0.02)
                continue
            if not data:
                break
            self._emit(self._stream.feed(data))
        self._flush()

    def _flush(self) -> None:
        self._emit(self._stream.flush())

    def _emit(self, lines: list[str]) -> None:
        if lines and self.drawn_at is None:
            self.drawn_at = time.monotonic()
        for line in lines:
            self.lines.append(line)
            self._journal.line(line)
