"""Tell a program that works for long from one that waits at what is no file and would wait for ever.

It looks at processes from outside and ends none.
"""

from __future__ import annotations

from . import process

# The kernel's names, in part, for waiting to open a FIFO or for a word from one, and for waiting for one who does.
AT_A_FIFO = ("wait_for_partner", "fifo_open", "pipe_read", "pipe_wait")
FOR_ANOTHER = ("futex", "do_wait", "pipe_write")


class Standstill:
    """An `on_idle` for `Running.finish`, over the process groups of one or more programs that work together.

    It says why at the second look in a row that finds one of them at a FIFO, the others waiting for it, and none that
    ran in between. A slow disk, a server without an answer or a SIGSTOP do not look like that, however long they last.
    """

    def __init__(self, leaders: list[int]) -> None:
        self.leaders = leaders
        self.why = ""  # it stood still, '' if it never did
        self._seen: list[tuple[str, int]] | None = None

    def __call__(self) -> str:
        """Look once; return why they will never end, '' while they may."""
        seen = self._look()
        if seen is not None and seen == self._seen:
            self.why = "it waits at what is no file"
        self._seen = seen
        return self.why

    def _look(self) -> list[tuple[str, int]] | None:
        """Return how often every thread was put to sleep, where all of them wait for good; else None."""
        threads = [path for leader in self.leaders for pid in process.in_group(leader) for path in process.threads(pid)]
        if not threads or not all(process.stat_fields(path)[:1] in (["S"], ["Z"]) for path in threads):
            return None
        places = [place for path in threads if (place := process.waits_in(path))]
        if places and not _are_for_good(places):  # where we may not know any, the rest has to do
            return None
        return [(path, process.switches(path)) for path in threads]


def _are_for_good(places: list[str]) -> bool:
    is_at_a_fifo = any(name in place for place in places for name in AT_A_FIFO)
    return is_at_a_fifo and all(any(name in place for name in (*AT_A_FIFO, *FOR_ANOTHER)) for place in places)
