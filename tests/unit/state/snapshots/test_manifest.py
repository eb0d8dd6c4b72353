"""The list of what a snapshot holds: any name in it, and damage refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.state.snapshots import manifest, snapshot
from agentctl.state.snapshots.manifest import SnapshotFailed
from unit.state.snapshots.state_folders import nasty, put


def test_a_damaged_manifest_is_refused_and_only_costs_the_next_take(places):
    state, root, _ = places
    put(f"{state}/f", b"1")
    snapshot.take(state, root, "1")
    with open(f"{root}/1/{manifest.NAME}", "r+b") as file:
        file.seek(60)
        file.write(b"@")
    assert "checksum" in snapshot.verify(root, "1")[0]
    assert snapshot.take(state, root, "2", previous="1").copied_bytes == 1
    assert snapshot.take(state, root, "3", previous="no such").copied_bytes == 1


def test_the_manifest_survives_any_name_and_is_json(places):
    import json

    state, root, _ = places
    nasty(state)
    snapshot.take(state, root, "1")
    with open(f"{root}/1/{manifest.NAME}") as file:
        data = json.load(file)["manifest"]
    assert any(row[0] == os.fsdecode(b"bad\xff\xfename") for row in data["entries"])
    kinds = {row[0]: row[1] for row in data["entries"]}
    assert (kinds["fifo"], kinds["socket"], kinds["link"]) == ("fifo", "socket", "link")


NAMES = st.text(min_size=1).filter(lambda text: "\0" not in text)
ENTRIES = st.lists(
    st.builds(
        manifest.Entry,
        NAMES,
        st.sampled_from(["file", "dir", "link", "fifo"]),
        *[st.integers(0, 2**63) for _ in range(7)],
        crc=st.integers(0, 2**32 - 1),
        state=st.sampled_from(["", "unsettled", "unreadable", "left-out"]),
        sqlite=st.sampled_from(["", "files", "backup"]),
        target=NAMES,
    ),
    max_size=5,
)


@given(ENTRIES, st.text(), st.lists(NAMES, max_size=3))
def test_what_is_written_is_read_again(tmp_path_factory, entries, note, keep):
    folder = tmp_path_factory.mktemp("one")
    (folder / manifest.NAME).write_bytes(manifest.encode(manifest.Manifest("1", 5, entries, note=note, keep=keep)))
    found = manifest.load(str(folder))
    assert (found.id, found.started_ns, found.about["note"], found.about["keep"]) == ("1", 5, note, keep)
    slots = manifest.Entry.__slots__
    assert [[getattr(e, s) for s in slots] for e in found.entries] == [[getattr(e, s) for s in slots] for e in entries]


@pytest.mark.parametrize("at", [0, 20, 60, -3])
def test_one_byte_that_is_wrong_is_seen(tmp_path, at):
    data = bytearray(manifest.encode(manifest.Manifest("1", 5, [])))
    data[at] ^= 1
    (tmp_path / manifest.NAME).write_bytes(data)
    with pytest.raises(SnapshotFailed, match="fails its checksum"):
        manifest.load(str(tmp_path))


def test_one_that_is_not_there_or_of_a_newer_version_is_told(tmp_path, monkeypatch):
    with pytest.raises(SnapshotFailed, match=f"no {manifest.NAME}"):
        manifest.load(str(tmp_path))
    monkeypatch.setattr(manifest, "FORMAT", 2)
    (tmp_path / manifest.NAME).write_bytes(manifest.encode(manifest.Manifest("1", 5, [])))
    monkeypatch.undo()
    with pytest.raises(manifest.SnapshotTooNew, match="is of version 2; this agentctl knows 1"):
        manifest.load(str(tmp_path))


@pytest.mark.parametrize(("path", "place"), [("a/b", "tree/a/b"), ("/home/a", "extra/home/a")])
def test_where_the_copy_of_a_path_is(path, place):
    assert manifest.stored_at(path) == place
