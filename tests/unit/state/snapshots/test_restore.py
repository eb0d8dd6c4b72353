"""What a restore puts back, what it leaves alone, and where it keeps what it replaced."""

from __future__ import annotations

import os
import tempfile

import pytest

from agentctl.state.snapshots import snapshot
from unit.state.snapshots.state_folders import look, nasty, put, ruin


def test_patterns_choose_and_keep_wins(places):
    state, root, replaced = places
    put(f"{state}/config/a", b"1")
    put(f"{state}/history.jsonl", b"h1")
    put(f"{state}/notes", b"n1")
    snapshot.take(state, root, "1", keep_patterns=["history.jsonl"])
    for name in ("config/a", "history.jsonl", "notes", "config/new"):
        put(f"{state}/{name}", b"later")
    report = snapshot.restore(root, "1", state, ["config/*", "history.jsonl"], replaced)
    assert (report.restored, report.removed) == (["config/a"], ["config/new"])
    assert report.kept == ["history.jsonl"]
    assert look(state)[b"notes"][1] == look(state)[b"history.jsonl"][1] == b"later"
    untouched = os.stat(f"{state}/config/a")
    snapshot.restore(root, "1", state, ["config/*", "history.jsonl"], replaced, keep=[])
    assert look(state)[b"history.jsonl"][1] == b"h1"
    assert os.stat(f"{state}/config/a").st_ctime_ns == untouched.st_ctime_ns


def test_what_was_saved_is_never_overwritten(places):
    state, root, replaced = places
    put(f"{state}/f", b"good")
    snapshot.take(state, root, "1")
    for text in (b"bad 1", b"bad 2"):
        put(f"{state}/f", text)
        os.rename(f"{state}/f", f"{state}/g")  # another inode each time
        put(f"{state}/f", text)
        os.unlink(f"{state}/g")
        snapshot.restore(root, "1", state, ["f"], replaced)
    assert look(replaced)[b"tree/f"][1] == b"bad 1"
    assert look(replaced)[b"tree.2/f"][1] == b"bad 2"


def test_a_folder_turned_into_a_link_does_not_lead_a_restore_away(places, tmp_path):
    state, root, replaced = places
    put(f"{state}/config/a", b"good")
    snapshot.take(state, root, "1")
    os.unlink(f"{state}/config/a")
    os.rmdir(f"{state}/config")
    put(f"{tmp_path}/etc/a", b"not yours")
    os.symlink(f"{tmp_path}/etc", f"{state}/config")
    snapshot.restore(root, "1", state, ["config/*"], replaced)
    assert look(f"{tmp_path}/etc")[b"a"][1] == b"not yours"
    assert look(state)[b"config/a"][1] == b"good"
    assert os.path.islink(f"{replaced}/tree/config")


def test_replaced_on_another_file_system(places, tmp_path):
    other = "/dev/shm"
    if not os.path.isdir(other) or os.stat(other).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("needs a second file system")

    state, root, _ = places
    nasty(state)
    before = look(state)
    snapshot.take(state, root, "1")
    ruin(state)
    with tempfile.TemporaryDirectory(dir=other) as replaced:
        snapshot.restore(root, "1", state, ["*"], replaced)
        assert look(state) == before
        saved = look(f"{replaced}/tree")
        assert saved[b"plain"][1] == b"other" and saved[b"newcomer/x"][1] == b"mine"
