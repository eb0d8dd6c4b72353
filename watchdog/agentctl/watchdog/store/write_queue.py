"""One thread that writes: what waits together is committed together, and acknowledged when it is on the disk.

With nothing else waiting a write is committed at once. A write that fails fails alone; a commit that fails fails
all of its group, and the thread goes on: heartbeats and reading do not depend on it.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future

from ...core.errors import AgentctlError

GROUP_SECONDS = 0.02
MOST_IN_GROUP = 1024
IDLE_SECONDS = 1.0


class Job:
    """One write: `work(connection)`, or rows for a `statement` that can share one call with others."""

    __slots__ = ("done", "rows", "statement", "work")

    def __init__(self, work=None, statement=None, rows: list[dict] | None = None) -> None:
        self.work, self.statement, self.rows = work, statement, rows
        self.done: Future = Future()


class WriteQueue:
    """Owns the one writing connection: `begin()` gives a transaction, `mend(error)` what to tell, None to try again."""

    def __init__(self, begin, mend, idle=None) -> None:
        self._begin, self._repair, self._idle = begin, mend, idle
        self._has_idle_work = idle is not None
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work) -> Future:
        """Have `work(connection)` done; the future has its result once it is durable."""
        return self._put(Job(work=work))

    def submit_rows(self, statement, rows: list[dict]) -> Future:
        """Have rows written by a statement; the future is done once they are durable."""
        return self._put(Job(statement=statement, rows=rows))

    def waiting(self) -> int:
        """Return how many writes wait."""
        return self._queue.qsize()

    def close(self) -> None:
        """Write what waits, then end."""
        self._queue.put(None)
        self._thread.join()

    def _put(self, job: Job) -> Future:
        self._queue.put(job)
        return job.done

    def _serve(self) -> None:
        while True:
            group, is_last = self._gather()
            if group:
                self._commit(group)
            if is_last:
                return

    def _gather(self) -> tuple[list[Job], bool]:
        """Wait for a write, then take what waits with it; after a quiet second, do idle work piece by piece."""
        wait = IDLE_SECONDS
        while True:
            try:
                first = self._queue.get(timeout=wait if self._has_idle_work else None)
                break
            except queue.Empty:
                self._has_idle_work, wait = self._idle(), 0
        self._has_idle_work = self._idle is not None
        if first is None:
            return [], True
        group, until = [first], time.monotonic() + GROUP_SECONDS
        while len(group) < MOST_IN_GROUP and time.monotonic() < until:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return group, True
            group.append(job)
        return group, False

    def _commit(self, group: list[Job]) -> None:
        """Commit a group; where `mend` could repair what failed it, once more."""
        error = self._try(group)
        if error is not None and self._repair(error) is None:
            error = self._try(group)
        if error is not None:
            told = self._repair(error) or error
            for job in group:
                job.done.set_exception(told)

    def _try(self, group: list[Job]) -> Exception | None:
        """Write and commit; tell the callers, or return what went wrong with all of them."""
        results: list = []
        try:
            with self._begin() as connection:
                results = _write(connection, group)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers have to hear of it
            return error
        for job, result, error in results:
            if error is not None:
                job.done.set_exception(error)
            else:
                job.done.set_result(result)
        for job in group:
            if job.work is None:
                job.done.set_result(len(job.rows))
        return None


def _write(connection, group: list[Job]) -> list[tuple[Job, object, Exception | None]]:
    """Write in the order of asking; rows that follow each other into one statement go in one call."""
    results, statement, rows = [], None, []
    for job in group:
        if job.work is None and job.statement is statement:
            rows += job.rows
            continue
        if rows:
            connection.execute(statement, rows)
        statement, rows = job.statement, list(job.rows or ())
        if job.work is not None:
            results.append((job, *_attempt(connection, job.work)))
    if rows:
        connection.execute(statement, rows)
    return results


def _attempt(connection, work) -> tuple[object, Exception | None]:
    """Do one work in a savepoint: the error of one must not undo the others."""
    try:
        with connection.begin_nested():
            return work(connection), None
    except AgentctlError as error:
        return None, error
