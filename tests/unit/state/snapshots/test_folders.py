"""The folders a snapshot covers: also outside the state folder, and through no link of the agent's."""

from __future__ import annotations

import os

import pytest

from agentctl.state.snapshots import folders, snapshot
from unit.state.snapshots.state_folders import is_root, look, put, settle


def test_a_folder_that_is_a_link_is_never_opened(tmp_path):
    os.symlink("/etc", tmp_path / "link")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError):
            os.close(folders.open_below(fd, ["link"]))
    finally:
        os.close(fd)


def test_extra_patterns_outside_the_folder(places, tmp_path):
    state, root, replaced = places
    home = tmp_path / "home"
    put(f"{home}/.tool/sessions/a.jsonl", b"a")
    put(f"{home}/.tool/other", b"o")
    put(f"{home}/.tool.json", b"{}")
    extra = [f"{home}/.tool/sessions/**", f"{home}/.tool.json"]
    snapshot.take(state, root, "1", extra=extra)
    settle()
    assert snapshot.take(state, root, "2", previous="1", extra=extra).copied_bytes in (0, 3)
    assert snapshot.read_file(root, "2", f"{home}/.tool.json") == b"{}"
    assert snapshot.read_file(root, "2", f"{home}/.tool/other") is None
    put(f"{home}/.tool/sessions/a.jsonl", b"changed")
    put(f"{home}/.tool/sessions/b.jsonl", b"new")
    put(f"{home}/.tool/other", b"stays")
    os.unlink(f"{home}/.tool.json")
    snapshot.restore(root, "2", state, ["*"], replaced, extra=extra)
    assert look(home)[b".tool/sessions/a.jsonl"][1] == b"a"
    assert look(home)[b".tool.json"][1] == b"{}"
    assert look(home)[b".tool/other"][1] == b"stays"
    assert b".tool/sessions/b.jsonl" not in look(home)
    assert look(replaced)[os.fsencode(f"extra{home}/.tool/sessions/b.jsonl")][1] == b"new"


@pytest.mark.skipif(not is_root, reason="needs two users")
def test_a_link_made_by_the_agent_is_not_followed_out(places, tmp_path):
    state, root, replaced = places
    put(f"{tmp_path}/private/key", b"of root")
    home = tmp_path / "home"
    home.mkdir()
    os.symlink(f"{tmp_path}/private", f"{home}/.tool")
    os.lchown(f"{home}/.tool", 12345, 12345)
    extra = [f"{home}/.tool/*"]
    report = snapshot.take(state, root, "1", extra=extra)
    assert report.skipped == [f"{home}/.tool: Not a directory"] and report.files == 0
    os.lchown(f"{home}/.tool", 0, 0)
    snapshot.take(state, root, "2", extra=extra)
    assert snapshot.read_file(root, "2", f"{home}/.tool/key") == b"of root"
    os.lchown(f"{home}/.tool", 12345, 12345)
    put(f"{tmp_path}/private/key", b"later")
    report = snapshot.restore(root, "2", state, ["*"], replaced, extra=extra)
    assert report.kept == [f"{home}/.tool"]
    assert look(f"{tmp_path}/private")[b"key"][1] == b"later"


def test_each_folder_that_a_pattern_starts_from_is_one_place(tmp_path):
    places = folders.all_places(str(tmp_path), ["/home/a/.tool/**", "/home/a/.tool/*.json", "/etc/tool.conf"])
    assert [(place.path, place.prefix) for place in places] == [
        (str(tmp_path), ""),
        ("/home/a/.tool", "/home/a/.tool/"),
        ("/etc", "/etc/"),
    ]
    state, tool, etc = places
    assert state.owns("a") and state.owns("b/c") and not state.owns("/home/a/.tool/x")
    assert tool.owns("/home/a/.tool/x/y") and not tool.owns("/home/a/x") and not tool.owns("x")
    assert etc.owns("/etc/tool.conf") and not etc.owns("/etc/passwd")
    assert folders.place_of(places, "/etc/passwd") is etc and folders.place_of(places, "x") is state
    with pytest.raises(FileNotFoundError):
        folders.place_of(places, "/srv/x")


def test_a_place_that_is_not_there_is_none_and_one_that_is_no_folder_is_told(tmp_path):
    put(f"{tmp_path}/file", b"")
    assert not folders.SnapshotFolder(str(tmp_path / "nothing"), "", None).open()
    with pytest.raises(NotADirectoryError):
        folders.SnapshotFolder(str(tmp_path / "file"), "", None).open()
    outside = folders.SnapshotFolder(str(tmp_path / "file"), f"{tmp_path}/file/", ["*"])
    assert not outside.open() and outside.why == "Not a directory"
