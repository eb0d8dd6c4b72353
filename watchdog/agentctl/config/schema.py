"""The settings: each described once, and what contradicts what. Pure.

Validation, sample, reference and `config set` all come from this table. Pure: reads no file, no
clock and no environment, and never guesses what a wrong value was meant to be.
"""

from __future__ import annotations

from ..core.errors import Mistake
from ..core.text import format_duration
from . import value_kinds
from .value_kinds import Argv, Choice, Duration, Listed, Ready, Size, Unfit, Variables, Whole

TYPE_CHECKING = False  # as in `typing`, which is imported for types only
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from .value_kinds import Kind

# --- the table

REQUIRED = None  # no default: the file has to say it
AT_ONCE, RESTART, INSTALL = "at once", "restart", "install"

SECTIONS = {
    "agent": "The program that is kept alive.",
    "heartbeat": "How life is judged.",
    "resume": "For agents that keep their own sessions: how they go on after a relaunch, and are told why.",
    "probation": "The trial of a candidate.",
    "state": "What the agent knows. It goes back together with the code it belongs to.",
    "environment": "Built things that belong to the code and switch with it.",
    "change": "How a change becomes a candidate: branch, check, try, review, promote.",
    "rollback": "How often something is tried before the next rung, and where it ends.",
    "offline": "When the watchdog acts without systemd having seen a failure.",
    "watchdog": "The daemon with the API and the history.",
    "compose": "For the runtime `compose`: which engine, which file, which image.",
    "retention": "What is kept of the past; `agentctl prune` frees what is over it. 0 is no limit.",
}


class Setting:
    """One line of the table; `applies` is "at once", "restart" or "install"."""

    def __init__(
        self, key: str, kind: Kind, default: object, applies: str, sentence: str, example: object = None
    ) -> None:
        self.key, self.kind, self.default, self.applies = key, kind, default, applies
        self.section, self.name = key.split(".")
        self.sentence, self.example = sentence, default if example is None else example

    @property
    def is_required(self) -> bool:
        """Tell whether there is no default."""
        return self.default is REQUIRED


TABLE = [
    Setting("agent.name", value_kinds.NAME, "agent", INSTALL,
            "Names the agent in units, paths and commands."),
    Setting("agent.code", value_kinds.PATH, REQUIRED, INSTALL,
            "The adopted repository, the agent's working directory.", "/srv/agent"),
    Setting("agent.command", Argv(may_be_empty=False), REQUIRED, RESTART,
            "Starts the agent.", ["python3", "agent.py"]),
    Setting("agent.resume_command", Argv(), [], RESTART,
            "Starts the agent when there is something to resume; empty: same as command."),
    Setting("agent.user", value_kinds.USER, "agent", INSTALL,
            "The user the agent runs as in system mode."),
    Setting("agent.runtime", Choice("systemd", "compose"), "systemd", INSTALL,
            "What an agent runs in: systemd (or, without it, `agentctl supervise`), or a container made by Compose."),
    Setting("agent.slots", Choice("beside", "inside", "mounted"), "beside", INSTALL,
            "Where standby and quarantine are: beside the code, inside it (.agentctl) where it cannot be exchanged, or "
            "mounted: inside, and nothing is done while no file system is mounted there."),
    Setting("agent.branch", value_kinds.BRANCH, "main", AT_ONCE,
            "The branch a rollback leaves checked out."),
    Setting("agent.ready", Ready(), "auto", RESTART,
            "How the agent shows that it works: READY=1, staying alive that long, or a command; auto: found out, see "
            "heartbeat.from."),
    Setting("agent.ready_timeout", Duration("100ms", "1d"), "90s", INSTALL,
            "Time to become ready once it is started; after that the launch has failed."),
    Setting("agent.stop_grace", Duration("100ms", "1h"), "20s", INSTALL,
            "Time between SIGTERM and SIGKILL, for saving the task and the history."),
    Setting("agent.environment", Variables(), {}, RESTART,
            "Extra environment variables for the agent."),
    Setting("agent.pass_environment", Listed(value_kinds.VARIABLE, "variable names"), [], RESTART,
            "Variables the agent gets from the environment that agentctl was started in."),
    Setting("heartbeat.from", Choice("auto", "notify", "http", "file", "command", "output", "hook", "process"),
            "auto", RESTART, "What counts as a heartbeat; auto: its process, until it sends heartbeats of its own."),
    Setting("heartbeat.timeout", Duration("100ms", "1d"), "60s", INSTALL,
            "Longest silence before the agent counts as hung; becomes WatchdogSec=."),
    Setting("heartbeat.longest_wait", Duration("100ms", "7d"), "15m", RESTART,
            "Most that EXTEND_TIMEOUT_USEC may ask for; longer than heartbeat.timeout."),
    Setting("heartbeat.progress", Choice("optional", "required"), "optional", RESTART,
            "Whether a heartbeat without progress counts while the agent says it is working."),
    Setting("heartbeat.file", value_kinds.STATE_FILE, "", RESTART,
            'The file whose change is a heartbeat, for from = "file".'),
    Setting("heartbeat.command", Argv(), [], RESTART,
            'The probe whose exit status 0 is a heartbeat, for from = "command".'),
    Setting("heartbeat.url", value_kinds.LOCAL_URL, "", RESTART,
            'The agent\'s own health address: an answer 2xx is a heartbeat, for from = "http" (empty: it posts them).'),
    Setting("heartbeat.interrupt", value_kinds.TMUX_KEY, "", RESTART,
            'A key such as "Escape", pressed once when a busy agent has got nowhere for six tenths of timeout.'),
    Setting("resume.store", value_kinds.ANYWHERE, [], RESTART,
            "The files of the agent's own sessions ({session}: the id); with none it is started, not resumed."),
    Setting("resume.proof", value_kinds.ANYWHERE, [], RESTART,
            "The files that are there only if there is a session to resume; empty: those of resume.store."),
    Setting("resume.message", Choice("none", "argument", "keys"), "none", RESTART,
            "How a resumed agent is told why: as {message} in resume_command, typed into its terminal, or not at all."),
    Setting("resume.after", Duration("0s", "10m"), "1s", RESTART,
            'For message = "keys": time to typing, from when it is ready and has drawn its screen.'),
    Setting("probation.duration", Duration("0s", "7d"), "2m", RESTART,
            "How long a candidate has to hold out before it is blessed."),
    Setting("probation.heartbeats", Whole(0, 100_000), 5, RESTART,
            "How many heartbeats it has to send in that time."),
    Setting("probation.tries", Whole(1, 100), 2, AT_ONCE, "Launches a candidate and what it becomes have."),
    Setting("probation.required", value_kinds.COMMANDS, [], RESTART,
            "Checks that can condemn a candidate: each has to exit 0."),
    Setting("probation.advisory", value_kinds.COMMANDS, [], RESTART, "Checks that only report."),
    Setting("probation.check_timeout", Duration("100ms", "1d"), "30s", RESTART,
            "Time one check has; longer is a failed check."),
    Setting("state.dir", value_kinds.PATH, "/var/lib/agentctl/{name}/state", INSTALL,
            "The state folder: task, conversation, memory.", "/var/lib/agentctl/agent/state"),
    Setting("state.restore", value_kinds.PATTERNS, ["config/*", "*.db"], AT_ONCE,
            "What goes back to the generation's snapshot on a rollback."),
    Setting("state.keep", value_kinds.PATTERNS, ["history.jsonl"], AT_ONCE,
            "What stays as it is on a rollback, mended if damaged."),
    Setting("state.extra", value_kinds.OUTSIDE, [], INSTALL,
            "State outside the folder, such as an agent's own session store."),
    Setting("environment.paths", value_kinds.CODE_PATHS, [".venv"], AT_ONCE,
            "Ignored by git, yet part of the version: they switch with the code."),
    Setting("environment.lockfiles", value_kinds.CODE_PATHS, ["uv.lock"], AT_ONCE,
            "The files that tell whether the environment has to be built again."),
    Setting("environment.build", Argv(), ["uv", "sync", "--frozen"], AT_ONCE,
            "Builds the environment from the lock files."),
    Setting("change.prefixes", value_kinds.PREFIXES, ["feature/", "hotfix/"], AT_ONCE,
            "How the branch of a change may begin."),
    Setting("change.lint", Argv(), ["ruff", "check", "--no-cache", "--force-exclude", "{python}"], AT_ONCE,
            "The linter; {python} stands for the changed Python files, {files} for all; empty: none."),
    Setting("change.tests", Argv(), [], AT_ONCE, "Runs the repository's tests; empty: there are none."),
    Setting("change.test_timeout", Duration("1s", "1d"), "10m", AT_ONCE,
            "Time the linter and the tests each have; then they are killed with their children."),
    Setting("change.smoke", Argv(), [], AT_ONCE,
            "Run against the candidate on trial: has to exit 0; empty: being ready and beating is enough."),
    Setting("change.try_for", Duration("100ms", "1d"), "60s", AT_ONCE,
            "How long 'change try' watches the candidate beat."),
    Setting("change.review", Choice("self", "human", "none"), "self", AT_ONCE,
            "Who has to review: anyone, somebody who is not the agent ('change approve'), nobody."),
    Setting("change.checklist", value_kinds.LINES,
            ["it does what it says and nothing else", "what it must not break is tested"], AT_ONCE,
            "What a reviewer is asked."),
    Setting("rollback.restarts", Whole(0, 100), 3, AT_ONCE,
            "Plain restarts of a blessed generation within the window before code goes back."),
    Setting("rollback.window", Duration("1s", "30d"), "30m", AT_ONCE,
            "The time in which restarts and rollbacks are counted."),
    Setting("rollback.attempts", Whole(1, 100), 4, AT_ONCE,
            "Rollbacks within the window; then candidates are held and the newest good code stays."),
    Setting("rollback.per_day", Whole(1, 1000), 10, AT_ONCE, "Likewise, in a day."),
    Setting("rollback.alert", Argv(), [], AT_ONCE,
            "Run when the agent is halted or rescued; reads the story on standard input."),
    Setting("rollback.ballast", Size(), "32M", AT_ONCE,
            "Disk kept in reserve for a recovery when it is full, with our data and beside the code; 0: none."),
    Setting("offline.after", Duration("1s", "30d"), "3m", RESTART,
            "Silence towards the watchdog after which the agent is offline."),
    Setting("offline.grace", Duration("0s", "1d"), "1m", RESTART,
            "Time from offline to the watchdog starting the recovery process."),
    Setting("watchdog.listen", value_kinds.LISTEN, "unix", RESTART,
            "Where the API is served."),
    Setting("compose.engine", value_kinds.ENGINE, "unix:///var/run/docker.sock", RESTART,
            "The address of Docker Engine."),
    Setting("compose.file", value_kinds.MAYBE_PATH, "", RESTART,
            "The compose file that counts, outside the repository; empty: compose.yaml beside this file."),
    Setting("compose.project", value_kinds.MAYBE_NAME, "", INSTALL,
            "The name of the Compose project; empty: the agent's."),
    Setting("compose.service", value_kinds.NAME, "agent", INSTALL,
            "The service in that file that is the agent."),
    Setting("compose.image", value_kinds.IMAGE, "", AT_ONCE,
            "The name that images are tagged with, as NAME:g<N> and NAME:lkg; empty: agentctl- and the agent's name."),
    Setting("compose.dockerfile", value_kinds.CODE_PATH, "Dockerfile", AT_ONCE,
            "What images are built from; empty: none is built, the image stays as adopted."),
    Setting("compose.base_image", value_kinds.IMAGE, "", AT_ONCE,
            "Goes into a build as BASE_IMAGE; empty: what the Dockerfile says."),
    Setting("compose.inputs", value_kinds.CODE_PATHS,
            ["Dockerfile", ".dockerignore", "requirements.txt", "pyproject.toml", "uv.lock"], AT_ONCE,
            "The files and folders whose change asks for a new image."),
    Setting("compose.build_timeout", Duration("1s", "1d"), "15m", AT_ONCE,
            "Time a build has."),
    Setting("compose.code", value_kinds.MAYBE_PATH, "", RESTART,
            "Where the code is inside the container; empty: where it is outside."),
    Setting("compose.state", value_kinds.MAYBE_PATH, "", RESTART,
            "Where the state folder is inside the container; empty: where it is outside."),
    Setting("retention.quarantine_age", Duration("0s", "3650d"), "30d", AT_ONCE,
            "How long replaced trees are kept."),
    Setting("retention.quarantine_count", Whole(0, 1_000_000), 20, AT_ONCE,
            "How many replaced trees are kept."),
    Setting("retention.quarantine_size", Size(), "20G", AT_ONCE,
            "How much disk replaced trees may take."),
    Setting("retention.snapshots_age", Duration("0s", "3650d"), "90d", AT_ONCE,
            "How long snapshots of the state are kept."),
    Setting("retention.snapshots_count", Whole(0, 1_000_000), 200, AT_ONCE,
            "How many snapshots of the state are kept."),
    Setting("retention.snapshots_size", Size(), "20G", AT_ONCE,
            "How much disk snapshots of the state may take."),
    Setting("retention.evidence_age", Duration("0s", "3650d"), "90d", AT_ONCE,
            "How long evidence of launches and incidents is kept."),
    Setting("retention.evidence_count", Whole(0, 1_000_000), 2000, AT_ONCE,
            "Of how many launches and incidents evidence is kept."),
    Setting("retention.evidence_size", Size(), "2G", AT_ONCE,
            "How much disk evidence of launches and incidents may take."),
    Setting("retention.generations_age", Duration("0s", "3650d"), "365d", AT_ONCE,
            "How long generations are kept."),
    Setting("retention.generations_count", Whole(0, 1_000_000), 300, AT_ONCE,
            "How many generations are kept."),
    Setting("retention.generations_size", Size(), "10G", AT_ONCE,
            "How much disk generations may take."),
    Setting("retention.newest", Whole(1, 1000), 3, AT_ONCE,
            "So many of each kind stay, whatever the limits say."),
    Setting("retention.archive_size", Size(), "2G", AT_ONCE,
            "A tree with more than this that exists nowhere else stays in quarantine, not in the vault."),
]  # fmt: skip

BY_KEY = {setting.key: setting for setting in TABLE}


def default_of(setting: Setting, agent_name: object) -> object:
    """Return a setting's default as it would stand in the file; some contain the agent's name."""
    if isinstance(setting.default, str):
        return setting.default.replace("{name}", str(agent_name))
    return setting.default


# --- validation


def validate(document: Mapping[str, object]) -> tuple[dict[str, object], list[Mistake]]:
    """Return every setting's value by key (defaults filled in), and everything that is wrong."""
    values: dict[str, object] = {}
    mistakes = list(_strangers(document))
    for setting in TABLE:
        section = document.get(setting.section, {})
        if not isinstance(section, dict):
            continue
        try:
            values[setting.key] = _value(setting, section, values.get("agent.name"))
        except Unfit as unfit:
            value = section.get(setting.name) if not unfit.where else unfit.item
            mistakes.append(Mistake(setting.key + unfit.where, value, unfit.allowed))
    mistakes += find(values)
    return values, mistakes


def _value(setting: Setting, section: dict[str, object], agent_name: object) -> object:
    if setting.name in section:
        return setting.kind.check(section[setting.name])
    if setting.is_required:
        raise Unfit("is missing; it must be " + setting.kind.allowed)
    return setting.kind.check(default_of(setting, agent_name or "agent"))


def _strangers(document: Mapping[str, object]) -> Iterator[Mistake]:
    """Yield what the table does not know: sections, settings, settings outside any section."""
    for section, content in document.items():
        if isinstance(content, dict) and section in SECTIONS:
            for name, value in content.items():
                if f"{section}.{name}" not in BY_KEY:
                    yield unknown(f"{section}.{name}", value)
        elif section in SECTIONS:
            yield Mistake(section, content, f"must be a section: [{section}]")
        elif isinstance(content, dict):
            guess = _did_you_mean(section, SECTIONS)
            yield Mistake(f"[{section}]", None, "unknown section" + guess)
        else:
            yield unknown(section, content)


def unknown(key: str, value: object = None) -> Mistake:
    """Return the mistake of naming a setting that does not exist, with the nearest that does."""
    section, _, name = key.rpartition(".")
    homes = " or ".join(setting.key for setting in TABLE if setting.name == name)
    siblings = [setting.name for setting in TABLE if setting.section == section]
    if homes:
        return Mistake(key, value, f"unknown setting; did you mean {homes}?")
    guess = _did_you_mean(name, siblings, f"{section}.") if siblings else _did_you_mean(key, BY_KEY)
    return Mistake(key, value, "unknown setting" + guess)


def _did_you_mean(word: str, known: Collection[str], prefix: str = "") -> str:
    import difflib  # only when somebody made a mistake

    near = difflib.get_close_matches(word[:80], list(known), 1)
    listed = known if len(known) < len(BY_KEY) else SECTIONS
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(listed)}"


# -- contradictions --------------------------------------------------------------------------------
# What is wrong between settings that are each right. Pure: reads no file, no clock and no environment.


def find(values: dict[str, object]) -> Iterator[Mistake]:
    """Yield what is wrong between settings that are each right."""
    timeout, wait = values.get("heartbeat.timeout"), values.get("heartbeat.longest_wait")
    if isinstance(timeout, float) and isinstance(wait, float) and timeout >= wait:
        rule = f"must be less than heartbeat.longest_wait ({format_duration(wait)})"
        yield Mistake("heartbeat.timeout", format_duration(timeout), rule)
    source = values.get("heartbeat.from")
    for needed in ("file", "command"):
        if source == needed and values.get(f"heartbeat.{needed}") in ("", []):
            rule = f'is required by heartbeat.from = "{needed}"'
            yield Mistake(f"heartbeat.{needed}", values[f"heartbeat.{needed}"], rule)
    if source in ("file", "command", "output", "hook", "process") and values.get("heartbeat.progress") == "required":
        rule = f'cannot be seen with heartbeat.from = "{source}"; no heartbeat would ever count'
        yield Mistake("heartbeat.progress", "required", rule)
    if source == "process" and values.get("agent.ready") == "notify":
        yield Mistake(
            "agent.ready", "notify", 'must be a time or a command with heartbeat.from = "process", such as "5s"'
        )
    if values.get("resume.message") == "argument" and not any(
        "{message}" in word for word in _texts(values, "agent.resume_command")
    ):
        yield Mistake(
            "agent.resume_command",
            values.get("agent.resume_command"),
            'has no {message}, which resume.message = "argument" needs',
        )
    if values.get("agent.runtime") == "compose":
        yield from _unreachable(values)
    code, state = values.get("agent.code"), values.get("state.dir")
    if isinstance(code, str) and isinstance(state, str) and (code + "/").startswith(state + "/"):
        yield Mistake("state.dir", state, f"must not be agent.code ({code}) or hold it")
    for pattern in _texts(values, "state.restore"):
        if pattern in _texts(values, "state.keep"):
            yield Mistake("state.restore", pattern, "is also in state.keep; choose one of them")


def _texts(values: dict[str, object], key: str) -> list[str]:
    found = values.get(key)  # missing where it has a mistake of its own
    return found if isinstance(found, list) else []


def _unreachable(values: dict[str, object]) -> Iterator[Mistake]:
    """Yield what cannot work from outside a container."""
    if values.get("heartbeat.url"):
        yield Mistake(
            "heartbeat.url",
            values["heartbeat.url"],
            'is inside the container, where agent.runtime = "compose" cannot ask; use heartbeat.from = "command"',
        )
