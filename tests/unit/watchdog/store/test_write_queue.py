"""One thread that writes: together what waits together, each failure to whom it belongs, and nothing half."""

import contextlib
import threading

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.watchdog.store import write_queue
from agentctl.watchdog.store.write_queue import WriteQueue
from kit import deadline

SECONDS = 20


class Engine:
    """Stands for a database: what was written is `kept` when its transaction has ended well."""

    def __init__(self):
        self.kept, self.transactions, self.now = [], 0, []
        self.failing, self.repaired = [], []
        self.gate = threading.Event()
        self.gate.set()

    @contextlib.contextmanager
    def begin(self):
        assert self.gate.wait(SECONDS)
        self.now = []
        yield self
        if self.failing:
            raise self.failing.pop(0)
        self.kept += self.now
        self.transactions += 1

    @contextlib.contextmanager
    def begin_nested(self):
        before = list(self.now)
        try:
            yield
        except BaseException:
            self.now = before
            raise

    def execute(self, statement, rows):
        self.now.append((statement, list(rows)))

    def write(self, word):
        def work(connection):
            connection.now.append(word)
            return word

        return work


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def start(engine):
    queues = []

    def make(mend=lambda error: error, idle=None):
        queues.append(WriteQueue(engine.begin, mend, idle))
        return queues[-1]

    yield make
    engine.gate.set()
    for queue in queues:
        queue.close()


def hold(engine, queue):
    """Let the next writes wait together: the thread is busy with one that does not end yet."""
    engine.gate.clear()
    first = queue.submit(engine.write("first"))
    deadline.until(lambda: not queue.waiting(), "the first write to be taken")
    return first


def test_a_write_is_done_when_it_is_committed(engine, start):
    assert start().submit(engine.write("one")).result(SECONDS) == "one"
    assert engine.kept == ["one"]


def test_what_waits_together_is_committed_together_in_the_order_of_asking(engine, start, monkeypatch):
    monkeypatch.setattr(write_queue, "GROUP_SECONDS", 0.2)
    queue = start()
    hold(engine, queue)
    waiting = [queue.submit(engine.write(number)) for number in range(20)]
    engine.gate.set()
    assert [done.result(SECONDS) for done in waiting] == list(range(20))
    assert [word for word in engine.kept if word != "first"] == list(range(20))
    assert engine.transactions <= 2


def test_rows_into_one_statement_go_in_one_call(engine, start, monkeypatch):
    monkeypatch.setattr(write_queue, "GROUP_SECONDS", 0.2)
    queue = start()
    hold(engine, queue)
    waiting = [queue.submit_rows("A", [{"n": 1}]), queue.submit_rows("A", [{"n": 2}, {"n": 3}]),
               queue.submit_rows("B", [{"n": 4}]), queue.submit(engine.write("a word")),
               queue.submit_rows("B", [{"n": 5}])]  # fmt: skip
    engine.gate.set()
    assert [done.result(SECONDS) for done in waiting] == [1, 2, 1, "a word", 1]
    assert [word for word in engine.kept if word != "first"] == [
        ("A", [{"n": 1}, {"n": 2}, {"n": 3}]), ("B", [{"n": 4}]), "a word", ("B", [{"n": 5}]),
    ]  # fmt: skip


def test_one_that_is_refused_is_refused_alone(engine, start):
    def refused(connection):
        connection.now.append("half")
        raise AgentctlError("not so")

    queue = start()
    hold(engine, queue)
    one, two, three = queue.submit(engine.write("one")), queue.submit(refused), queue.submit(engine.write("three"))
    engine.gate.set()
    assert (one.result(SECONDS), three.result(SECONDS)) == ("one", "three")
    with pytest.raises(AgentctlError, match="not so"):
        two.result(SECONDS)
    assert "half" not in engine.kept


def test_a_commit_that_fails_is_told_to_all_of_its_group_and_the_next_one_goes_on(engine, start):
    queue = start(mend=lambda error: AgentctlError(f"the store: {error}"))
    engine.failing = [OSError("full")]
    with pytest.raises(AgentctlError, match="the store: full"):
        queue.submit(engine.write("lost")).result(SECONDS)
    assert queue.submit(engine.write("next")).result(SECONDS) == "next"
    assert engine.kept == ["next"]


def test_what_could_be_repaired_is_tried_once_more(engine, start):
    queue = start(mend=engine.repaired.append)
    engine.failing = [OSError("gone")]
    assert queue.submit(engine.write("one")).result(SECONDS) == "one"
    assert engine.kept == ["one"] and len(engine.repaired) == 1
    engine.failing = [OSError("gone"), OSError("gone for good")]
    with pytest.raises(OSError, match="gone for good"):
        queue.submit(engine.write("two")).result(SECONDS)
    assert engine.kept == ["one"]


def test_at_its_end_it_writes_what_waits(engine):
    queue = WriteQueue(engine.begin, lambda error: error)
    waiting = [queue.submit(engine.write(number)) for number in range(100)]
    queue.close()
    assert all(done.done() for done in waiting) and engine.kept == list(range(100))


def test_idle_work_is_done_piece_by_piece_while_nobody_writes(engine, start, monkeypatch):
    monkeypatch.setattr(write_queue, "IDLE_SECONDS", 0.01)
    pieces, is_done = [], threading.Event()

    def idle():
        pieces.append(len(pieces))
        if len(pieces) == 3:
            is_done.set()
        return len(pieces) < 3

    queue = start(idle=idle)
    assert is_done.wait(SECONDS) and pieces == [0, 1, 2]
    assert queue.submit(engine.write("one")).result(SECONDS) == "one"
