"""Mending a history: the union of all copies in their order, and never a message less."""

import os
import signal
from collections import Counter
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentctl.state import history, history_repair
from kit import deadline
from unit.state.history_files import content, file_of, ids, line


def mended(folder, live, *candidates):
    path = os.path.join(folder, "history.jsonl")
    if live is not None:
        file_of(folder, live)
    others = [file_of(folder, data, f"copy{n}") for n, data in enumerate(candidates)]
    report = history_repair.repair(path, others, keep_damaged_as=os.path.join(folder, "kept"))
    return path, report


def span(*numbers):
    return b"".join(map(line, numbers))


@pytest.mark.parametrize(
    ("live", "candidates", "result"),
    [
        (span(1, 2) + line(3)[:-4], [span(1, 2, 3)], [1, 2, 3]),
        (span(1, 2), [span(1, 2, 3)], [1, 2, 3]),
        (None, [span(1, 2)], [1, 2]),
        (b"\0" * 100, [span(1), span(1, 2)], [1, 2]),
        (span(1, 2, 9), [span(1, 2, 3, 4)], [1, 2, 3, 4, 9]),
        (span(1, 2) + b"x\n" + span(4, 5), [span(1, 2, 3)], [1, 2, 3, 4, 5]),
        (span(1, 2) + b"x\n" + span(4, 5), [span(1, 2, 3, 4)], [1, 2, 3, 4, 5]),
        (span(1, 3, 5), [span(1, 2, 3), span(3, 4, 5, 6)], [1, 2, 3, 4, 5, 6]),
        (span(2, 1), [span(1, 2, 3)], [1, 2, 3]),
        (span(1) + b"torn", [], [1]),
        (span(1) + line(2)[:-1], [], [1, 2]),
    ],
)
def test_mend_makes_the_union_in_order(tmp_path, live, candidates, result):
    path, report = mended(tmp_path, live, *candidates)
    assert ids(path) == [f"m{number}" for number in result]
    assert history.is_whole(path)
    assert report.is_changed and report.count == len(result)
    if live is None:
        assert report.kept_as is None
    else:
        assert content(report.kept_as) == live
    assert not [name for name in os.listdir(tmp_path) if ".mend-" in name]


@pytest.mark.parametrize(
    ("live", "candidates"),
    [(span(1, 2, 3), [span(1, 2), b"", b"junk\n" + span(3)]), (b"", []), (None, [])],
)
def test_mend_leaves_a_whole_history_alone(tmp_path, live, candidates):
    path, report = mended(tmp_path, live, *candidates)
    assert not report.is_changed and report.kept_as is None
    assert os.path.exists(path) == (live is not None)
    if live is not None:
        assert content(path) == live
    assert not os.path.exists(tmp_path / "kept")


def test_mend_keeps_messages_of_careless_writers(tmp_path):
    same = b'{"id": "x", "content": 1}\n{"id": "x", "content": 2}\n{"role": "a"}\n{"role": "a"}\n'
    path, report = mended(tmp_path, same + b"torn", same + b'{"role": "b"}\n')
    assert content(path) == same + b'{"role": "b"}\n'
    assert report.recovered == 1


def test_mend_skips_a_candidate_that_cannot_be_read(tmp_path):
    path = file_of(tmp_path, span(1) + b"x")
    os.mkfifo(tmp_path / "fifo")
    others = [str(tmp_path / "fifo"), str(tmp_path / "none"), file_of(tmp_path, span(1, 2), "good")]
    report = history_repair.repair(path, others, keep_damaged_as=str(tmp_path / "kept"))
    assert ids(path) == ["m1", "m2"]
    assert [name for name, _ in report.skipped] == others[:2]
    assert report.sources == others[2:]


def test_mend_never_overwrites_what_was_kept_before(tmp_path):
    file_of(tmp_path, b"older evidence", "kept")
    _, report = mended(tmp_path, span(1) + b"torn", span(1, 2))
    assert report.kept_as == str(tmp_path / "kept.2")
    assert content(tmp_path / "kept") == b"older evidence"


def test_mend_keeps_the_mode_and_can_keep_the_old_file_elsewhere(tmp_path, monkeypatch):
    def no_link(*_args, **_kwargs):
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    path = file_of(tmp_path, span(1) + b"torn")
    os.chmod(path, 0o640)
    report = history_repair.repair(path, [], keep_damaged_as=str(tmp_path / "kept"))
    assert content(report.kept_as) == span(1) + b"torn"
    assert os.stat(path).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("call", ["rename", "link", "fsync", "sync_folder"])
def test_mend_killed_anywhere_is_done_by_the_next_one(tmp_path, call):
    path = file_of(tmp_path, span(1, 3) + b"torn")
    os.mkdir(tmp_path / ".history.jsonl.mend-0")  # not ours: left alone, and in nobody's way
    other = file_of(tmp_path, span(1, 2), "copy")
    where = history_repair.durable if call == "sync_folder" else os
    child = os.fork()
    if child == 0:
        setattr(where, call, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
        history_repair.repair(path, [other], keep_damaged_as=str(tmp_path / "kept"))
        os._exit(0)
    assert deadline.wait_pid(child, "a mending that is killed") == -signal.SIGKILL
    assert content(path) == span(1, 3) + b"torn"
    report = history_repair.repair(path, [other], keep_damaged_as=str(tmp_path / "kept"))
    assert ids(path) == ["m1", "m2", "m3"]
    assert content(report.kept_as) == span(1, 3) + b"torn"
    assert sorted(os.listdir(tmp_path))[1:] == ["copy", "history.jsonl", "kept"]


def damage(data, cuts):
    """Truncate, overwrite or remove pieces of `data`, as power cuts and careless tools do."""
    for kind, place, size in cuts:
        at = place % (len(data) + 1)
        piece = {"zero": b"\0" * size, "drop": b"", "junk": b"\xfe\n}"}.get(kind)
        data = data[:at] if piece is None else data[:at] + piece + data[at + size :]
    return data


def whole_ids(data):
    found = Counter()
    for raw in data.split(b"\n"):
        try:
            found[history.id_of(history.parse(raw))] += 1
        except ValueError:
            continue
    return found


def cuts(*kinds):
    one = st.tuples(st.sampled_from(kinds), st.integers(0, 2000), st.integers(0, 90))
    return st.lists(one, max_size=3)


numbers = st.lists(st.integers(1, 12), max_size=14)


copies = st.tuples(numbers, cuts("zero", "drop", "junk", "cut")).map(lambda made: damage(span(*made[0]), made[1]))


@settings(max_examples=300, deadline=None)
@given(copies, st.lists(copies, max_size=3), st.sampled_from([1, 7, 100, 1 << 16]))
def test_mending_never_loses_a_whole_message(live, candidates, block):
    with TemporaryDirectory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(history_repair, "BLOCK", block)
            path, report = mended(folder, live, *candidates)
        after = whole_ids(content(path))
        for copy in (live, *candidates):
            assert not whole_ids(copy) - after
        before = set(b"\n".join([live, *candidates]).split(b"\n"))
        assert set(content(path).split(b"\n")) <= before | {b""}
        assert history.is_whole(path)
        assert sum(after.values()) == report.count
        if report.is_changed:
            assert content(report.kept_as) == live
            again = history_repair.repair(path, [report.kept_as], keep_damaged_as=path + ".never")
            assert not again.is_changed


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), cuts("zero", "junk", "cut"))
def test_copies_of_one_history_mend_into_its_order(has, copied, done):
    """A live file and an older copy of it, one of them damaged: every message is where it was."""
    live, copy = damage(span(*range(has)), done), span(*range(copied))
    with TemporaryDirectory() as folder:
        path, _ = mended(folder, live, copy)
        order = [int(one[1:]) for one in ids(path)]
        assert order == sorted(set(order))
