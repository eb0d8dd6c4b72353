"""The lock beside the vault. Writers share it, so that they never wait for each other."""

from __future__ import annotations

import fcntl
import os
import time

from ..errors import LockHeld

WAIT_SECONDS = 60.0  # it is held alone for the milliseconds of an exchange


class Writing:
    """The vault's lock: writers share it; who puts another vault in its place has it alone."""

    def __init__(self, path: str, alone: bool) -> None:
        self.path, self.how = path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH

    def __enter__(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, self.how | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self._fd)
                    raise LockHeld(f"somebody holds {self.path}", "look for a stopped 'agentctl prune'") from None
                time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
