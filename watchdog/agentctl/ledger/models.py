"""What a decision is made of and what comes of it: the world as the ledger has it, the limits, the decision. Pure."""

from __future__ import annotations

from ..core.errors import UsageError
from ..core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Literal, TypeAlias

    from ..config.sections import Rollback

    Action: TypeAlias = Literal["nothing-to-do", "restart", "rollback", "undo", "halted", "promote"]
    GenerationStatus: TypeAlias = Literal["candidate", "good", "condemned", "trial"]
    LaunchEnd: TypeAlias = Literal["", "stopped", "failed", "asked", "refused", "lost", "rebooted"]
    ChangeStatus: TypeAlias = Literal["open", "promoting", "promoted", "abandoned"]
    OnFailure: TypeAlias = Literal["rollback", "freeze", "page"]

# What an attempt does.
NOTHING: Final = "nothing-to-do"
RESTART: Final = "restart"
ROLLBACK: Final = "rollback"
UNDO: Final = "undo"
HALT: Final = "halted"
PROMOTE: Final = "promote"

# How a launch ends.
RUNNING: Final = ""
STOPPED: Final = "stopped"
FAILED: Final = "failed"
ASKED: Final = "asked"
REFUSED: Final = "refused"
LOST: Final = "lost"
REBOOTED: Final = "rebooted"

BY_HAND = ("by hand", "undo", "promote")  # what a human asked for does not use up what automation may do
OFFLINE = "offline"  # the verb of the watchdog's request, and the trigger that follows from it
ENGINE_AWAY = "engine-away"  # Docker Engine ended, and took the agent along: nobody's code is to blame
NO_ROOM = "no-room-for-image"  # the engine has no room to build a candidate's image: its code is not to blame
GOOD_STAYS: Final = (
    "good stays"  # the rung of what is not launched: the good code that it stands in place of comes back
)
NO_MOVES = ("restart", "asked", "halted", "")  # rungs that leave the code where it is
UNCOUNTED = (*NO_MOVES, *BY_HAND, GOOD_STAYS)  # rungs that use up nothing of what `[rollback]` allows
PHASES = ("working", "waiting", "idle")  # what an agent says that it does
FREE_POWER_CUTS = (
    2  # of one probation: they say little about the code, but a machine that goes down again and again does
)

# Where a change stands, and what is done when a promoted one fails.
OPEN: Final = "open"
PROMOTING: Final = "promoting"
PROMOTED: Final = "promoted"
ABANDONED: Final = "abandoned"
ON_FAILURE = ("rollback", "freeze", "page")


# -- rows -------------------------------------------------------------------------------------------
# One class for each table, with its columns; what a newer version added has the default of an older row.


class Generation(Record):
    """One version of the code, as the vault holds it."""

    number: int
    vault_commit: str  # '' where it is pruned: its line stays, to know the tree again
    commit_id: str
    tree: str
    branch: str
    status: GenerationStatus
    source: str
    created_at: float
    tries_left: int
    blessed_at: float | None = None
    condemned_at: float | None = None
    reason: str = ""
    snapshot: str = ""
    is_golden: int = 0
    change: str = ""
    on_failure: OnFailure | Literal[""] = ""
    confirm_by: float | None = None
    image: str = ""
    image_inputs: str = ""
    blessing: int = 0  # its place in the order of blessings, 0 before the first

    @property
    def is_pruned(self) -> bool:
        """Tell whether the vault holds it no more."""
        return self.vault_commit == ""


def by_blessing(generation: Generation) -> tuple[int, float, int]:
    """Order generations by when they were called good, as the ledger counts it: a clock may have been wrong."""
    return generation.blessing, generation.blessed_at or 0.0, generation.number


class Launch(Record):
    """One run of the agent: how it began, and how it ended if it has."""

    id: str
    generation: int
    started_at: float
    boot_id: str
    snapshot: str = ""
    incident: str = ""
    ready_at: float | None = None
    first_beat_at: float | None = None
    ended_at: float | None = None
    end: LaunchEnd = ""
    trigger: str = ""
    reason: str = ""
    exit_status: int | None = None
    exit_signal: int | None = None
    life: str = ""  # the kinds of life it has shown; '' where nobody looked


class Incident(Record):
    """One failure, or one wish of a person, and what came of it."""

    id: str
    at: float
    trigger: str
    reason: str
    launch: str
    generation_from: int | None = None
    generation_to: int | None = None
    decision: str = ""
    evidence: str = "{}"  # JSON: `Ledger.evidence` reads it
    outcome: str = ""
    ended_at: float | None = None


class Attempt(Record):
    """One thing that was tried in an incident; an open one is an intent."""

    incident: str
    number: int
    at: float
    rung: str
    target: int | None
    reason: str
    is_open: int
    launch: str = ""  # the last one when it was decided: what it answers


class StepRecord(Record):
    """One step of an attempt; without an end it was begun and not finished."""

    incident: str
    attempt: int
    name: str
    started_at: float
    ended_at: float | None = None
    detail: str = ""


class Request(Record):
    """What somebody wants of the recovery process."""

    number: int
    at: float
    verb: str
    target: str
    author: str
    reason: str
    incident: str = ""


class ChangeRecord(Record):
    """One change: what it is about, and what was recorded of it."""

    name: str
    about: str
    author: str
    started_at: float
    base: str
    worktree: str
    status: ChangeStatus
    snapshot: str = ""
    reason: str = ""
    checked: dict[str, Any]
    tried: dict[str, Any]
    reviewed: dict[str, Any]
    approved: dict[str, Any]
    promotion: dict[str, Any]
    generation: int | None = None
    ended_at: float | None = None


class CondemnedTree(Record):
    """What is known of a tree that is not to be launched again."""

    number: int  # of the generation
    reason: str
    condemned_at: float | None


# -- what a decision is made of ---------------------------------------------------------------------


class CurrentLaunch(Record):
    """The launch that a runner has begun, with its generation and the incident that it is to end."""

    id: str
    generation: Generation
    snapshot: str
    incident: str  # '' if it follows none
    started_at: float


class PolicyInput(Record):
    """What is known when a decision is due."""

    now: float
    limits: RollbackLimits
    launch: Launch | None
    generations: list[Generation]
    incident: Incident | None  # the open one
    attempts: list[Attempt]  # the open incident's so far
    recent: list[Attempt]  # of the last day, in any incident
    request: Request | None = None
    is_halted: bool = False
    paused_until: float = 0.0
    failure: str = "unknown"  # the run of the agent whose end called us; '' if a person did, or for a second time
    ran: Launch | None = None  # the newest launch of which an agent came: one that was refused is none
    has_changed: bool = False  # the tree is another one than the candidate's that asked to be restarted
    is_by_agent: bool = False  # the request is the agent's own

    def generation(self, number: int | None) -> Generation | None:
        """Return a generation by its number, or None."""
        return next((g for g in self.generations if g.number == number), None)

    @property
    def goods(self) -> list[Generation]:
        """Blessed generations, the last known good first, none below golden."""
        good = sorted(
            (g for g in self.generations if g.status == "good" and not g.is_pruned),
            key=by_blessing,
            reverse=True,
        )
        golden = self.golden
        return [g for g in good if golden is None or g.number >= golden.number]

    @property
    def golden(self) -> Generation | None:
        """The pinned generation, or None."""
        return next((g for g in self.generations if g.is_golden), None)


class RollbackLimits(Record):
    """The bounds of `[rollback]`."""

    restarts: int
    window_seconds: float
    attempts: int
    per_day: int

    @classmethod
    def of_settings(cls, settings: Rollback) -> RollbackLimits:
        """Take them from the settings of `[rollback]`."""
        return cls(
            restarts=settings.restarts,
            window_seconds=settings.window,
            attempts=settings.attempts,
            per_day=settings.per_day,
        )


class Hold(Record):
    """Why no candidate is launched for now."""

    count: int  # rollbacks so far
    limit: int
    seconds: float  # within which they were
    until: float


class Decision(Record):
    """What to do, and why in words."""

    action: Action
    reason: str
    rung: str = ""
    target: int | None = None  # the generation to launch
    condemn: int | None = None  # the generation that is not to be launched again
    without_task: bool = False
    answered_by: str = ""  # the incident that has done what was asked for


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


def tell_state(row: ChangeRecord, generation: Generation | None) -> str:
    """Name where a change stands, in one or two words."""
    if row.status != PROMOTED or generation is None:
        return row.status
    if generation.status == "good":
        return "blessed"
    if generation.status == "condemned":
        return "rolled back"
    return "unconfirmed" if generation.confirm_by else "on probation"


def is_open(row: ChangeRecord, generation: Generation | None) -> bool:
    """Tell whether work on it may go on: one that was rolled back is mended and promoted again."""
    return tell_state(row, generation) in (OPEN, PROMOTING, "rolled back")
