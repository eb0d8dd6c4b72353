"""The kit that judges the others: manifests see every difference, the survival table keeps its count."""

import os

import pytest

from kit import survival
from kit.manifest import describe, manifest, missing


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/tool").write_text("#!/bin/sh")
    os.symlink("file", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def test_a_manifest_has_every_entry(tree):
    assert {path: what[0] for path, what in manifest(tree).items()} == {
        "file": "file", "folder": "folder", "folder/tool": "file", "link": "link", "fifo": "fifo"}  # fmt: skip
    assert "folder/tool" not in manifest(tree, without=("folder",))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: (t / "file").write_text("contenT"),
        lambda t: (t / "file").unlink(),
        lambda t: (t / "folder/tool").chmod(0o755),
        lambda t: (t / "folder").chmod(0o700),
        lambda t: ((t / "link").unlink(), os.symlink("folder", t / "link")),
        lambda t: ((t / "fifo").unlink(), (t / "fifo").write_text("")),
    ],
)
def test_every_change_is_missing_afterwards(tree, change):
    before = manifest(tree)
    assert missing(before, {}, manifest(tree)) == {}
    change(tree)
    assert len(missing(before, {}, manifest(tree))) == 1


def test_a_file_of_holes_is_told_from_its_content(tmp_path):
    for name, place in (("a", 0), ("b", 9_000_000_000)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(10_000_000_000)
            os.pwrite(file.fileno(), b"here", place)
    assert describe(tmp_path / "a") != describe(tmp_path / "b")


def test_names_that_are_no_text_are_kept(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\n", "wb"):
        pass
    assert list(manifest(tmp_path)) == ["\udcff\n"]


def test_the_table_adds_up_and_keeps_the_other_mode():
    total = survival.add_up([{"family": "kill", "what": "rollback", "points": 1000},
                             {"family": "kill", "what": "rollback", "points": 234}])  # fmt: skip
    page = survival.render(total, {}, "nightly")
    assert "| kill | rollback |  | 1,234 |" in page
    page = survival.render({("kill", "rollback"): 7, ("cut", "ledger"): 1}, survival.read_page(page), "ci")
    assert "| kill | rollback | 7 | 1,234 |" in page
    assert "| **all** | | **8** | **1,234** |" in page
    page = survival.render({("cut", "ledger"): 2}, survival.read_page(page), "ci")
    assert "| kill | rollback |  | 1,234 |" in page
