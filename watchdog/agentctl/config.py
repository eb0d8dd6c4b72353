"""Read, check, keep compiled and edit `agent.toml`; the only owner of tomllib and tomli_w.

Refuses a file with any mistake, and names all of them at once. Imported on the rescue path, where
a compiled copy saves parsing: at the top it imports nothing but os, stat and our own words.
"""

from __future__ import annotations

import os
import stat

from . import durable, settings
from . import lean_json as json
from .errors import AgentctlError, UsageError
from .settings import Mistake
from .settings import format_duration as format_duration
from .settings import parse_duration as parse_duration

FORMAT = 1  # of the compiled copy; raise it when a value's meaning changes
LIMIT_BYTES = 1 << 20


class ConfigError(AgentctlError):
    """Everything that is wrong with one configuration, as `mistakes`."""

    def __init__(self, path: str, mistakes: list[Mistake], hint: str = "") -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        hint = hint or "'agentctl config sample' prints every setting with its limits"
        super().__init__(f"configuration {path} has {count}:{lines}", hint)
        self.path, self.mistakes = path, mistakes


class Section:
    """The settings of one section as attributes; `from` is called `from_`."""

    def __init__(self, values: dict[str, object]) -> None:
        self.__dict__.update(values)


class Config:
    """A valid configuration: `config.heartbeat.timeout`, durations in seconds.

    `values` holds the same by key; `given` holds what the file itself says, as it says it.
    """

    agent: Section
    heartbeat: Section
    probation: Section
    state: Section
    environment: Section
    rollback: Section
    offline: Section
    watchdog: Section

    def __init__(self, values: dict[str, object], given: dict[str, object]) -> None:
        self.values, self.given = values, given
        sections: dict[str, dict[str, object]] = {}
        for key, value in values.items():
            section, name = key.split(".")
            sections.setdefault(section, {})["from_" if name == "from" else name] = value
        self.__dict__.update({name: Section(content) for name, content in sections.items()})


# --- reading


def load(path: str) -> Config:
    """Return the configuration in `path`; raise ConfigError with everything that is wrong."""
    return _compile(path, _read(path)[0])


def check(document: dict, path: str = "agent.toml") -> Config:
    """Return the configuration that a parsed document means; raise ConfigError as `load` does."""
    values, mistakes = settings.validate(document)
    if mistakes:
        raise ConfigError(path, mistakes)
    items = ((s, name, value) for s, content in document.items() for name, value in content.items())
    return Config(values, {f"{section}.{name}": value for section, name, value in items})


def to_dict(config: Config) -> dict[str, dict[str, object]]:
    """Return every setting the way the file says or would say it: by section, with units."""
    document: dict[str, dict[str, object]] = {}
    for setting in settings.TABLE:
        default = settings.default_of(setting, config.values["agent.name"])
        value = config.given.get(setting.key, default)
        document.setdefault(setting.section, {})[setting.name] = value
    return document


def _compile(path: str, data: bytes) -> Config:
    return check(_parse(path, _decode(path, data)), path)


def _read(path: str) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes and what identifies this state of it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "'agentctl init' writes one" if isinstance(error, FileNotFoundError) else ""
        raise _unreadable(path, error.strerror, hint) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _unreadable(path, "it is not a file", "name the agent.toml itself")
        if found.st_size > LIMIT_BYTES:
            raise _unreadable(path, f"it is larger than {LIMIT_BYTES} bytes")
        return os.read(fd, LIMIT_BYTES), found
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    finally:
        os.close(fd)


def _unreadable(path: str, why: str, hint: str = "") -> ConfigError:
    return ConfigError(path, [Mistake("file", None, f"cannot be read: {why}")], hint)


def _decode(path: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        mistake = Mistake("syntax", None, f"not UTF-8 (at line {line}, column {column})")
        raise ConfigError(path, [mistake], "save the file as UTF-8") from error


def _parse(path: str, text: str) -> dict:
    import tomllib  # 25 ms, so not where a compiled copy does

    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError names line and column
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        hint = "correct that line; 'agentctl config sample' shows how each is written"
        raise ConfigError(path, [Mistake("syntax", None, why)], hint) from error


# --- the compiled copy


def load_compiled(toml_path: str, cache_path: str) -> Config:
    """Return what `load` would, from the compiled copy while that one is of this very file.

    The copy belongs into a folder that only those who may write the file can write.
    """
    compiled = _read_compiled(toml_path, cache_path)
    if compiled is not None and compiled[1] == _stamp_of(toml_path):
        return compiled[0]
    data, found = _read(toml_path)
    config = _compile(toml_path, data)
    _write_compiled(cache_path, config, found)
    return config


def load_last_valid(toml_path: str, cache_path: str) -> tuple[Config, str]:
    """Return the configuration, and "" or what is wrong with the file if an older one had to do.

    Raise ConfigError if the file is wrong and there is no compiled copy of a valid one.
    """
    try:
        return load_compiled(toml_path, cache_path), ""
    except ConfigError as error:
        compiled = _read_compiled(toml_path, cache_path)
        if compiled is None:
            raise
        return compiled[0], error.message


def _stamp_of(path: str) -> list[int] | None:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(found: os.stat_result) -> list[int]:
    # ctime too: it moves when a copy with preserved times replaces the content in place.
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _read_compiled(toml_path: str, cache_path: str) -> tuple[Config, list[int]] | None:
    """Return the compiled copy and its stamp, or None: missing, damaged, of another table.

    One that somebody could write who could not write the file itself is not believed either.
    """
    try:
        data, found = _read(cache_path)
        copy = json.loads(data)
        is_known = copy["format"] == FORMAT and copy["values"].keys() == settings.BY_KEY.keys()
        if not is_known or found.st_mode & 0o022 or found.st_uid not in _trusted(toml_path):
            return None
        return Config(copy["values"], dict(copy["given"])), copy["stamp"]
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _trusted(toml_path: str) -> tuple[int, ...]:
    try:
        return (0, os.geteuid(), os.stat(toml_path).st_uid)
    except OSError:
        return (0, os.geteuid())


def _write_compiled(cache_path: str, config: Config, found: os.stat_result) -> None:
    copy = {"format": FORMAT, "stamp": _stamp(found), "given": config.given}
    data = json.dumps(copy | {"values": config.values}).encode()
    mode = stat.S_IMODE(found.st_mode) & 0o644  # it holds the same secrets as the file
    try:
        durable.write(cache_path, data, mode, (found.st_uid, found.st_gid))
    except OSError:
        return  # the next load parses again


# --- writing


class Change:
    """What `set_value` did: old and new value as they stand in the file, what is still to be done.

    `kept_path` is where the whole old file is, if more than one line had to be replaced.
    """

    def __init__(self, setting, old: object, new: object, kept_path: str) -> None:
        self.key, self.old, self.new = setting.key, old, new
        self.applies, self.kept_path = setting.applies, kept_path
        self.advice = _advice(setting)


def _advice(setting: settings.Setting) -> str:
    if setting.applies == settings.AT_ONCE:
        return "counts at once"
    if setting.applies == settings.INSTALL:
        return "run 'agentctl install' again, then 'agentctl restart', for it to count"
    if setting.section in ("offline", "watchdog"):
        return "restart the watchdog (agent-watchdog.service) for it to count"
    return "run 'agentctl restart' for it to count"


def write(path: str, values: dict[str, dict[str, object]], mode: int = 0o644) -> Config:
    """Write a file with the required settings and those that differ from their default.

    `values` is by section, as in TOML. Raise ConfigError, and write nothing, if it has mistakes.
    """
    config = check(values, path)
    document: dict[str, dict[str, object]] = {}
    for setting in settings.TABLE:
        default = settings.default_of(setting, config.values["agent.name"])
        if setting.is_required or config.values[setting.key] != setting.kind.check(default):
            document.setdefault(setting.section, {})[setting.name] = config.given[setting.key]
    durable.write(os.path.realpath(path), _render(document), mode)
    return config


def set_value(path: str, key: str, text: str) -> Change:
    """Set one setting in the file, leaving every other line as it is, and say what is to be done.

    Raise UsageError for an unknown key and ConfigError, with nothing written, if the file would
    have mistakes. Where more than one line has to go, the old file is kept as `PATH.before`.
    """
    setting = settings.BY_KEY.get(key)
    if setting is None:
        raise UsageError(str(settings.unknown(key)), "'agentctl config show' lists all settings")
    path = os.path.realpath(path)  # a rename over a symbolic link would replace the link
    data, found = _read(path)
    before = _decode(path, data)
    document = _parse(path, before)
    old = _section(document, setting).get(setting.name)
    value = _understand(path, setting, text)
    wanted = document | {setting.section: _section(document, setting) | {setting.name: value}}
    check(wanted, path)
    after, is_one_line = _edited(before, wanted, setting, is_new=old is None)
    mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
    kept_path = "" if is_one_line else f"{path}.before"
    if kept_path:
        durable.write(kept_path, data, mode, owner)
    durable.write(path, after, mode, owner)
    return Change(setting, old, value, kept_path)


def _section(document: dict, setting: settings.Setting) -> dict:
    section = document.get(setting.section)
    return section if isinstance(section, dict) else {}


def _understand(path: str, setting: settings.Setting, text: str) -> object:
    """Return what the argument of `config set` means to a setting of this kind."""
    reads = setting.kind.reads
    try:
        text.encode()
        if reads == "number":
            return int(text)
        if reads == "toml" or (reads != "text" and text.startswith("[")):
            return _parse(path, "x = " + text)["x"]
        if reads != "words":
            return text
        import shlex

        return shlex.split(text)
    except (ValueError, KeyError, ConfigError) as error:
        mistake = Mistake(setting.key, text, "must be " + setting.kind.allowed)
        raise ConfigError(path, [mistake]) from error


def _edited(before: str, wanted: dict, setting, is_new: bool) -> tuple[bytes, bool]:
    """Return the new text, proven by parsing to differ in this one setting only."""
    value = toml(wanted[setting.section][setting.name])
    lines = before.split("\n")
    ending = "\r" if lines[0].endswith("\r") else ""
    edits = _insertions if is_new else _replacements
    for edited, is_one_line in edits(lines, setting, value, ending):
        after = "\n".join(edited)
        if _parsed(after) == wanted:
            return after.encode(), is_one_line
    return _render(wanted), False


def _parsed(text: str) -> dict | None:
    try:
        return _parse("", text)
    except ConfigError:
        return None


# The two below yield guesses, the smallest change first; `_edited` proves which one is right.


def _replacements(lines: list[str], setting: settings.Setting, value: str, ending: str):
    for index, line in enumerate(lines):
        head = _assignment(line, setting)
        if head is None:
            continue
        end = _end_of_value(lines, index, len(head))
        is_one_line = end == index + 1
        tail = _comment(line[len(head) :]) if is_one_line else ending
        yield [*lines[:index], head + value + tail, *lines[end:]], is_one_line


def _insertions(lines: list[str], setting: settings.Setting, value: str, ending: str):
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


def _assignment(line: str, setting: settings.Setting) -> str | None:
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


def _places(lines: list[str], section: str):
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


def toml(value: object) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{name} = {toml(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    import json

    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def _render(document: dict) -> bytes:
    try:
        import tomli_w
    except ImportError as error:
        hint = "pip install tomli-w"
        raise AgentctlError("cannot write TOML: tomli-w is missing", hint) from error
    return tomli_w.dumps(document).encode()


# --- the table for people


def sample() -> str:
    """Return a complete agent.toml with every setting, its sentence and its limits."""
    text = "# Every setting with its default. Durations: 250ms, 90s, 15m, 1h30m, 2d.\n"
    for section, sentence in settings.SECTIONS.items():
        text += f"\n# {sentence}\n[{section}]\n"
        for setting in settings.TABLE:
            if setting.section == section:
                text += f"\n# {setting.sentence}\n# {_upper(setting.kind.allowed)}.\n"
                text += f"{setting.name} = {toml(setting.example)}\n"
    return text


REFERENCE_HEAD = """\
# Configuration

`agent.toml` is read by every part of agentctl. A file with a mistake is refused as a whole, and all
mistakes are named at once. `agentctl config sample` prints a complete file, `config check` checks
one, `config show` prints what counts and marks the defaults, `config set KEY VALUE` changes one
setting and leaves every other line, comments included, as it is. Where a value stands on several
lines, the old file is kept as `agent.toml.before`.

- A *duration* is a number with a unit, in quotes: `"250ms"`, `"90s"`, `"15m"`, `"1h30m"`, `"2d"`.
- A *command* is a list of words and never goes through a shell. `config set` also takes it as
  words, quoted as in a shell: `agentctl config set agent.command "python3 agent.py"`.
- If the file becomes invalid, a rollback still works, with the last valid configuration.

*Counts* says when a change counts: *at once*, after a *restart* (of the agent; for `offline` and
`watchdog`, of the watchdog), or after `agentctl install` has been run again.
"""


def reference_markdown() -> str:
    """Return the reference of all settings, which is docs/configuration.md."""
    text = REFERENCE_HEAD
    for section, sentence in settings.SECTIONS.items():
        text += f"\n## [{section}]\n\n{sentence}\n\n"
        text += "| Setting | Type | Default | Meaning | Allowed | Counts |\n" + "|---" * 6 + "|\n"
        text += "".join(_row(s) for s in settings.TABLE if s.section == section)
    return text


def _row(setting: settings.Setting) -> str:
    default = "(required)" if setting.is_required else f"`{toml(setting.default)}`"
    cells = [f"`{setting.key}`", setting.kind.noun, default.replace("{name}", "NAME")]
    cells += [setting.sentence, _upper(setting.kind.allowed), setting.applies]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    print(reference_markdown(), end="")
