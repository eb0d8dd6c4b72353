"""The controlling terminal of this process: who has it can type there as the person whose terminal it is."""

from __future__ import annotations

import fcntl
import os

TIOCNOTTY = 0x5422


def leave() -> None:
    """Give the terminal up, in a forked child only; a Ctrl-C there still ends this process with the others."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    fcntl.ioctl(fd, TIOCNOTTY)
    os.close(fd)
