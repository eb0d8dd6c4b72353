"""Write `agent.toml`: a new one, or one setting changed and every other line, comments included, left as it is.

Guesses the smallest change of text, and lets parsing prove which guess is right. Refuses to write
a file that would have a mistake. The only owner of tomli_w.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Iterator, Mapping

from ..core import durable
from ..core.errors import AgentctlError, ConfigError, Mistake, UsageError
from . import schema, toml_file
from .sections import Config
from .toml_file import Document

# -- a whole file ---------------------------------------------------------------------------------


def write(path: str, values: dict[str, dict[str, object]], mode: int = 0o644) -> Config:
    """Write a file with the required settings and those that differ from their default.

    `values` is by section, as in TOML. Raise ConfigError, and write nothing, if it has mistakes.
    """
    config = toml_file.check(values, path)
    document: dict[str, dict[str, object]] = {}
    for setting in schema.TABLE:
        default = schema.default_of(setting, config.values["agent.name"])
        if setting.is_required or config.values[setting.key] != setting.kind.check(default):
            document.setdefault(setting.section, {})[setting.name] = config.given[setting.key]
    durable.write(os.path.realpath(path), render(document), mode)
    return config


def toml(value: object) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{name} = {toml(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def render(document: Mapping[str, object]) -> bytes:
    """Return a document as TOML; raise AgentctlError if tomli-w is missing."""
    try:
        import tomli_w
    except ImportError as error:
        hint = "pip install tomli-w"
        raise AgentctlError("cannot write TOML: tomli-w is missing", hint) from error
    return tomli_w.dumps(document).encode()


def to_dict(config: Config) -> dict[str, dict[str, object]]:
    """Return every setting the way the file says or would say it: by section, with units."""
    document: dict[str, dict[str, object]] = {}
    for setting in schema.TABLE:
        default = schema.default_of(setting, config.values["agent.name"])
        value = config.given.get(setting.key, default)
        document.setdefault(setting.section, {})[setting.name] = value
    return document


# -- one setting ----------------------------------------------------------------------------------


class Change:
    """What `set_value` did: old and new value as they stand in the file, what is still to be done.

    `kept_path` is where the whole old file is, if more than one line had to be replaced.
    """

    def __init__(self, setting: schema.Setting, old: object, new: object, kept_path: str) -> None:
        self.key, self.old, self.new = setting.key, old, new
        self.applies, self.kept_path = setting.applies, kept_path
        self.advice = _advice(setting)


def _advice(setting: schema.Setting) -> str:
    if setting.applies == schema.AT_ONCE:
        return "counts at once"
    if setting.applies == schema.INSTALL:
        return "run 'agentctl install' again, then 'agentctl restart', for it to count"
    if setting.section in ("offline", "watchdog"):
        return "restart the watchdog (agent-watchdog.service) for it to count"
    return "run 'agentctl restart' for it to count"


def set_value(path: str, key: str, text: str) -> Change:
    """Set one setting in the file, leaving every other line as it is, and say what is to be done.

    Raise UsageError for an unknown key and ConfigError, with nothing written, if the file would
    have mistakes. Where more than one line has to go, the old file is kept as `PATH.before`.
    """
    setting = schema.BY_KEY.get(key)
    if setting is None:
        raise UsageError(str(schema.unknown(key)), "'agentctl config show' lists all settings")
    path = os.path.realpath(path)  # a rename over a symbolic link would replace the link
    data, found = toml_file.read(path)
    before = toml_file.decode(path, data)
    document = toml_file.parse(path, before)
    old = _section(document, setting).get(setting.name)
    value = _understand(path, setting, text)
    wanted = document | {setting.section: _section(document, setting) | {setting.name: value}}
    toml_file.check(wanted, path)
    after, is_one_line = _edited(before, wanted, setting, toml(value), is_new=old is None)
    mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    kept_path = "" if is_one_line else f"{path}.before"
    if kept_path:
        durable.write(kept_path, data, mode, owner)
    durable.write(path, after, mode, owner)
    return Change(setting, old, value, kept_path)


def _section(document: Document, setting: schema.Setting) -> Document:
    section = document.get(setting.section)
    return section if isinstance(section, dict) else {}


def _understand(path: str, setting: schema.Setting, text: str) -> object:
    """Return what the argument of `config set` means to a setting of this kind."""
    reads = setting.kind.reads
    try:
        text.encode()
        if reads == "number":
            return int(text)
        if reads == "toml" or (reads != "text" and text.startswith("[")):
            return toml_file.parse(path, "x = " + text)["x"]
        if reads != "words":
            return text
        return shlex.split(text)
    except (ValueError, KeyError, ConfigError) as error:
        mistake = Mistake(setting.key, text, "must be " + setting.kind.allowed)
        raise ConfigError(path, [mistake]) from error


def _edited(before: str, wanted: Document, setting: schema.Setting, value: str, *, is_new: bool) -> tuple[bytes, bool]:
    """Return the new text, proven by parsing to differ in this one setting only."""
    lines = before.split("\n")
    ending = "\r" if lines[0].endswith("\r") else ""
    edits = _insertions if is_new else _replacements
    for edited, is_one_line in edits(lines, setting, value, ending):
        after = "\n".join(edited)
        if _parsed(after) == wanted:
            return after.encode(), is_one_line
    return render(wanted), False


def _parsed(text: str) -> Document | None:
    try:
        return toml_file.parse("", text)
    except ConfigError:
        return None


# The two below yield guesses, the smallest change first; `_edited` proves which one is right.


def _replacements(
    lines: list[str], setting: schema.Setting, value: str, ending: str
) -> Iterator[tuple[list[str], bool]]:
    for index, line in enumerate(lines):
        head = _assignment(line, setting)
        if head is None:
            continue
        end = _end_of_value(lines, index, len(head))
        is_one_line = end == index + 1
        tail = _comment(line[len(head) :]) if is_one_line else ending
        yield [*lines[:index], head + value + tail, *lines[end:]], is_one_line


def _insertions(lines: list[str], setting: schema.Setting, value: str, ending: str) -> Iterator[tuple[list[str], bool]]:
    new = f"{setting.name} = {value}{ending}"
    for index in _places(lines, setting.section):
        yield [*lines[:index], new, *lines[index:]], True
    above = lines[:-1] if not lines[-1] else [*lines[:-1], lines[-1] + ending]
    yield [*above, ending, f"[{setting.section}]{ending}", new, ""], True


def _end_of_value(lines: list[str], index: int, start: int) -> int:
    """Return the line after the value that starts in line `index`; most values end there."""
    text = "x = " + lines[index][start:]
    for end in range(index + 1, len(lines)):
        if _parsed(text + "\n") is not None:
            return end
        text += "\n" + lines[end]
    return len(lines)


def _assignment(line: str, setting: schema.Setting) -> str | None:
    """Return the part of a line up to the value, if it may be where the setting is set."""
    name, sign, rest = line.partition("=")
    bare = name.replace('"', "").replace("'", "").replace(" ", "").replace("\t", "")
    if not sign or bare not in (setting.name, setting.key):
        return None
    return name + sign + rest[: len(rest) - len(rest.lstrip(" \t"))]


def _comment(rest: str) -> str:
    """Return what follows the value on its line: the space, comment and line end to be kept."""
    for index, character in enumerate(rest):
        value = rest[:index].rstrip(" \t")
        if character in "#\r" and _parsed(f"x = {value}") is not None:  # not inside of a text
            return rest[len(value) :]
    return rest[len(rest.rstrip(" \t")) :]


def _places(lines: list[str], section: str) -> Iterator[int]:
    """Yield where a line can join a section: after its last setting, right below its head."""
    for head, line in enumerate(lines):
        if line.split("#")[0].strip().replace(" ", "") != f"[{section}]":
            continue
        last = head
        for index in range(head + 1, len(lines)):
            text = lines[index].strip()
            if text.startswith("["):
                break
            if text and not text.startswith("#"):
                last = index
        yield last + 1
        yield head + 1
