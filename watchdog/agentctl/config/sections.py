"""The settings as attributes with their types, `config.heartbeat.timeout`: a class for each section of the table.

On the recovery path, so it knows neither the table nor what a value may be: `schema` and `value_kinds` have checked it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which is too much for the recovery path
if TYPE_CHECKING:
    from typing import Literal


class Section:
    """The settings of one section as attributes; `from` is called `from_`."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)


class Agent(Section):
    """The program that is kept alive."""

    name: str
    code: str
    command: list[str]
    resume_command: list[str]
    user: str
    runtime: Literal["systemd", "compose"]
    slots: Literal["beside", "inside", "mounted"]
    branch: str
    ready: Literal["auto", "notify"] | float | list[str]
    ready_timeout: float
    stop_grace: float
    environment: dict[str, str]
    pass_environment: list[str]


class Heartbeat(Section):
    """How life is judged."""

    from_: Literal["auto", "notify", "http", "file", "command", "output", "hook", "process"]
    timeout: float
    longest_wait: float
    progress: Literal["optional", "required"]
    file: str
    command: list[str]
    url: str
    interrupt: str


class Resume(Section):
    """For agents that keep their own sessions: how they go on after a relaunch, and are told why."""

    store: list[str]
    proof: list[str]
    message: Literal["none", "argument", "keys"]
    after: float


class Probation(Section):
    """The trial of a candidate."""

    duration: float
    heartbeats: int
    tries: int
    required: list[list[str]]
    advisory: list[list[str]]
    check_timeout: float


class State(Section):
    """What the agent knows."""

    dir: str
    restore: list[str]
    keep: list[str]
    extra: list[str]


class Environment(Section):
    """Built things that belong to the code and switch with it."""

    paths: list[str]
    lockfiles: list[str]
    build: list[str]


class Change(Section):
    """How a change becomes a candidate: branch, check, try, review, promote."""

    prefixes: list[str]
    lint: list[str]
    tests: list[str]
    test_timeout: float
    smoke: list[str]
    try_for: float
    review: Literal["self", "human", "none"]
    checklist: list[str]


class Rollback(Section):
    """How often something is tried before the next rung, and where it ends."""

    restarts: int
    window: float
    attempts: int
    per_day: int
    alert: list[str]
    ballast: int


class Offline(Section):
    """When the watchdog acts without systemd having seen a failure."""

    after: float
    grace: float


class Watchdog(Section):
    """The daemon with the API and the history."""

    listen: str


class Compose(Section):
    """For the runtime `compose`: which engine, which file, which image."""

    engine: str
    file: str
    project: str
    service: str
    image: str
    dockerfile: str
    base_image: str
    inputs: list[str]
    build_timeout: float
    code: str
    state: str


class Retention(Section):
    """What is kept of the past; `agentctl prune` frees what is over it."""

    quarantine_age: float
    quarantine_count: int
    quarantine_size: int
    snapshots_age: float
    snapshots_count: int
    snapshots_size: int
    evidence_age: float
    evidence_count: int
    evidence_size: int
    generations_age: float
    generations_count: int
    generations_size: int
    newest: int
    archive_size: int


class Config:
    """A valid configuration: `config.heartbeat.timeout`, durations in seconds, sizes in bytes.

    `values` holds the same by key; `given` holds what the file itself says, as it says it.
    """

    agent: Agent
    heartbeat: Heartbeat
    resume: Resume
    probation: Probation
    state: State
    environment: Environment
    change: Change
    rollback: Rollback
    offline: Offline
    watchdog: Watchdog
    compose: Compose
    retention: Retention

    def __init__(self, values: dict[str, object], given: dict[str, object]) -> None:
        self.values, self.given = values, given
        parts: dict[str, dict[str, object]] = {name: {} for name in CLASSES}
        for key, value in values.items():
            section, name = key.split(".")
            parts[section]["from_" if name == "from" else name] = value
        self.__dict__.update({name: CLASSES[name](part) for name, part in parts.items()})


CLASSES: dict[str, type[Section]] = {
    "agent": Agent,
    "heartbeat": Heartbeat,
    "resume": Resume,
    "probation": Probation,
    "state": State,
    "environment": Environment,
    "change": Change,
    "rollback": Rollback,
    "offline": Offline,
    "watchdog": Watchdog,
    "compose": Compose,
    "retention": Retention,
}
KEYS = frozenset(f"{name}.{field.rstrip('_')}" for name, kind in CLASSES.items() for field in kind.__annotations__)
