"""A poll loop: descriptors with handlers, timers with names. One thread; it never waits for anything but its poll."""

from __future__ import annotations

import os
import select
import time

LONGEST_WAIT_SECONDS = 3600.0  # poll(2) takes no more than 24 days, and a timer may be further away


class Loop:
    """Calls handlers when descriptors can be read and timers are due."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, object] = {}
        self._timers: dict[str, tuple[float, object]] = {}

    def serve_once(self, is_over) -> None:
        """Call what is due, or wait for the next; stop between two handlers once `is_over()`."""
        now = time.monotonic()
        due = [name for name, (at, _) in self._timers.items() if at <= now]
        for name in due:
            timer = self._timers.pop(name, None)  # the one before it may have cancelled it, or ended everything
            if timer is not None and not is_over():
                timer[1]()
        if due:
            return
        wait = min([now + LONGEST_WAIT_SECONDS, *(at for at, _ in self._timers.values())]) - now
        for fd, _ in self._poll.poll(max(0, wait * 1000) + 0.5):
            handler = self._handlers.get(fd)
            if handler is not None and not is_over():
                handler()

    def watch(self, fd: int, handler) -> None:
        """Call `handler()` whenever `fd` can be read."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def watch_end(self, pid: int, handler) -> None:
        """Call `handler()` when the process has ended."""
        try:
            self.watch(os.pidfd_open(pid), handler)
        except ProcessLookupError:  # it was quick: dead and reaped already
            self.set_timer(f"end of {pid}", 0, handler)

    def forget(self, fd: int) -> None:
        """Stop watching `fd` (the caller closes it)."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Tell whether `fd` is still watched."""
        return fd in self._handlers

    def set_timer(self, name: str, seconds: float, action) -> None:
        """Call `action` once, `seconds` from now; a timer of the same name is replaced."""
        self._timers[name] = (time.monotonic() + seconds, action)

    def cancel(self, name: str) -> None:
        """Forget a timer."""
        self._timers.pop(name, None)
