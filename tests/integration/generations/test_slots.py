"""The slots on a real disk: one exchange, safe to repeat from every state a kill can leave."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.generations import lifecycle, slots
from agentctl.generations.slots import Slots, carry_over
from integration.vault_store import Store, contents
from integration.world import git, write
from kit.manifest import manifest


class Place(Store):
    """A store with slots beside its code, and one good generation in the vault."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.slots = Slots(str(folder / ".code.agentctl"), str(self.code), None)
        self.slots.create()
        self.good = self.keep()
        self.commit = git(self.code, "rev-parse", "HEAD")
        self.quarantine = self.slots.quarantine_path("i", 1)

    def prepare(self, *environment: str) -> int:
        self.slots.prepare(self.vault, 1, self.good, self.commit, list(environment))
        return os.stat(self.slots.standby).st_ino

    def switch(self, inode: int) -> str:
        return self.slots.switch(self.slots.standby, inode, self.quarantine)


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    write(place.code, {"agent.py": "bad\n", "more.txt": "bad\n"})
    return place


def test_prepare_is_exact_and_can_be_done_again(place):
    for _ in range(3):
        inode = place.prepare()
        assert contents(Path(place.slots.standby)) == {
            "agent.py": contents(place.code)["agent.py"][:2] + (contents(place.laid_out(place.good))["agent.py"][2],)
        }
        assert place.slots.standby_note() == {"version": 1, "generation": 1, "inode": inode, "environment": []}
        place.count += 1


def test_a_candidate_and_the_good_one_are_made_at_once(place):
    """A person's promotion lays its tree out, in a process that no rollback ends or waits for."""
    slot = lifecycle.candidate_slot(SimpleNamespace(slots=place.slots))
    candidate = place.keep()

    class Interrupted:
        """The vault, with a rollback in the middle of what the promotion does."""

        write_index = place.vault.write_index

        def lay_out(self, revision: str, folder: str) -> None:
            place.vault.lay_out(revision, folder)
            place.prepare()

    slot.prepare(Interrupted(), 2, candidate, place.commit, [])
    assert set(contents(Path(place.slots.standby))) == {"agent.py"} and place.slots.standby_note()["generation"] == 1
    assert {"agent.py", "more.txt"} == set(contents(Path(slot.standby))) and slot.standby_note()["generation"] == 2


def test_prepare_after_a_kill_in_its_middle(place):
    for leftover in ("standby.partial/half", "standby.partial.index", "standby.index.partial", "standby/old"):
        write(place.slots.folder, {leftover: "x"})
    assert place.slots.standby_note() == {}
    place.prepare()
    assert set(contents(Path(place.slots.standby))) == {"agent.py"}
    assert not os.path.exists(f"{place.slots.folder}/standby.partial")


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"generation": 1, "inode": 1}'])
def test_a_note_that_does_not_fit_is_no_note(place, note):
    place.prepare()
    write(place.slots.folder, {"standby.json": note})
    assert place.slots.standby_note() == {}


def test_what_a_note_vouches_for_is_never_removed_in_its_place(place, monkeypatch):
    """Half removed it would still have the inode of its note, and a rollback to that generation would take it."""
    place.prepare()
    run, removed = slots.command.run, []

    def look_and_run(argv, **how):
        if argv[0] == "/bin/rm":
            removed.append(argv[-1])
            assert argv[-1] != place.slots.standby
        return run(argv, **how)

    monkeypatch.setattr(slots.command, "run", look_and_run)
    place.prepare()
    assert removed == [f"{place.slots.folder}/standby.old"]
    assert sorted(os.listdir(place.slots.folder)) == ["quarantine", "standby", "standby.index", "standby.json"]


def test_a_tree_in_the_standby_s_place_that_is_none_is_kept(place):
    """A switch that was cut off leaves the agent's tree there, and whatever comes next may be another standby."""
    inode = place.prepare()
    before = manifest(place.code)
    after_the_exchange(place, inode)
    place.prepare()
    (kept,) = Path(place.slots.folder).glob("quarantine/set-aside-*/tree")
    assert manifest(kept) == before
    assert place.slots.standby_note()["generation"] == 1


def test_the_environment_is_copied_with_links_and_modes(place):
    write(place.code, {".venv/bin/tool": "#!/bin/sh\n", ".venv/data": "x"})
    os.chmod(place.code / ".venv/bin/tool", 0o755)
    os.symlink("tool", place.code / ".venv/bin/link")
    place.prepare(".venv", "missing")
    standby = Path(place.slots.standby)
    assert manifest(standby / ".venv") == manifest(place.code / ".venv")
    assert not (standby / "missing").exists()


def test_a_switch_exchanges_and_keeps_the_old_tree_whole(place):
    inode = place.prepare()
    before, good = manifest(place.code), manifest(place.slots.standby)
    assert place.switch(inode) == "exchanged"
    assert manifest(place.code) == good
    assert manifest(f"{place.quarantine}/tree") == before
    assert not os.path.lexists(place.slots.standby)
    assert place.slots.standby_note() == {}


def at_the_start(place, inode):
    return


def after_the_folder(place, inode):
    os.makedirs(place.quarantine)


def after_the_exchange(place, inode):
    os.makedirs(place.quarantine)
    slots.exchange(place.slots.standby, str(place.code))


def after_the_rename(place, inode):
    place.switch(inode)


@pytest.mark.parametrize("killed", [at_the_start, after_the_folder, after_the_exchange, after_the_rename])
def test_a_switch_goes_on_from_wherever_it_was_killed(place, killed):
    inode = place.prepare()
    before, good = manifest(place.code), manifest(place.slots.standby)
    killed(place, inode)
    for _ in range(2):
        place.switch(inode)
        assert manifest(place.code) == good
        assert manifest(f"{place.quarantine}/tree") == before
        assert not os.path.lexists(place.slots.standby)


def test_a_new_standby_is_not_taken_for_the_old_tree(place):
    inode = place.prepare()
    place.switch(inode)
    kept = manifest(f"{place.quarantine}/tree")
    place.prepare()
    place.switch(inode)
    assert manifest(f"{place.quarantine}/tree") == kept
    assert os.path.isdir(place.slots.standby)


@pytest.mark.parametrize("kind", ["gone", "link", "dangling", "file"])
def test_a_switch_where_the_agent_s_path_is_something_else(place, kind):
    inode = place.prepare()
    good = manifest(place.slots.standby)
    os.rename(place.code, place.folder / "elsewhere")
    if kind == "link":
        os.symlink(place.folder / "elsewhere", place.code)
    elif kind == "dangling":
        os.symlink("nowhere", place.code)
    elif kind == "file":
        place.code.write_text("a file\n")
    for _ in range(2):
        place.switch(inode)
        assert manifest(place.code) == good and not place.code.is_symlink()
        assert os.path.lexists(f"{place.quarantine}/tree") == (kind != "gone")
    assert (place.folder / "elsewhere/more.txt").exists()


def test_a_fresh_tree_that_is_gone_moves_nothing(place):
    inode = place.prepare()
    before = manifest(place.code)
    os.rename(place.slots.standby, place.folder / "lost")
    with pytest.raises(OSError):
        place.switch(inode)
    assert manifest(place.code) == before


def test_only_standbys_of_ours_are_removed(place):
    for path in (str(place.code), f"{place.slots.folder}/quarantine", place.slots.folder):
        with pytest.raises(AgentctlError):
            place.slots._discard(path)
    assert place.code.exists()


def test_moves_of_one_incident_have_their_own_places(place):
    paths = [place.slots.quarantine_path("i", move) for move in (0, 1, 2, 3)]
    assert paths[0] == paths[1] and len(set(paths)) == 3


# --- carry over


def test_carry_over_moves_once_and_says_what_was_in_the_way(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    odd = os.fsdecode(b"\xff\n.log")
    write(
        old,
        {
            "cache/a": "1",
            "deep/er/x.log": "2",
            "blocked": "3",
            odd: "4",
            "deep/code.py": "stays",
            "below/blocked.log": "5",
        },
    )
    write(new, {"blocked": "theirs", "deep/code.py": "good", "below": "a file"})
    os.symlink("nowhere", old / "link.log")
    names = ["cache/", "deep/er/", "blocked", odd, "link.log", "missing", "below/blocked.log"]
    assert carry_over(str(old), str(new), names) == "blocked\nbelow/blocked.log"
    after = manifest(new), manifest(old)
    assert (new / "cache/a").read_text() == "1" and (new / "deep/er/x.log").read_text() == "2"
    assert (new / odd).read_text() == "4" and os.readlink(new / "link.log") == "nowhere"
    assert (new / "blocked").read_text() == "theirs" and (old / "blocked").read_text() == "3"
    assert carry_over(str(old), str(new), names) == "blocked\nbelow/blocked.log"
    assert (manifest(new), manifest(old)) == after


def test_carry_over_half_done(tmp_path):
    write(tmp_path, {"old/b": "2", "new/a": "1"})
    assert carry_over(str(tmp_path / "old"), str(tmp_path / "new"), ["a", "b"]) == ""
    assert set(manifest(tmp_path / "new")) == {"a", "b"}


# --- the index that is prepared with the standby


def test_the_prepared_index_leaves_a_clean_status(place):
    inode = place.prepare()
    place.switch(inode)
    assert carry_over(f"{place.quarantine}/tree", str(place.code), [".git"]) == ""
    place.repository.put_on("main", place.commit, {})
    place.repository.take_index(place.slots.standby_index)
    assert git(place.code, "diff-files", "--name-only") == ""  # no refresh is needed
    assert git(place.code, "status", "--porcelain") == ""
    assert git(place.code, "diff", "--cached", "--stat") == ""
