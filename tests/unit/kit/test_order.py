"""The kit's other orders: the same for the same seed, what is shared stays together, what goes on keeps its order."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit import order, schedule


def item(module, name, *, root="", world="", marks=()):
    scopes = {"box_root": ("session", root), "agent": ("module", world)}
    given = {fixture: (scope, value) for fixture, (scope, value) in scopes.items() if value}
    call = SimpleNamespace(
        params={f: value for f, (_, value) in given.items()},
        _arg2scope={f: SimpleNamespace(value=scope) for f, (scope, _) in given.items()},
    )
    return SimpleNamespace(
        path=Path(module),
        name=name,
        root=root,
        world=world,
        callspec=call,
        get_closest_marker=lambda wanted: wanted in marks,
    )


ITEMS = [
    *(item("test_plain.py", f"p{n}") for n in range(20)),
    *(item("test_box.py", f"b{n}", root=root) for root in ("own", "debian13") for n in range(10)),
    *(item("test_kinds.py", f"k{n}", world=world) for world in ("llm", "aider", "hermes") for n in range(5)),
    *(item("test_story.py", f"s{n}", root=root, marks=(order.IN_ORDER,)) for root in ("own", "debian13")
      for n in range(10)),
]  # fmt: skip


def in_runs(items, key):
    """Return the key of each run of neighbours that share it."""
    found = []
    for one in items:
        if found[-1:] != [key(one)]:
            found.append(key(one))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_test_is_there_once_and_what_is_shared_stays_together(seed):
    found = order.shuffled(list(ITEMS), random.Random(seed))
    assert sorted(map(id, found)) == sorted(map(id, ITEMS))
    for key in (lambda i: i.root, lambda i: (i.root, i.path), lambda i: (i.root, i.path, i.world)):
        runs = in_runs(found, key)
        assert len(runs) == len(set(runs)), runs
    for root in ("own", "debian13"):
        assert [i.name for i in found if i.path.name == "test_story.py" and i.root == root] == [
            f"s{n}" for n in range(10)
        ]


def test_the_seed_decides():
    def names(seed):
        return [(i.path.name, i.name, i.root, i.world) for i in order.shuffled(list(ITEMS), random.Random(seed))]

    assert names(1) == names(1)
    orders = [names(seed) for seed in range(20)]
    assert len({tuple(in_runs(found, lambda n: n[0])) for found in orders}) > 5  # modules among each other
    assert len({tuple(in_runs(found, lambda n: n[2])) for found in orders}) == 6  # three roots, one of them none
    plain = [[n[1] for n in found if n[0] == "test_plain.py"] for found in orders]
    assert len(set(map(tuple, plain))) == 20


def test_a_module_is_known_by_its_text(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text('"""in_order"""\nx = "pytestmark = pytest.mark.in_order"\n')
    assert not schedule.SHARING.search(path.read_text())
    other = tmp_path / "test_y.py"
    other.write_text("pytestmark = [pytest.mark.slow, pytest.mark.in_order]  # why\n")
    assert schedule.SHARING.search(other.read_text())
