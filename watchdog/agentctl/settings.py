"""Describe every setting once: name, kind, default, limits, one sentence, what a change needs.

Validation, sample, reference and `config set` all come from this table. Pure: reads no file, no
clock and no environment, and never guesses what a wrong value was meant to be.
"""

from __future__ import annotations

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# The contract's own variables: a configured value would hide what the agent must be told.
_OURS = frozenset(
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "AGENT_NAME", "AGENT_GENERATION"]
    + ["AGENT_COMMIT", "AGENT_LAUNCH_ID", "AGENT_CODE_DIR", "AGENT_STATE_DIR", "AGENT_TASK_FILE"]
    + ["AGENT_HISTORY_FILE", "AGENT_BRIEF_FILE", "AGENT_RESUMED", "AGENT_API_URL"]
    + ["AGENT_TOKEN_FILE"]
)


class Unfit(ValueError):
    """A value that is not allowed: says what is, and in a list or table where the wrong one is."""

    def __init__(self, allowed: str, where: str = "", item: object = None) -> None:
        super().__init__(allowed)
        self.allowed, self.where, self.item = allowed, where, item


class Mistake:
    """One thing wrong in a configuration: the key, the value found there, what is allowed."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        key = self.key if self.key.isprintable() else ascii(self.key)
        found = "" if self.value is None else f" = {shown(self.value)}"
        return f"{key}{found}: {self.allowed}"


def shown(value: object) -> str:
    """Return a value the way it stands in the file, cut to a readable length."""
    import json  # only a mistake or a document is shown

    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


# --- durations


def parse_duration(text: str) -> float:
    """Return the seconds in "1h30m", "1.5s" or "250ms"; raise ValueError if it is anything else."""
    total, rest, units = 0, text, list(_UNITS)
    while rest or not text:
        number = _leading(rest, _DIGITS + ".")
        unit = _leading(rest[len(number) :], _LETTERS)
        while units and units[0][0] != unit:  # largest unit first, each at most once
            units.pop(0)
        if not units:
            raise ValueError(f"not a duration: {text!r}")
        total += _milliseconds(number, units.pop(0)[1])
        rest = rest[len(number) + len(unit) :]
    return total / 1000


def _milliseconds(number: str, unit: int) -> int:
    whole, point, fraction = number.partition(".")
    if not whole or bool(point) != bool(fraction) or "." in fraction or len(number) > 15:
        raise ValueError(f"not a number: {number!r}")
    milliseconds, finer = divmod(int(whole + fraction) * unit, 10 ** len(fraction))
    if finer:
        raise ValueError(f"finer than a millisecond: {number!r}")
    return milliseconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as `seconds`, to the millisecond."""
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"not a duration: {seconds!r}")
    left, text = round(seconds * 1000), ""
    for unit, milliseconds in _UNITS:
        count, left = divmod(left, milliseconds)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _leading(text: str, alphabet: str) -> str:
    return text[: len(text) - len(text.lstrip(alphabet))]


# --- kinds: `check` turns what the file says into what the program uses, `reads` tells how
# `config set` understands its argument.


class Text:
    """A line of text that `fit` returns cleaned, or None if it will not do."""

    noun, reads = "text", "text"

    def __init__(self, noun: str, allowed: str, fit, may_be_empty: bool = False) -> None:
        self.noun, self.fit, self.may_be_empty = noun, fit, may_be_empty
        self.allowed = allowed + (", or empty" if may_be_empty else "")

    def check(self, value: object) -> str:
        if value == "" and self.may_be_empty:
            return ""
        cleaned = self.fit(value) if isinstance(value, str) and _is_line(value) else None
        if cleaned is None:
            raise Unfit("must be " + self.allowed)
        return cleaned


class Choice(Text):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        allowed = "one of " + ", ".join(f'"{word}"' for word in words)
        super().__init__("choice", allowed, lambda text: text if text in words else None)


class Whole:
    """A whole number between two limits."""

    noun, reads = "whole number", "number"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = f"a whole number from {low} to {high}"

    def check(self, value: object) -> int:
        if type(value) is not int or not self.low <= value <= self.high:  # a bool is an int
            raise Unfit("must be " + self.allowed)
        return value


class Duration:
    """A length of time between two limits, in seconds once checked."""

    noun, reads = "duration", "text"

    def __init__(self, low: str, high: str) -> None:
        self.low, self.high = parse_duration(low), parse_duration(high)
        self.allowed = f'a duration from "{low}" to "{high}"'

    def check(self, value: object) -> float:
        try:
            seconds = parse_duration(value) if isinstance(value, str) else -1.0
        except ValueError:
            seconds = -1.0
        if self.low <= seconds <= self.high:
            return seconds
        if type(value) in (int, float):
            raise Unfit(f'must be {self.allowed}, in quotes and with its unit, such as "60s"')
        raise Unfit("must be " + self.allowed)


class Argv:
    """A command as a list of words; nothing here ever goes through a shell."""

    noun, reads = "command", "words"

    def __init__(self, may_be_empty: bool = True) -> None:
        self.may_be_empty = may_be_empty
        self.allowed = 'a command as a list of words, such as ["python3", "agent.py"]'
        self.allowed += ", or empty" if may_be_empty else ""

    def check(self, value: object) -> list[str]:
        if not isinstance(value, list) or (not value and not self.may_be_empty):
            raise Unfit("must be " + self.allowed)
        for index, word in enumerate(value):
            if not isinstance(word, str) or "\0" in word or (index == 0 and not word):
                raise Unfit("must be a word in quotes, the first not empty", f"[{index}]", word)
        return list(value)


class Listed:
    """A list in which every item is of one kind."""

    def __init__(self, item, allowed: str, reads: str = "words") -> None:
        self.item, self.reads = item, reads
        self.noun = f"list of {item.noun}s"
        self.allowed = f"a list of {allowed}"

    def check(self, value: object) -> list:
        if not isinstance(value, list):
            raise Unfit("must be " + self.allowed)
        return [self._check_item(index, item) for index, item in enumerate(value)]

    def _check_item(self, index: int, item: object):
        try:
            return self.item.check(item)
        except Unfit as unfit:
            item = item if unfit.item is None else unfit.item
            raise Unfit(unfit.allowed, f"[{index}]{unfit.where}", item) from None


class Variables:
    """A table of environment variables. No value in it is repeated in a mistake: secrets."""

    noun, reads = "table of text", "toml"
    allowed = 'a table of texts by variable name, such as { LANG = "C.UTF-8" }'

    def check(self, value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            raise Unfit("must be " + self.allowed)
        for name, text in value.items():
            if _variable(name) is None:
                raise Unfit("must be " + VARIABLE.allowed, f".{name}")
            if not isinstance(text, str) or "\0" in text:
                raise Unfit("must be a text in quotes", f".{name}")
        return dict(value)


class Ready:
    """How an agent shows that it works: "notify", a time it has to stay alive, or a command."""

    noun, reads = "choice, duration or command", "text or words"
    _alive, _command = Duration("100ms", "1h"), Argv(may_be_empty=False)
    allowed = f'"notify", {_alive.allowed}, or {_command.allowed}'

    def check(self, value: object) -> str | float | list[str]:
        if value == "notify":
            return "notify"
        if isinstance(value, list) and value:
            return self._command.check(value)
        try:
            return self._alive.check(value)
        except Unfit:
            raise Unfit("must be " + self.allowed) from None


# --- what a text has to look like


def _is_line(text: str) -> bool:
    return text != "" and not any(ord(c) < 32 or ord(c) == 127 for c in text)


def _made_of(text: str, first: str, more: str, longest: int) -> str | None:
    fits = len(text) <= longest and text[0] in first
    return text if fits and all(c in first + more for c in text) else None


def _name(text: str) -> str | None:
    return _made_of(text, _LETTERS + _DIGITS, "_-", 32)


def _user(text: str) -> str | None:
    return _made_of(text, _LETTERS + _LETTERS.upper() + "_", _DIGITS + ".-", 31)


def _variable(text: str) -> str | None:
    if not text or text in _OURS:
        return None
    return _made_of(text, _LETTERS + _LETTERS.upper() + "_", _DIGITS, 255)


def _branch(text: str) -> str | None:
    """Hold the rules of git for a branch name."""
    parts = text.split("/")
    is_bad = any(not p or p[0] == "." or p[-1] == "." or p.endswith(".lock") for p in parts)
    is_bad = is_bad or any(c in " ~^:?*[\\" for c in text) or ".." in text or "@{" in text
    return None if is_bad or text[0] == "-" or text in ("@", "HEAD") else text


def _absolute(text: str) -> str | None:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts) if text[0] == "/" and parts and ".." not in parts else None


def _relative(text: str) -> str | None:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return text if parts and text[0] not in "/~" and ".." not in parts else None


def _code_path(text: str) -> str | None:
    return None if ".git" in text.split("/") else _relative(text)


def _outside(text: str) -> str | None:
    return text if _absolute(text[1:] if text.startswith("~/") else text) else None


def _listen(text: str) -> str | None:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    is_tcp = host in ("127.0.0.1", "[::1]", "localhost") and is_port
    return text if text == "unix" or is_tcp else None


VARIABLE = Text("name", "a variable name that is not one of the agent contract's own", _variable)
_PATH = Text("path", 'an absolute path below "/", without ".."', _absolute)
_PATTERNS = Listed(
    Text("pattern", 'a relative pattern without ".."', _relative), "relative patterns"
)
_OUTSIDE = Listed(
    Text("pattern", 'a pattern that begins with "/" or "~/", without ".."', _outside),
    'patterns that begin with "/" or "~/"',
)
_CODE_PATHS = Listed(
    Text("path", 'a path relative to agent.code, without ".." and not ".git"', _code_path),
    "paths relative to agent.code",
)
_COMMANDS = Listed(Argv(may_be_empty=False), 'commands, such as [["python3", "check.py"]]', "toml")


# --- the table

REQUIRED = None  # no default: the file has to say it
AT_ONCE, RESTART, INSTALL = "at once", "restart", "install"

SECTIONS = {
    "agent": "The program that is kept alive.",
    "heartbeat": "How life is judged.",
    "probation": "The trial of a candidate.",
    "state": "What the agent knows. It goes back together with the code it belongs to.",
    "environment": "Built things that belong to the code and switch with it.",
    "rollback": "How often something is tried before the next rung, and where it ends.",
    "offline": "When the watchdog acts without systemd having seen a failure.",
    "watchdog": "The daemon with the API and the history.",
}


class Setting:
    """One line of the table; `applies` is "at once", "restart" or "install"."""

    def __init__(self, key, kind, default, applies, sentence, example=None) -> None:
        self.key, self.kind, self.default, self.applies = key, kind, default, applies
        self.section, self.name = key.split(".")
        self.sentence, self.example = sentence, default if example is None else example

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


TABLE = [
    Setting("agent.name",
            Text("text", 'a name of "a-z", "0-9", "_" and "-", at most 32 long', _name),
            "agent", INSTALL, "Names the agent in units, paths and commands."),
    Setting("agent.code", _PATH, REQUIRED, INSTALL,
            "The adopted repository, the agent's working directory.", "/srv/agent"),
    Setting("agent.command", Argv(may_be_empty=False), REQUIRED, RESTART,
            "Starts the agent.", ["python3", "agent.py"]),
    Setting("agent.resume_command", Argv(), [], RESTART,
            "Starts the agent when there is something to resume; empty: same as command."),
    Setting("agent.user", Text("text", "a user name", _user), "agent", INSTALL,
            "The user the agent runs as in system mode."),
    Setting("agent.branch", Text("text", "a branch name", _branch), "main", AT_ONCE,
            "The branch a rollback leaves checked out."),
    Setting("agent.ready", Ready(), "notify", RESTART,
            "How the agent shows that it works: READY=1, staying alive that long, or a command."),
    Setting("agent.ready_timeout", Duration("100ms", "1d"), "90s", INSTALL,
            "Time to become ready; after that the launch has failed."),
    Setting("agent.stop_grace", Duration("100ms", "1h"), "20s", INSTALL,
            "Time between SIGTERM and SIGKILL, for saving the task and the history."),
    Setting("agent.environment", Variables(), {}, RESTART,
            "Extra environment variables for the agent."),
    Setting("agent.pass_environment", Listed(VARIABLE, "variable names"), [], RESTART,
            "Variables the agent gets from the environment that agentctl was started in."),
    Setting("heartbeat.from", Choice("notify", "http", "file", "command", "output"),
            "notify", RESTART, "What counts as a heartbeat."),
    Setting("heartbeat.timeout", Duration("100ms", "1d"), "60s", INSTALL,
            "Longest silence before the agent counts as hung; becomes WatchdogSec=."),
    Setting("heartbeat.longest_wait", Duration("100ms", "7d"), "15m", RESTART,
            "Most that EXTEND_TIMEOUT_USEC may ask for; longer than heartbeat.timeout."),
    Setting("heartbeat.progress", Choice("optional", "required"), "optional", RESTART,
            "Whether a heartbeat without progress counts while the agent says it is working."),
    Setting("heartbeat.file",
            Text("path", 'a path relative to state.dir, without ".."', _relative, True),
            "", RESTART, 'The file whose change is a heartbeat, for from = "file".'),
    Setting("heartbeat.command", Argv(), [], RESTART,
            'The probe whose exit status 0 is a heartbeat, for from = "command".'),
    Setting("probation.duration", Duration("0s", "7d"), "2m", RESTART,
            "How long a candidate has to hold out before it is blessed."),
    Setting("probation.heartbeats", Whole(0, 100_000), 5, RESTART,
            "How many heartbeats it has to send in that time."),
    Setting("probation.tries", Whole(1, 100), 2, AT_ONCE, "Launches a candidate has."),
    Setting("probation.required", _COMMANDS, [], RESTART,
            "Checks that can condemn a candidate: each has to exit 0."),
    Setting("probation.advisory", _COMMANDS, [], RESTART, "Checks that only report."),
    Setting("probation.check_timeout", Duration("100ms", "1d"), "30s", RESTART,
            "Time one check has; longer is a failed check."),
    Setting("state.dir", _PATH, "/var/lib/agentctl/{name}/state", INSTALL,
            "The state folder: task, conversation, memory.", "/var/lib/agentctl/agent/state"),
    Setting("state.restore", _PATTERNS, ["config/*", "*.db"], AT_ONCE,
            "What goes back to the generation's snapshot on a rollback."),
    Setting("state.keep", _PATTERNS, ["history.jsonl"], AT_ONCE,
            "What stays as it is on a rollback, mended if damaged."),
    Setting("state.extra", _OUTSIDE, [], INSTALL,
            "State outside the folder, such as an agent's own session store."),
    Setting("environment.paths", _CODE_PATHS, [".venv"], AT_ONCE,
            "Ignored by git, yet part of the version: they switch with the code."),
    Setting("environment.lockfiles", _CODE_PATHS, ["uv.lock"], AT_ONCE,
            "The files that tell whether the environment has to be built again."),
    Setting("environment.build", Argv(), ["uv", "sync", "--frozen"], AT_ONCE,
            "Builds the environment from the lock files."),
    Setting("rollback.restarts", Whole(0, 100), 3, AT_ONCE,
            "Plain restarts of a blessed generation within the window before code goes back."),
    Setting("rollback.window", Duration("1s", "30d"), "30m", AT_ONCE,
            "The time in which restarts and attempts are counted."),
    Setting("rollback.attempts", Whole(1, 100), 4, AT_ONCE,
            "Rungs within the window, then halted."),
    Setting("rollback.per_day", Whole(1, 1000), 10, AT_ONCE, "Rungs within a day, then halted."),
    Setting("rollback.alert", Argv(), [], AT_ONCE,
            "Run when the agent is halted or rescued; reads the story on standard input."),
    Setting("offline.after", Duration("1s", "30d"), "3m", RESTART,
            "Silence towards the watchdog after which the agent is offline."),
    Setting("offline.grace", Duration("0s", "1d"), "1m", RESTART,
            "Time from offline to the watchdog starting the rollback unit."),
    Setting("watchdog.listen",
            Text("text", '"unix" or a loopback address such as "127.0.0.1:8642"', _listen),
            "unix", RESTART, "Where the API is served."),
]  # fmt: skip

BY_KEY = {setting.key: setting for setting in TABLE}


def default_of(setting: Setting, agent_name: object) -> object:
    """Return a setting's default as it would stand in the file; some contain the agent's name."""
    if isinstance(setting.default, str):
        return setting.default.replace("{name}", str(agent_name))
    return setting.default


# --- validation


def validate(document: dict) -> tuple[dict[str, object], list[Mistake]]:
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
    mistakes += _contradictions(values)
    return values, mistakes


def _value(setting: Setting, section: dict, agent_name: object) -> object:
    if setting.name in section:
        return setting.kind.check(section[setting.name])
    if setting.is_required:
        raise Unfit("is missing; it must be " + setting.kind.allowed)
    return setting.kind.check(default_of(setting, agent_name or "agent"))


def _strangers(document: dict):
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


def _did_you_mean(word: str, known, prefix: str = "") -> str:
    import difflib  # only when somebody made a mistake

    near = difflib.get_close_matches(word[:80], list(known), 1)
    listed = known if len(known) < len(BY_KEY) else SECTIONS
    return f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(listed)}"


def _contradictions(values: dict):
    """Yield what is wrong between settings that are each right."""
    timeout, wait = values.get("heartbeat.timeout"), values.get("heartbeat.longest_wait")
    if timeout is not None and wait is not None and timeout >= wait:
        rule = f"must be less than heartbeat.longest_wait ({format_duration(wait)})"
        yield Mistake("heartbeat.timeout", format_duration(timeout), rule)
    source = values.get("heartbeat.from")
    for needed in ("file", "command"):
        if source == needed and values.get(f"heartbeat.{needed}") in ("", []):
            rule = f'is required by heartbeat.from = "{needed}"'
            yield Mistake(f"heartbeat.{needed}", values[f"heartbeat.{needed}"], rule)
    if source in ("file", "command", "output") and values.get("heartbeat.progress") == "required":
        rule = f'cannot be seen with heartbeat.from = "{source}"; no heartbeat would ever count'
        yield Mistake("heartbeat.progress", "required", rule)
    code, state = values.get("agent.code"), values.get("state.dir")
    if code and state and (code + "/").startswith(state + "/"):
        yield Mistake("state.dir", state, f"must not be agent.code ({code}) or hold it")
    for pattern in values.get("state.restore", ()):
        if pattern in values.get("state.keep", ()):
            yield Mistake("state.restore", pattern, "is also in state.keep; choose one of them")
