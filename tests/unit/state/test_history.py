"""history.jsonl: whole or not, its end, appends that last."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.core.errors import AgentctlError
from agentctl.state import history, history_repair
from kit import deadline
from unit.state.history_files import content, file_of, ids, line

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(history.__file__)))


# --- scan ----------------------------------------------------------------------------------------

ONE = line(1)


@pytest.mark.parametrize(
    ("data", "count", "last_id", "good_bytes", "damaged", "ends_torn"),
    [
        (b"", 0, None, 0, [], False),
        (ONE, 1, "m1", len(ONE), [], False),
        (ONE + b"\n \n" + line(2), 2, "m2", len(ONE + line(2)) + 3, [], False),
        (ONE + line(2)[:-1], 2, "m2", len(ONE), [], True),
        (ONE + line(2)[:-5], 1, "m1", len(ONE), [(2, "not JSON")], True),
        (ONE + b"\0" * 9, 1, "m1", len(ONE), [(2, "NUL bytes")], True),
        (b"\0\n" + ONE, 1, "m1", 2 + len(ONE), [(1, "NUL bytes")], False),
        (b"\xff\n" + ONE, 1, "m1", 2 + len(ONE), [(1, "not UTF-8")], False),
        (b"[1]\n7\n", 0, None, 0, [(1, "not a JSON object"), (2, "not a JSON object")], False),
        (b"[" * 100_000 + b"\n" + ONE, 1, "m1", 100_001 + len(ONE), [(1, "not JSON")], False),
        (b'{"id": 7}\n{"role": "user"}\n', 2, "7", 27, [], False),
    ],
)
def test_scan(tmp_path, data, count, last_id, good_bytes, damaged, ends_torn):
    path = file_of(tmp_path, data)
    facts = history.scan(path)
    assert (facts.count, facts.last_id, facts.good_bytes) == (count, last_id, good_bytes)
    assert (facts.damaged, facts.ends_torn) == (damaged, ends_torn)
    assert history.is_whole(path) == (not damaged and not ends_torn)


def test_scan_goes_on_where_an_earlier_one_ended(tmp_path):
    path = file_of(tmp_path, ONE + line(2))
    start = history.scan(path).good_bytes
    assert history.scan(path, start).good_bytes == start
    history.append(path, {"id": "m3"})
    facts = history.scan(path, start)
    assert (facts.count, facts.last_id, facts.good_bytes) == (1, "m3", os.path.getsize(path))


def test_damage_is_seen_where_json_was_never_imported(tmp_path):
    """CPython's C scanner can only say what is wrong if `json.decoder` is there: else SystemError."""
    path = file_of(tmp_path, ONE + b'{"id": "torn')
    text = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from agentctl.state import history; "
        f"print(history.scan({path!r}).damaged, 'json' in sys.modules)"
    )
    argv = [sys.executable, "-I", "-S", "-c", text]
    done = deadline.run(argv, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[(2, 'not JSON')] False\n", "")


def test_a_missing_file_has_no_messages_and_is_not_whole(tmp_path):
    path = str(tmp_path / "none")
    assert history.scan(path).count == 0
    assert history.tail(path, 3) == []
    assert not history.is_whole(path)


def test_a_line_too_long_is_damage_and_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "LONGEST_LINE", 100_000)
    path = file_of(tmp_path, ONE + line(2, "x" * 300_000) + line(3) + b"y" * 200_000)
    facts = history.scan(path)
    assert (facts.count, facts.last_id) == (2, "m3")
    assert [number for number, _ in facts.damaged] == [2, 4]
    assert [message["id"] for message in history.tail(path, 9)] == ["m1", "m3"]


odd = pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/etc/passwd", p)], ids=["fifo", "dir", "link"]
)


@odd
def test_what_is_no_plain_file_is_damage_and_never_opened(tmp_path, make):
    path = str(tmp_path / "history.jsonl")
    make(path)
    assert history.scan(path).damaged == [(0, "not a plain file")]
    assert not history.is_whole(path)
    assert history.tail(path, 1) == []
    with pytest.raises(AgentctlError, match="plain file"):
        history.append(path, {})
    report = history_repair.repair(path, [], keep_damaged_as=str(tmp_path / "kept"))
    assert not report.is_changed and os.listdir(tmp_path) == ["history.jsonl"]


@odd
def test_what_is_no_plain_file_gives_way_to_a_copy(tmp_path, make):
    path, copy = str(tmp_path / "history.jsonl"), file_of(tmp_path, ONE, "copy")
    make(path)
    before = os.lstat(path)
    report = history_repair.repair(path, [copy], keep_damaged_as=str(tmp_path / "kept"))
    assert content(path) == ONE
    assert os.path.samestat(before, os.lstat(report.kept_as))


# --- tail ----------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=12) | st.integers(0, 99).map(line), max_size=30),
    st.integers(0, 12),
    st.integers(1, 64),
)
def test_tail_is_the_end_of_all_whole_lines(chunks, count, block):
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "BLOCK", block)
        path = file_of(folder, b"".join(chunks))
        whole = []
        for raw in content(path).split(b"\n"):
            try:
                whole.append(history.parse(raw))
            except ValueError:
                continue
        assert history.tail(path, count) == whole[max(0, len(whole) - count) :]
        assert history.scan(path).count == len(whole)


def test_tail_reads_the_end_only(tmp_path, monkeypatch):
    path = file_of(tmp_path, b"".join(map(line, range(100_000))))
    read = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: read.append(args[1]) or real(*args))
    assert [message["id"] for message in history.tail(path, 2)] == ["m99998", "m99999"]
    assert sum(read) <= history.BLOCK


# --- append --------------------------------------------------------------------------------------


def test_append_gives_id_and_time_and_keeps_what_is_given(tmp_path):
    path = str(tmp_path / "history.jsonl")
    first = history.append(path, {"role": "user", "content": "\ud800 ü\n\u2028"})
    second = history.append(path, {"id": "mine", "at": "then", "role": "x", "content": 1, "k": []})
    one, two = history.tail(path, 2)
    assert one["id"] == first and len(first) == 32 and first[12] == "4" and first[16] in "89ab"
    assert one["content"] == "\ud800 ü\n\u2028"
    assert time.strptime(one["at"][:19] + one["at"][23:], "%Y-%m-%dT%H:%M:%SZ")
    assert second == "mine"
    assert two == {"id": "mine", "at": "then", "role": "x", "content": 1, "k": []}
    assert history.is_whole(path)


def test_append_after_a_torn_line_keeps_both(tmp_path):
    path = file_of(tmp_path, ONE + b'{"id": "torn')
    history.append(path, {"id": "m2"})
    assert content(path).startswith(ONE + b'{"id": "torn\n{"id":"m2"')
    assert [m["id"] for m in history.tail(path, 9)] == ["m1", "m2"]


@pytest.mark.parametrize("content", [float("nan"), object()])
def test_append_refuses_what_is_no_json_and_writes_nothing(tmp_path, content):
    path = str(tmp_path / "history.jsonl")
    with pytest.raises((ValueError, TypeError)):
        history.append(path, {"content": content})
    assert not os.path.exists(path)


WRITER = """
import sys
from agentctl.state import history
path, name, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(count):
    message = {"id": f"{name}{number}", "role": "user", "content": name * size}
    print(history.append(path, message), flush=True)
"""


def writer(path, name, count, size):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, name, str(count), str(size)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_writers_do_not_interleave(tmp_path):
    path = str(tmp_path / "history.jsonl")
    both = [writer(path, "a", 60, 90_000), writer(path, "b", 60, 10)]
    acknowledged = [deadline.communicate(process, timeout=300)[0].split() for process in both]
    assert history.is_whole(path)
    for name, told in zip("ab", acknowledged, strict=True):
        assert [one for one in ids(path) if one.startswith(name)] == told
        assert len(told) == 60


def test_a_lock_that_somebody_holds_for_ever_holds_up_no_recovery(tmp_path, monkeypatch):
    """Whoever may read the file can lock it."""
    monkeypatch.setattr(history, "LOCK_SECONDS", 0.05)
    path, copy = str(tmp_path / "history.jsonl"), tmp_path / "copy"
    history.append(path, {"id": "a", "role": "user", "content": ""})
    copy.write_bytes((tmp_path / "history.jsonl").read_bytes() + b'{"id":"b"}\n')
    holder = "import fcntl, sys; fcntl.flock(f := open(sys.argv[1]), fcntl.LOCK_SH); print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        deadline.read_line(held)
        with pytest.raises(AgentctlError, match="keeps it locked"):
            history.append(path, {"id": "c"})
        assert history_repair.repair(path, [str(copy)], keep_damaged_as=str(tmp_path / "kept")).is_changed
        held.stdin.close()
        deadline.wait(held, "who holds the lock")
    assert [m["id"] for m in history.tail(path, 9)] == ["a", "b"]


def test_killed_in_mid_append_nothing_acknowledged_is_lost(tmp_path):
    path = str(tmp_path / "history.jsonl")
    acknowledged = []
    for round_number in range(8):
        process = writer(path, f"{round_number}-", 10_000, 40_000)
        acknowledged.append(deadline.read_line(process).strip())
        time.sleep(0.004 * round_number)
        process.send_signal(signal.SIGKILL)
        acknowledged += deadline.communicate(process, timeout=60)[0].split("\n")[:-1]
    history.append(path, {"id": "end"})
    kept = [message["id"] for message in history.tail(path, 10**6)]
    assert [one for one in kept if one in set(acknowledged)] == acknowledged
    assert kept[-1] == "end"


def test_append_follows_a_file_that_was_mended(tmp_path):
    """Who waits for the lock while the file is replaced must not write to the replaced one."""
    path = file_of(tmp_path, ONE + b"torn")
    import fcntl

    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    process = writer(path, "w", 1, 1)
    deadline.until(lambda: _has_open(process.pid, path), "it to wait for the lock")
    os.rename(file_of(tmp_path, ONE, "new"), path)
    os.close(fd)
    assert deadline.communicate(process, timeout=60)[0].split() == ["w0"]
    assert ids(path) == ["m1", "w0"]


def _has_open(pid, path):
    """Tell whether the process has opened the file: then it waits for the lock that we hold."""
    with contextlib.suppress(OSError):
        return any(os.readlink(entry.path) == path for entry in os.scandir(f"/proc/{pid}/fd"))
    return False
