"""What a prune is going to do: what is over its budget, with sizes, and what has to be archived first. Changes nothing.

A tree that cannot be looked through, or holds more that exists nowhere else than is allowed, stays, and is named.
"""

from __future__ import annotations

import os

from ..decisions import retention
from ..decisions.retention import Choice, Sizes
from ..records.ledger import Ledger
from ..repo.vault import OF_A_GENERATION
from ..station import Station
from . import archive, holdings, vault_copy
from .holdings import Holdings

PLAIN_EVIDENCE = ("evidence.json", "pane.txt", "refs-")  # what is in the ledger too, or can be asked of git


class Plan:
    """What is to go, by kind, with sizes and what has to be archived first; `stays` says what cannot go, and why."""

    def __init__(self, held: Holdings, choices: dict[str, Choice], vault_bytes: tuple[int, int]) -> None:
        self.held, self.choices, self.vault_bytes = held, choices, vault_bytes
        self.surveys: dict[tuple[str, str], archive.Survey] = {}
        self.stays: list[tuple[str, str, str]] = []
        self.done: list[tuple[str, str]] = []
        self.vault_freed_bytes = 0

    @property
    def freed_bytes(self) -> int:
        """Bytes that what goes will free, or what has gone has freed; without what comes into the vault for it."""
        stays = {(kind, name) for kind, name, _ in self.stays}
        sizes = {
            (kind, item.id): size
            for kind, choice in self.choices.items()
            for item, _, size in choice.pruned
            if kind != "generations" and (kind, item.id) not in stays
        }
        return sum(size for key, size in sizes.items() if not self.done or key in self.done) + self.vault_freed_bytes


def make_plan(station: Station, ledger: Ledger, now: float) -> Plan:
    """Look at everything and decide; changes nothing but the note of what was measured."""
    holdings.pin_slots(station)
    held = Holdings(station, ledger)
    sizes = {kind: holdings.measure(paths) for kind, paths in held.paths.items()}
    holdings.remember_sizes(station, sizes)
    choices = held.choose(now, {**sizes, "generations": _measure_generations(station, held)})
    refs = [
        f"refs/agentctl/{kind}/{item.id}" for item, _, _ in choices["generations"].pruned for kind in OF_A_GENERATION
    ]
    plan = Plan(held, choices, vault_copy.measure(station.vault, refs))
    for kind in ("quarantine", "evidence"):
        for item, _, _ in choices[kind].pruned:
            _look_into(plan, station, kind, item.id)
    return plan


def _measure_generations(station: Station, held: Holdings) -> Sizes:
    """Measure what each generation brought into the vault; only where the vault is over its size."""
    limit = station.config.retention.generations_size
    total, _ = vault_copy.measure(station.vault, [])
    if not limit or total <= limit:
        return Sizes()
    refs, before, parts = station.vault.refs("refs/agentctl/"), [], []
    for number in (row["number"] for row in held.held):
        tips = [oid for kind in ("g", "commit") if (oid := refs.get(f"refs/agentctl/{kind}/{number}"))]
        asked = "".join(f"{oid}\n" for oid in tips) + "".join(f"^{oid}\n" for oid in before)
        told = station.vault.git.run("rev-list", "--objects", "--disk-usage", "--stdin", stdin=asked.encode())
        parts.append(((str(number),), int(told.text or 0)))
        before += tips
    return Sizes([*parts, (("the rest of the vault",), max(0, total - sum(size for _, size in parts)))])


def _look_into(plan: Plan, station: Station, kind: str, name: str) -> None:
    """Survey a folder that is to go; where it cannot, say so."""
    folder = plan.held.paths[kind][name]
    settings = station.config
    try:
        found = survey(station, kind, folder)
    except (OSError, RecursionError) as error:
        plan.stays.append((kind, name, f"cannot be looked through: {error}"))
        return
    limit = settings.retention.archive_size
    if limit and found.new_bytes > limit:
        plan.stays.append(
            (
                kind,
                name,
                (
                    f"{retention.as_size(found.new_bytes)} in it exist nowhere else, more than "
                    f"retention.archive_size ({retention.as_size(limit)})"
                ),
            )
        )
        return
    if found.unreadable and os.geteuid() == 0:
        plan.stays.append((kind, name, f"cannot be read: {', '.join(found.unreadable[:3])}"))
        return
    plan.surveys[kind, name] = found


def survey(station: Station, kind: str, folder: str) -> archive.Survey:
    """Survey a folder that is to go; evidence of which all is known elsewhere has nothing to archive."""
    if kind == "evidence" and all(n.startswith(PLAIN_EVIDENCE) for n in os.listdir(folder)):
        return archive.Survey(folder)
    rebuildable = tuple(station.config.environment.paths) if kind == "quarantine" else ()
    return archive.survey(folder, station.vault, station.code_dir, rebuildable)
