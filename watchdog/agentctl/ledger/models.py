"""What a decision is made of and what comes of it: the world as the ledger has it, the limits, the decision. Pure."""

from __future__ import annotations


class PolicyInput:
    """What is known when a decision is due; rows as the ledger gives them."""

    def __init__(
        self, *, now: float, limits: RollbackLimits, launch: dict | None, generations: list[dict],
        incident: dict | None, attempts: list[dict], recent: list[dict], request: dict | None = None,
        is_halted: bool = False, paused_until: float = 0.0, failure: str = "unknown",
    ) -> None:  # fmt: skip
        self.now, self.limits, self.launch, self.generations = now, limits, launch, generations
        self.incident = incident  # the open one, or None
        self.attempts = attempts  # the open incident's attempts so far
        self.recent = recent  # every attempt of the last day, any incident
        self.request, self.is_halted, self.paused_until = request, is_halted, paused_until
        self.failure = failure  # the run of the agent whose end called us; '' if a person did, or for a second time

    def generation(self, number: int | None) -> dict | None:
        """Return the generation's row, or None."""
        return next((g for g in self.generations if g["number"] == number), None)

    @property
    def goods(self) -> list[dict]:
        """Blessed generations, the last known good first, none below golden."""
        good = sorted(
            (g for g in self.generations if g["status"] == "good" and not is_pruned(g)),
            key=lambda g: (g["blessed_at"] or 0, g["number"]),
            reverse=True,
        )
        golden = self.golden
        return [g for g in good if golden is None or g["number"] >= golden["number"]]

    @property
    def golden(self) -> dict | None:
        """The pinned generation, or None."""
        return next((g for g in self.generations if g["is_golden"]), None)


class RollbackLimits:
    """The bounds of `[rollback]`."""

    __slots__ = ("attempts", "per_day", "restarts", "window_seconds")

    def __init__(self, restarts: int, window_seconds: float, attempts: int, per_day: int) -> None:
        self.restarts, self.window_seconds = restarts, window_seconds
        self.attempts, self.per_day = attempts, per_day


class Decision:
    """What to do: `action`, the rung it stands on, the generation it aims at, and why, in words."""

    __slots__ = ("action", "answered_by", "condemn", "reason", "rung", "target", "without_task")

    def __init__(
        self,
        action: str,
        reason: str,
        *,
        rung: str = "",
        target: int | None = None,
        condemn: int | None = None,
        without_task: bool = False,
        answered_by: str = "",
    ) -> None:
        self.action, self.reason, self.rung, self.target = action, reason, rung, target
        self.condemn, self.without_task, self.answered_by = condemn, without_task, answered_by

    def __repr__(self) -> str:
        return f"Decision({self.action}, {self.rung!r}, target={self.target}, condemn={self.condemn}: {self.reason})"


def is_pruned(generation: dict) -> bool:
    """Tell whether the vault holds the generation no more: its line stays, to know the tree again."""
    return generation.get("vault_commit") == ""
