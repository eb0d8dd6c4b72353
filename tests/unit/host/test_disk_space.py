"""The ballast: made as large as the settings and the disk allow, given up in slices, never a burden itself."""

import os

import pytest

from agentctl import rescue
from agentctl.host.disk_space import LEAST_BYTES, Ballast, free_bytes, is_read_only

MIB = 1 << 20


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ballast"


def test_it_takes_up_the_room_it_names_and_gives_it_in_slices(path):
    ballast = Ballast([str(path)], 8 * MIB)
    assert ballast.is_wanted()
    ballast.refill()
    assert path.stat().st_size == 8 * MIB and path.stat().st_blocks * 512 >= 8 * MIB
    assert not ballast.is_wanted()
    given = []
    while slice_bytes := ballast.give():
        given.append(slice_bytes)
    assert sum(given) == 8 * MIB and len(given) == 4 and not path.exists()
    assert ballast.is_wanted()


def test_none_is_wanted_and_what_is_there_goes(path):
    Ballast([str(path)], MIB).refill()
    none = Ballast([str(path)], 0)
    assert not none.is_wanted()
    none.refill()
    assert not path.exists() and none.give() == 0


def test_it_never_takes_more_than_an_eighth_of_what_is_free(path):
    ballast = Ballast([str(path)], 1 << 60)
    assert ballast.paths and ballast._missing(str(path)) <= free_bytes(path.parent) // 8 + 1


def test_a_smaller_setting_shrinks_it(path):
    Ballast([str(path)], 4 * MIB).refill()
    Ballast([str(path)], MIB).refill()
    assert path.stat().st_size == MIB


def test_two_on_one_file_system_are_one(tmp_path):
    (tmp_path / "a").mkdir()
    assert len(Ballast([str(tmp_path / "x"), str(tmp_path / "a/x")], MIB).paths) == 1


def test_make_room_gives_nothing_where_there_is_room(path):
    ballast = Ballast([str(path)], MIB)
    ballast.refill()
    assert ballast.make_room(4096) == 0 and path.stat().st_size == MIB
    assert ballast.make_room(1 << 62) == MIB and not path.exists()


def test_a_link_in_its_place_is_not_followed(path, tmp_path):
    (tmp_path / "precious").write_text("p")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        Ballast([str(path)], MIB).refill()
    assert (tmp_path / "precious").read_text() == "p"


def test_a_folder_that_is_not_there_is_no_hindrance(tmp_path):
    assert free_bytes(str(tmp_path / "nowhere")) > 1 << 40 and not is_read_only(str(tmp_path / "nowhere"))
    assert Ballast([str(tmp_path / "nowhere/ballast")], MIB).give() == 0
    assert LEAST_BYTES < MIB and os.statvfs(tmp_path)


@pytest.mark.parametrize(("before", "now", "waited", "is_back"), [
    ([0], [0], 5, False), ([0], [500_000], 5, False), ([0], [2 * MIB], 5, True), ([0], [0], 601, True),
    ([-1], [-1], 601, False), ([-1], [9], 5, True), ([-1, 0], [9, -1], 5, False), ([5, 0], [5, 2 * MIB], 5, True),
])  # fmt: skip
def test_when_waiting_ends(before, now, waited, is_back):
    assert rescue.has_come_back(before, now, waited) is is_back


@pytest.mark.parametrize(("free", "is_first", "is_back"), [
    ([rescue.ENOUGH_BYTES] * 2, True, True),  # it came back before anybody looked
    ([rescue.ENOUGH_BYTES] * 2, False, False),  # and was not enough the last time
    ([rescue.ENOUGH_BYTES, 0], True, False), ([rescue.ENOUGH_BYTES, -1], True, False),
])  # fmt: skip
def test_room_that_is_there_already_is_tried_once(free, is_first, is_back):
    assert rescue.has_come_back(free, free, 0, is_first=is_first) is is_back
