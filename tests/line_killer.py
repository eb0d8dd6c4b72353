"""The line killer: run something in a child that kills itself with SIGKILL before its Nth executed line.

Count N up until `killed_at` says that the run had come to its end, and every line was a crash point once.
"""

from __future__ import annotations

import os
import signal
import sys


def killed_at(line: int, act, is_ours) -> bool:
    """Run `act()` in a forked child; kill it before the `line`-th line of files for which `is_ours(path)`.

    Tell whether it got that far. Fails if the child ends in any other way.
    """
    pid = os.fork()
    if pid == 0:
        _act_until(line, act, is_ours)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
    return status != 0


def _act_until(line: int, act, is_ours) -> None:
    """In the child: count lines, die at the right one, or say that there are not so many. Never returns."""
    left = [line]

    def trace(frame, event, _):
        if not is_ours(frame.f_code.co_filename):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    status = 1
    try:
        sys.settrace(trace)
        act()
        status = 0
    finally:
        os._exit(status)
