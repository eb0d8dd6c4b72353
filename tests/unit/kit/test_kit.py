"""The kit that judges the others: manifests see every difference, the line killer every gap, the table its counts."""

import json
import os

import pytest

from agentctl.core import durable
from agentctl.host import command
from kit import survival
from kit.exploration import explore
from kit.line_killer import run
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
    page = survival.render(total, {}, "nights", survival.MODES)
    assert "| kill | rollback |  | 1,234 |" in page
    both = {("kill", "rollback"): 7, ("cut", "ledger"): 1}
    page = survival.render(both, survival.read_page(page), "gate", survival.MODES)
    assert "| kill | rollback | 7 | 1,234 |" in page
    assert "| **all** | | **8** | **1,234** |" in page
    page = survival.render({("cut", "ledger"): 2}, survival.read_page(page), "gate", survival.MODES)
    assert "| kill | rollback |  | 1,234 |" in page


def test_the_page_is_made_of_the_nights_that_there_are(tmp_path):
    page, nights = tmp_path / "page.md", [tmp_path / f"{n}-of-3.jsonl" for n in (1, 3)]
    for points, night in enumerate(nights, 4):
        night.write_text(json.dumps({"family": "kill", "what": "rollback", "points": points}) + "\n")
    survival.main(str(page), "nights/3", *map(str, nights))
    survival.main(str(page), "gate", str(nights[0]))
    assert "| every gate | 2 of 3 nights |" in page.read_text()
    assert "| kill | rollback | 4 | 9 |" in page.read_text()


class Files:
    """Files that are each replaced in one step: one alone is never half there, two together are."""

    def __init__(self, folder, names):
        self.paths, self.seen = [f"{folder}/{name}" for name in names], set()

    def reset(self):
        for path in self.paths:
            durable.write(path, b"old")

    def act(self):
        for path in self.paths:
            durable.write(path, b"new")

    recover = act

    def at_the_kill(self, run):
        content = {durable.read(path) for path in self.paths}
        assert content in ({b"old"}, {b"new"}), f"half there: {content}"

    def afterwards(self, run):
        assert all(durable.read(path) == b"new" for path in self.paths)

    def end(self):
        pass


@pytest.mark.parametrize("plan", [{"points": 0}, {"points": 1000}, {"points": 1000, "pairs": 4}, {"stride": 3}])
def test_the_line_killer_lets_pass_what_is_whole_and_finds_what_is_not(tmp_path, plan):
    def folder():  # of each worker its own
        path = tmp_path / str(os.getpid())
        path.mkdir(exist_ok=True)
        return path

    found = explore(lambda: Files(folder(), ["one"]), **plan)
    assert found.points > 3 and found.pairs == plan.get("pairs", 0)
    with pytest.raises(AssertionError, match="half there"):
        explore(lambda: Files(folder(), ["one", "other"]), **plan)


def test_a_run_dies_at_its_line_and_tells_where(tmp_path):
    path = str(tmp_path / "file")
    whole = run(lambda: durable.write(path, b"x"))
    assert not whole.was_killed and whole.place == "" and whole.lines > 10 > whole.calls > 2
    killed = run(lambda: durable.write(path, b"y"), whole.lines)
    assert killed.was_killed and killed.lines == whole.lines and killed.place.startswith("durable.py:")
    assert not run(lambda: durable.write(path, b"z"), whole.lines + 1).was_killed
    with pytest.raises(AssertionError, match="told to fail"):
        run(lambda: (_ for _ in ()).throw(ValueError("told to fail")))


class Starter(Files):
    """Starts a program and does not wait for it."""

    def act(self):
        running = command.start(["/bin/sleep", "1000"], env={"NAME": self.paths[0]})
        durable.write(self.paths[0], b"new")
        os.kill(running.pid, 9)

    recover = act

    def at_the_kill(self, run):
        name = f"NAME={self.paths[0]}".encode()
        left = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if name in _environ(pid)]
        assert not left, f"left running: {left}"


def _environ(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_what_a_killed_run_had_started_ends_with_it(tmp_path):
    assert explore(lambda: Starter(tmp_path, [f"{os.getpid()}"]), stride=10).points > 1
