"""What may go: the budgets as tables, and what no budget may ever take as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.retention.retention_rules import (
    Budget,
    Item,
    Sizes,
    as_size,
    choose_pruned,
    guard_generations,
    guard_snapshots,
)
from kit import rows

DAY, NOW = 86400.0, 1_800_000_000.0


def kept(*ages, **guards):
    """Make one item for each age in days, the oldest called a."""
    return [Item(chr(97 + n), NOW - age * DAY, guards.get(chr(97 + n), "")) for n, age in enumerate(ages)]


def own(**sizes):
    return Sizes([({id}, size) for id, size in sizes.items()])


def test_what_is_newest_is_told_by_the_place_not_by_the_time():
    """Two were made while the clock was wrong: far ahead, and long ago."""
    made = [Item("first", NOW + 900 * DAY, "", (1,)), Item("second", NOW - 1, "", (2,)), Item("third", 0.0, "", (3,))]
    choice = choose_pruned(made, Budget(count=1), NOW)
    assert [item.id for item, _, _ in choice.pruned] == ["first", "second"]
    choice = choose_pruned(made, Budget(age_seconds=DAY), NOW)
    assert choice.pruned == [], "the newest stays, and what comes from the future is not old"


@pytest.mark.parametrize(("items", "budget", "sizes", "pruned", "excess"), [
    (kept(9, 5, 1), Budget(), None, [], ""),
    (kept(9, 5, 1), Budget(age_seconds=4 * DAY), None, [("a", "older than 4d"), ("b", "older than 4d")], ""),
    (kept(9, 8, 7), Budget(age_seconds=DAY), None, [("a", "older than 1d"), ("b", "older than 1d")], ""),
    (kept(9, 8, 7), Budget(age_seconds=DAY, newest=2), None, [("a", "older than 1d")], ""),
    (kept(9, 8, 7, a="golden"), Budget(age_seconds=DAY), None, [("b", "older than 1d")], ""),
    (kept(4, 3, 2, 1), Budget(count=2), None, [("a", "more than 2"), ("b", "more than 2")], ""),
    (kept(4, 3, 2, 1, a="x", b="x"), Budget(count=2), None, [("c", "more than 2")],
     "3 have to stay, more than the 2 allowed"),
    (kept(3, 2, 1), Budget(bytes=150), own(a=100, b=100, c=100), [("a", "more than 150B in all"),
                                                                 ("b", "more than 150B in all")], ""),
    (kept(3, 2, 1), Budget(bytes=150, newest=3), own(a=100, b=100, c=100), [],
     "300B have to stay, more than the 150B allowed"),
    # what two share is free only when both are gone
    (kept(3, 2, 1), Budget(bytes=150), Sizes([({"a", "b"}, 100), ({"b", "c"}, 10), ({"c"}, 90)]),
     [("a", "more than 150B in all"), ("b", "more than 150B in all")], ""),
    (kept(-5, -9), Budget(age_seconds=DAY), None, [], ""),  # a clock that was set back
    ([], Budget(1, 1, 1), None, [], ""),
])  # fmt: skip
def test_budgets(items, budget, sizes, pruned, excess):
    choice = choose_pruned(items, budget, NOW, sizes)
    assert [(item.id, why) for item, why, _ in choice.pruned] == pruned
    assert choice.excess == excess


def test_what_a_shared_part_frees_counts_for_the_one_that_frees_it():
    choice = choose_pruned(kept(3, 2, 1), Budget(count=1), NOW, Sizes([({"a", "b"}, 100), ({"b"}, 7), ({"c"}, 1)]))
    assert [(item.id, size) for item, _, size in choice.pruned] == [("a", 0), ("b", 107)]
    assert (choice.freed_bytes, choice.total_bytes) == (107, 108)


ITEMS = st.lists(st.tuples(st.floats(0, 400), st.sampled_from(["", "", "", "golden"])), max_size=12)
BUDGETS = st.builds(
    Budget, st.sampled_from([0, DAY, 30 * DAY]), st.integers(0, 8), st.integers(0, 400), st.integers(1, 4)
)


@given(ITEMS, BUDGETS, st.data())
def test_whatever_the_budget(described, budget, data):
    items = [Item(str(n), NOW - age * DAY, guard) for n, (age, guard) in enumerate(described)]
    ids = [item.id for item in items]
    parts = data.draw(
        st.lists(st.tuples(st.sets(st.sampled_from(ids), min_size=1), st.integers(0, 99)), max_size=9)
        if ids
        else st.just([])
    )
    sizes = Sizes(parts)
    choice = choose_pruned(items, budget, NOW, sizes)
    gone = [item for item, _, _ in choice.pruned]
    assert not any(item.guard for item in gone)
    newest = sorted(items, key=lambda item: (item.at, item.id))[-budget.newest :]
    assert not set(newest) & set(gone)
    left = len(items) - len(gone)
    left_bytes = sizes.total() - sizes.freed({item.id for item in gone})
    assert choice.freed_bytes == sizes.total() - left_bytes
    is_over = bool(budget.count and left > budget.count) or bool(budget.bytes and left_bytes > budget.bytes)
    assert is_over == bool(choice.excess)
    if choice.excess:  # then nothing that could go is left, but what frees nothing of the bytes
        free = [i for i in items if not i.guard and i not in newest and i not in gone]
        assert not free
    if not (budget.age_seconds or budget.count or budget.bytes):
        assert not gone
    again = choose_pruned(
        [i for i in items if i not in gone],
        budget,
        NOW,
        Sizes([(ids - {i.id for i in gone}, size) for ids, size in sizes.parts if not ids <= {i.id for i in gone}]),
    )
    assert not again.pruned  # once done, nothing more is wanted


def row(number, status="good", **more):
    known = {"blessed_at": float(number), "snapshot": f"{number:06d}", "vault_commit": f"{number:040x}"}
    return rows.row("generations", number=number, status=status, **{**known, **more})


def test_generations_that_must_stay():
    rows = [
        row(1, is_golden=1),
        row(2),
        row(3),
        row(4, "condemned"),
        row(5, "candidate", tries_left=1),
        row(6, "candidate"),
        row(7),
        row(8, "condemned"),
        row(9, blessed_at=0.5),
    ]
    guards = guard_generations(rows, {8: "it runs"}, 2)
    assert guards == {1: "golden", 3: "one of the newest good ones", 5: "on trial", 7: "last known good", 8: "it runs"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["good", "condemned", "candidate"]), st.booleans(), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    BUDGETS,
    st.integers(0, 11),
)
def test_golden_last_known_good_and_what_runs_never_go(described, budget, running):
    rows = [
        row(n, status, is_golden=int(golden), tries_left=tries) for n, (status, golden, tries) in enumerate(described)
    ]
    running %= len(rows)
    guards = guard_generations(rows, {running: "it runs"}, budget.newest)
    items = [Item(str(r.number), NOW - 900 * DAY, guards.get(r.number, "")) for r in rows]
    gone = {int(item.id) for item, _, _ in choose_pruned(items, budget, NOW).pruned}
    good = [r.number for r in rows if r.status == "good"]
    assert running not in gone
    assert not any(rows[n].is_golden or (rows[n].status == "candidate" and rows[n].tries_left) for n in gone)
    assert not good or max(good) not in gone
    assert not set(good[-budget.newest :]) & gone


def test_snapshots_that_must_stay():
    rows = [row(1), row(2, "condemned"), row(3, "candidate"), row(4), row(5, snapshot="")]
    assert guard_snapshots(rows, {"000002": "an undo needs it"}, {4}) == {
        "000001": "the state of generation 1",
        "000003": "the state of generation 3",
        "000002": "an undo needs it",
    }


@pytest.mark.parametrize(("count", "text"), [
    (0, "0B"), (999, "999B"), (1023, "1023B"), (1024, "1K"), (1536, "1.5K"), (1 << 20, "1M"), (20 << 30, "20G"),
    (5000 << 30, "5000G"), (20 << 40, "20.0T"),
])  # fmt: skip
def test_sizes_in_words(count, text):
    assert as_size(count) == text
