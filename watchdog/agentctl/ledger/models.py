"""What a decision is made of and what comes of it: the world as the ledger has it, the limits, the decision. Pure."""

from __future__ import annotations

from ..core.errors import UsageError

# What an attempt does.
NOTHING, RESTART, ROLLBACK, UNDO, HALT = "nothing-to-do", "restart", "rollback", "undo", "halted"
PROMOTE = "promote"

# How a launch ends.
RUNNING, STOPPED, FAILED, ASKED, REFUSED, LOST, REBOOTED = (
    "", "stopped", "failed", "asked", "refused", "lost", "rebooted",
)  # fmt: skip

BY_HAND = ("by hand", "undo", "promote")  # what a human asked for does not use up what automation may do
OFFLINE = "offline"  # the verb of the watchdog's request, and the trigger that follows from it
ENGINE_AWAY = "engine-away"  # Docker Engine ended, and took the agent along: nobody's code is to blame
NO_ROOM = "no-room-for-image"  # the engine has no room to build a candidate's image: its code is not to blame
NO_MOVES = ("restart", "asked", "halted", "")  # rungs that leave the code where it is
PHASES = ("working", "waiting", "idle")  # what an agent says that it does

# Where a change stands, and what is done when a promoted one fails.
OPEN, PROMOTING, PROMOTED, ABANDONED = "open", "promoting", "promoted", "abandoned"
ON_FAILURE = ("rollback", "freeze", "page")


class Launch:
    """One launch about to happen: its id, its generation's row, and whether it follows a rollback."""

    __slots__ = ("generation", "id", "incident", "snapshot", "started_at")

    def __init__(self, launch_id: str, generation: dict, snapshot: str, incident: str, started_at: float) -> None:
        self.id, self.generation, self.snapshot = launch_id, generation, snapshot
        self.incident, self.started_at = incident, started_at


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

    @classmethod
    def of(cls, settings) -> RollbackLimits:
        """Take them from the settings of `[rollback]`."""
        return cls(settings.restarts, settings.window, settings.attempts, settings.per_day)


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


def check_name(name: str, prefixes: list[str]) -> str:
    """Return the name; raise UsageError if no change may be called so."""
    prefix = next((p for p in prefixes if name.startswith(p)), None)
    if prefix is None:
        allowed = " or ".join(f"{p}NAME" for p in prefixes) or "nothing: change.prefixes is empty"
        raise UsageError(
            f"cannot call a change '{name}': it has to be {allowed}",
            "agentctl change start feature/NAME; agentctl config set change.prefixes allows more",
        )
    rest = name[len(prefix) :]
    is_fit = (
        rest
        and len(name) <= 100
        and all(part and part[0].isalnum() and not part.endswith((".", ".lock")) for part in rest.split("/"))
    )
    if not is_fit or ".." in rest or not all((c.isalnum() and c.isascii()) or c in "._-/" for c in rest):
        raise UsageError(
            f"cannot call a change '{name}': not a name for a branch and a folder",
            f"letters, digits, '.', '_' and '-', such as {prefix}faster-start",
        )
    return name


def tell_state(row: dict, generation: dict | None) -> str:
    """Name where a change stands, in one or two words."""
    if row["status"] != PROMOTED or generation is None:
        return row["status"]
    if generation["status"] == "good":
        return "blessed"
    if generation["status"] == "condemned":
        return "rolled back"
    return "unconfirmed" if generation.get("confirm_by") else "on probation"


def is_open(row: dict, generation: dict | None) -> bool:
    """Tell whether work on it may go on: one that was rolled back is mended and promoted again."""
    return tell_state(row, generation) in (OPEN, PROMOTING, "rolled back")
