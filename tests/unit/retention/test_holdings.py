"""What is kept, and what of it would be free: measured, and remembered for who has no time to measure."""

import os
from types import SimpleNamespace

import pytest

from agentctl.core.errors import AgentctlError
from agentctl.retention import holdings


def test_what_hard_links_share_is_free_only_together(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    (tmp_path / "a/one").write_bytes(b"x" * 8192)
    (tmp_path / "a/two").write_bytes(b"x" * 4096)
    (tmp_path / "a/outside").write_bytes(b"x" * 4096)
    os.link(tmp_path / "a/one", tmp_path / "b/one")
    os.link(tmp_path / "b/one", tmp_path / "c/one")
    os.link(tmp_path / "a/outside", tmp_path / "elsewhere")
    sizes = holdings.measure({name: str(tmp_path / name) for name in "abc"})
    assert sizes.freed({"a"}) == 4096 and sizes.freed({"a", "b"}) == 4096
    assert sizes.freed({"a", "b", "c"}) == sizes.total() == 4096 + 8192


@pytest.fixture
def context(tmp_path):
    return SimpleNamespace(paths=SimpleNamespace(data_dir=str(tmp_path)))


def test_what_was_measured_is_remembered(context, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x" * 4096)
    sizes = {"quarantine": holdings.measure({"a": str(tmp_path / "a")})}
    holdings.remember_sizes(context, sizes)
    found = holdings.remembered_sizes(context)
    assert found.keys() == {"quarantine"} and found["quarantine"].total() == sizes["quarantine"].total() == 4096
    assert found["quarantine"].freed({"a"}) == 4096 and found["quarantine"].freed({"b"}) == 0


@pytest.mark.parametrize("text", [None, "", "{torn", "[]", '{"quarantine": 5}', '{"quarantine": [5]}'])
def test_what_cannot_be_read_was_not_measured(context, tmp_path, text):
    if text is not None:
        (tmp_path / holdings.SIZES_NAME).write_text(text)
    assert holdings.remembered_sizes(context) == {}


def test_what_is_gone_takes_no_room(tmp_path):
    assert holdings.measure({"a": str(tmp_path / "nothing")}).total() == 0


@pytest.mark.parametrize(("mode", "is_link"), [(0o777, False), (0o775, False), (0o755, True)])
def test_slots_that_somebody_else_may_write_to_are_not_pruned(tmp_path, mode, is_link):
    folder = tmp_path / "slots"
    folder.mkdir()
    folder.chmod(mode)
    if is_link:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    context = SimpleNamespace(slots=SimpleNamespace(folder=str(folder)))
    with pytest.raises(AgentctlError):
        holdings.pin_slots(context)


def test_slots_of_ours_are_reached_by_their_descriptor_from_then_on(tmp_path):
    folder = tmp_path / "slots"
    folder.mkdir(mode=0o755)
    context = SimpleNamespace(slots=SimpleNamespace(folder=str(folder)))
    holdings.pin_slots(context)
    folder.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/in it").write_text("")
    assert os.listdir(context.slots.folder) == ["in it"]
    os.close(int(context.slots.folder.rpartition("/")[2]))
