"""Say what a value may be: a kind checks it, and says in words what is allowed. Pure.

`check` turns what the file says into what the program uses, `reads` tells how `config set`
understands its argument. Refuses a wrong value (Unfit) and never guesses what it was meant to be.
"""

from __future__ import annotations

from ..core.text import parse_duration

TYPE_CHECKING = False  # as in `typing`, which is imported for types only
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, Protocol

    class Kind(Protocol):
        """What a setting may be."""

        noun: str
        reads: str
        allowed: str

        def check(self, value: object) -> object:
            """Return what the program uses; raise Unfit if the value will not do."""


_DIGITS = "0123456789"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# The contract's own variables: a configured value would hide what the agent must be told.
_OURS = frozenset(
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "AGENT_NAME", "AGENT_GENERATION"]
    + ["AGENT_COMMIT", "AGENT_LAUNCH_ID", "AGENT_CODE_DIR", "AGENT_STATE_DIR", "AGENT_TASK_FILE"]
    + ["AGENT_HISTORY_FILE", "AGENT_BRIEF_FILE", "AGENT_RESUMED", "AGENT_API_URL"]
    + ["AGENT_TOKEN_FILE", "AGENT_TRIAL"]
)


class Unfit(ValueError):
    """A value that is not allowed: says what is, and in a list or table where the wrong one is."""

    def __init__(self, allowed: str, where: str = "", item: object = None) -> None:
        super().__init__(allowed)
        self.allowed, self.where, self.item = allowed, where, item


# --- kinds


class Text:
    """A line of text that `fit` returns cleaned, or None if it will not do."""

    noun, reads = "text", "text"

    def __init__(self, noun: str, allowed: str, fit: Callable[[str], str | None], may_be_empty: bool = False) -> None:
        self.noun, self.fit, self.may_be_empty = noun, fit, may_be_empty
        self.allowed = allowed + (", or empty" if may_be_empty else "")

    def check(self, value: object) -> str:
        """Return the text cleaned; raise Unfit if it will not do."""
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
        self.words = words


class Whole:
    """A whole number between two limits."""

    noun, reads = "whole number", "number"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high
        self.allowed = f"a whole number from {low} to {high}"

    def check(self, value: object) -> int:
        """Return the number; raise Unfit if it is none, or out of bounds."""
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
        """Return the seconds; raise Unfit if it is no duration, or out of bounds."""
        try:
            seconds = parse_duration(value) if isinstance(value, str) else -1.0
        except ValueError:
            seconds = -1.0
        if self.low <= seconds <= self.high:
            return seconds
        if type(value) in (int, float):
            raise Unfit(f'must be {self.allowed}, in quotes and with its unit, such as "60s"')
        raise Unfit("must be " + self.allowed)


class Size:
    """An amount of disk, in bytes once checked."""

    noun, reads = "size", "text"
    allowed = 'a whole number of bytes with its unit, from "0" to "999T", such as "500M" or "20G"'

    def check(self, value: object) -> int:
        """Return the bytes; raise Unfit if it is no size, or out of bounds."""
        text = value if isinstance(value, str) else ""
        digits = text.rstrip("KMGT")
        is_number = digits.isascii() and digits.isdigit() and len(digits) <= 3
        unit = text[len(digits) :] if is_number else "?"
        if unit not in ("K", "M", "G", "T") and (unit or int(digits)):
            raise Unfit("must be " + self.allowed)
        return int(digits) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]


class Argv:
    """A command as a list of words; nothing here ever goes through a shell."""

    noun, reads = "command", "words"

    def __init__(self, may_be_empty: bool = True) -> None:
        self.may_be_empty = may_be_empty
        self.allowed = 'a command as a list of words, such as ["python3", "agent.py"]'
        self.allowed += ", or empty" if may_be_empty else ""

    def check(self, value: object) -> list[str]:
        """Return the words; raise Unfit if they make no command."""
        if not isinstance(value, list) or (not value and not self.may_be_empty):
            raise Unfit("must be " + self.allowed)
        for index, word in enumerate(value):
            if not isinstance(word, str) or "\0" in word or (index == 0 and not word):
                raise Unfit("must be a word in quotes, the first not empty", f"[{index}]", word)
        return list(value)


class Listed:
    """A list in which every item is of one kind."""

    def __init__(self, item: Kind, allowed: str, reads: str = "words") -> None:
        self.item, self.reads = item, reads
        self.noun = f"list of {item.noun}s"
        self.allowed = f"a list of {allowed}"

    def check(self, value: object) -> list[object]:
        """Return the items cleaned; raise Unfit, which names the first that will not do."""
        if not isinstance(value, list):
            raise Unfit("must be " + self.allowed)
        return [self._check_item(index, item) for index, item in enumerate(value)]

    def _check_item(self, index: int, item: object) -> object:
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
        """Return the variables; raise Unfit if a name or a value will not do."""
        if not isinstance(value, dict):
            raise Unfit("must be " + self.allowed)
        for name, text in value.items():
            if _variable(name) is None:
                raise Unfit("must be " + VARIABLE.allowed, f".{name}")
            if not isinstance(text, str) or "\0" in text:
                raise Unfit("must be a text in quotes", f".{name}")
        return dict(value)


class Ready:
    """How an agent shows that it works: "auto", "notify", a time it has to stay alive, or a command."""

    noun, reads = "choice, duration or command", "text or words"
    _alive, _command = Duration("100ms", "1h"), Argv(may_be_empty=False)
    allowed = f'"auto", "notify", {_alive.allowed}, or {_command.allowed}'

    def check(self, value: object) -> Literal["auto", "notify"] | float | list[str]:
        """Return what was chosen; raise Unfit if it is none of the choices."""
        if value == "auto":
            return "auto"
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


def _anywhere(text: str) -> str | None:
    return _outside(text) or _relative(text)


def _local_url(text: str) -> str | None:
    host, slash, _ = text.removeprefix("http://").partition("/")
    is_local = text.startswith("http://") and host != "unix" and _listen(host)
    return text if is_local and slash and " " not in text else None


def _key(text: str) -> str | None:
    return _made_of(text, _LETTERS + _LETTERS.upper(), _DIGITS + "-", 16)


def _prefix(text: str) -> str | None:
    """A branch name's beginning, up to and with a slash."""
    return text if text[-1] == "/" and _branch(text + "x") else None


def _listen(text: str) -> str | None:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    is_tcp = host in ("127.0.0.1", "[::1]", "localhost") and is_port
    return text if text == "unix" or is_tcp else None


# --- the kinds by name

NAME = Text("text", 'a name of "a-z", "0-9", "_" and "-", at most 32 long', _name)
USER = Text("text", "a user name", _user)
BRANCH = Text("text", "a branch name", _branch)
LISTEN = Text("text", '"unix" or a loopback address such as "127.0.0.1:8642"', _listen)
VARIABLE = Text("name", "a variable name that is not one of the agent contract's own", _variable)
PATH = Text("path", 'an absolute path below "/", without ".."', _absolute)
STATE_FILE = Text("path", 'a path relative to state.dir, without ".."', _relative, True)
PATTERNS = Listed(Text("pattern", 'a relative pattern without ".."', _relative), "relative patterns")
OUTSIDE = Listed(
    Text("pattern", 'a pattern that begins with "/" or "~/", without ".."', _outside),
    'patterns that begin with "/" or "~/"',
)
ANYWHERE = Listed(
    Text("pattern", 'a pattern relative to state.dir or that begins with "/" or "~/", without ".."', _anywhere),
    'patterns relative to state.dir or that begin with "/" or "~/"',
)
TMUX_KEY = Text("text", 'a key by its name in tmux, such as "Escape" or "C-c"', _key, True)
LOCAL_URL = Text("text", 'a loopback address such as "http://127.0.0.1:8080/health"', _local_url, True)
CODE_PATHS = Listed(
    Text("path", 'a path relative to agent.code, without ".." and not ".git"', _code_path),
    "paths relative to agent.code",
)
PREFIXES = Listed(
    Text("prefix", 'a beginning of branch names that ends in "/"', _prefix),
    'beginnings of branch names, such as ["feature/"]',
)
LINES = Listed(Text("line", "a line of text", lambda text: text), "lines of text")
COMMANDS = Listed(Argv(may_be_empty=False), 'commands, such as [["python3", "check.py"]]', "toml")


# -- engine kinds ----------------------------------------------------------------------------------
# What the settings of the runtime `compose` have to look like. Pure.


LETTERS_AND_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _engine(text: str) -> str | None:
    path = text.removeprefix("unix://")
    if path != text:
        return text if path and PATH.fit(path) else None
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    return text if text.startswith("tcp://") and host and port.isdigit() and " " not in host else None


def _image(text: str) -> str | None:
    """Hold the rough form of an image's name; the engine knows the rest."""
    is_fit = text[0] in LETTERS_AND_DIGITS and all(c.lower() in LETTERS_AND_DIGITS + "._-/:@" for c in text)
    return text if is_fit and len(text) <= 255 else None


MAYBE_PATH = Text("path", PATH.allowed, PATH.fit, True)
MAYBE_NAME = Text("text", NAME.allowed, NAME.fit, True)
IMAGE = Text("text", 'an image\'s name, such as "python:3.12-slim"', _image, True)
ENGINE = Text("text", 'an address such as "unix:///var/run/docker.sock" or "tcp://127.0.0.1:2375"', _engine)
CODE_PATH = Text("path", 'a path relative to agent.code, without ".."', _code_path, True)
