"""Decide what of the past may go: what is over its budget and nobody needs. Pure: no clock, no files.

Refuses to choose what is guarded or among the newest; where that alone is over the budget, it says so.
"""

from __future__ import annotations

from ..core.text import format_duration
from ..ledger.models import Generation, by_blessing

KINDS = ("quarantine", "snapshots", "evidence", "generations")


class Item:
    """One thing that is kept: `guard` says why it must stay, '' if nothing needs it.

    `place` is where it stands among its kind, as the ledger counts; `at` tells how old it is, if the clock was right.
    """

    __slots__ = ("at", "guard", "id", "place")

    def __init__(self, id: str, at: float, guard: str = "", place: tuple[int, ...] = ()) -> None:
        self.id, self.at, self.guard, self.place = id, at, guard, place


class Budget:
    """The limits of one kind: age in seconds, number, bytes (0: none), and how many of the newest always stay."""

    __slots__ = ("age_seconds", "bytes", "count", "newest")

    def __init__(self, age_seconds: float = 0, count: int = 0, bytes: int = 0, newest: int = 1) -> None:  # noqa: A002 - its attribute is called so
        self.age_seconds, self.count, self.bytes, self.newest = age_seconds, count, bytes, newest

    @classmethod
    def of(cls, kind: str, settings) -> Budget:
        """Read a kind's budget from the section [retention]."""
        limits = (getattr(settings, f"{kind}_{limit}") for limit in ("age", "count", "size"))
        return cls(*limits, settings.newest)


class Sizes:
    """Disk space by who holds it: parts are (ids, bytes), and a part is free when all its ids are gone."""

    def __init__(self, parts=()) -> None:
        self.parts = [(frozenset(ids), size) for ids, size in parts]

    def total(self) -> int:
        """Bytes of everything."""
        return sum(size for _, size in self.parts)

    def freed(self, gone: set[str]) -> int:
        """Bytes that are free once `gone` is."""
        return sum(size for ids, size in self.parts if ids <= gone)


class PruneChoice:
    """What may go, oldest first, as (item, why, bytes it frees), and what is still over the budget."""

    __slots__ = ("excess", "pruned", "total_bytes")

    def __init__(self, pruned: list[tuple[Item, str, int]], excess: str, total_bytes: int) -> None:
        self.pruned, self.excess, self.total_bytes = pruned, excess, total_bytes

    @property
    def freed_bytes(self) -> int:
        """Bytes that are free once it is done."""
        return sum(size for _, _, size in self.pruned)


def choose_pruned(items: list[Item], budget: Budget, now: float, sizes: Sizes | None = None) -> PruneChoice:
    """Choose what goes: all that is too old, then the oldest until number and bytes fit."""
    sizes = sizes or Sizes()
    in_order = sorted(items, key=lambda item: (item.place, item.at, item.id))
    newest = {item.id for item in in_order[max(0, len(in_order) - budget.newest) :]}
    free = [item for item in in_order if not item.guard and item.id not in newest]
    total, gone, freed, pruned = sizes.total(), set(), 0, []
    for item in free:
        why = _why(item, budget, now, len(items) - len(gone), total - freed)
        if not why:
            continue
        gone.add(item.id)
        after = sizes.freed(gone)
        pruned.append((item, why, after - freed))
        freed = after
    return PruneChoice(pruned, _excess(budget, len(items) - len(gone), total - freed), total)


def _why(item: Item, budget: Budget, now: float, left: int, left_bytes: int) -> str:
    if budget.age_seconds and now - item.at > budget.age_seconds:
        return f"older than {format_duration(budget.age_seconds)}"
    if budget.count and left > budget.count:
        return f"more than {budget.count}"
    if budget.bytes and left_bytes > budget.bytes:
        return f"more than {as_size(budget.bytes)} in all"
    return ""


def _excess(budget: Budget, left: int, left_bytes: int) -> str:
    """Say what is over the budget and must stay all the same."""
    if budget.bytes and left_bytes > budget.bytes:
        return f"{as_size(left_bytes)} have to stay, more than the {as_size(budget.bytes)} allowed"
    if budget.count and left > budget.count:
        return f"{left} have to stay, more than the {budget.count} allowed"
    return ""


def guard_generations(rows: list[Generation], needed: dict[int, str], newest: int) -> dict[int, str]:
    """Say which generations must stay, and why; `needed` are those that something under way needs."""
    good = [row for row in rows if row.status == "good"]
    good.sort(key=by_blessing, reverse=True)
    guards = {row.number: "one of the newest good ones" for row in good[: max(newest, 1)]}
    guards |= {row.number: "on trial" for row in rows if row.status == "candidate" and row.tries_left > 0}
    guards |= needed
    if good:
        guards[good[0].number] = "last known good"
    return guards | {row.number: "golden" for row in rows if row.is_golden}


def guard_snapshots(rows: list[Generation], needed: dict[str, str], pruned: set[int]) -> dict[str, str]:
    """Say which snapshots must stay: those that a generation to go back to owns (but for the `pruned`)."""
    owned = {
        row.snapshot: f"the state of generation {row.number}"
        for row in rows
        if row.snapshot and row.status != "condemned" and row.number not in pruned
    }
    return owned | needed


def as_size(count: int) -> str:
    """Return bytes the way a person says them."""
    value = float(count)
    for unit in ("B", "K", "M", "G"):
        if value < 1023.95 or (unit == "G" and value < 10239.5):
            return f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}".removesuffix(".0") + unit
        value /= 1024
    return f"{value:.1f}T"
