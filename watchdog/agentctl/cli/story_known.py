"""One incident as the ledger and its evidence have it, made ready to be told. Pure."""

from __future__ import annotations

from ..launching.incident import rescue_branch
from ..wording import duration


class Known:
    """One incident: its public form, its launch and generation, what its steps noted."""

    def __init__(
        self,
        public: dict,
        launch: dict | None,
        generation: dict | None,
        details: dict,
        trees: dict,
        branch: str,
    ) -> None:
        self.public, self.launch, self.generation = public, launch, generation
        self.details = details  # by (attempt, step)
        self.trees = trees  # attempt -> where the replaced tree is
        self.branch = branch
        self.evidence: dict = public["evidence"]

    @property
    def moves(self) -> list[tuple[int, dict]]:
        """Return the attempts that moved code, each with the number its tree and branch go by."""
        moving = [attempt for attempt in self.public["attempts"] if attempt["rung"] != "restart"]
        return list(enumerate(moving, 1))

    def rescue_branch(self, move: int) -> str:
        """Name the branch that keeps what a move took away."""
        return rescue_branch(self.public["id"], move)


def fine(seconds: float | None) -> str:
    """Return a duration down to the millisecond; None is a step that did not end."""
    if seconds is None:
        return "(not finished)"
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else duration(seconds)
