"""Read, check, keep compiled and write `agent.toml`; the only owner of tomllib and tomli_w.

Refuses a file with any mistake, and names all of them at once. Imported on the recovery path, where
a compiled copy saves parsing: at the top it imports nothing but os, stat and our own words.
"""

from __future__ import annotations

import os
import stat

from ..core import durable, fast_json
from ..core.errors import AgentctlError, Mistake
from . import schema

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
    resume: Section
    probation: Section
    state: Section
    environment: Section
    change: Section
    rollback: Section
    offline: Section
    watchdog: Section
    compose: Section
    retention: Section

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
    return _compile(path, read(path)[0])


def check(document: dict, path: str = "agent.toml") -> Config:
    """Return the configuration that a parsed document means; raise ConfigError as `load` does."""
    values, mistakes = schema.validate(document)
    if mistakes:
        raise ConfigError(path, mistakes)
    items = ((s, name, value) for s, content in document.items() for name, value in content.items())
    return Config(values, {f"{section}.{name}": value for section, name, value in items})


def to_dict(config: Config) -> dict[str, dict[str, object]]:
    """Return every setting the way the file says or would say it: by section, with units."""
    document: dict[str, dict[str, object]] = {}
    for setting in schema.TABLE:
        default = schema.default_of(setting, config.values["agent.name"])
        value = config.given.get(setting.key, default)
        document.setdefault(setting.section, {})[setting.name] = value
    return document


def _compile(path: str, data: bytes) -> Config:
    return check(parse(path, decode(path, data)), path)


def read(path: str) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes and what identifies this state of it, or raise ConfigError."""
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


def decode(path: str, data: bytes) -> str:
    """Return the text of a file; raise ConfigError with line and column if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        mistake = Mistake("syntax", None, f"not UTF-8 (at line {line}, column {column})")
        raise ConfigError(path, [mistake], "save the file as UTF-8") from error


def parse(path: str, text: str) -> dict:
    """Return the document that a text holds; raise ConfigError if it is not TOML."""
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
    data, found = read(toml_path)
    config = _compile(toml_path, data)
    _write_compiled(cache_path, config, found)
    return config


def load_last_valid(toml_path: str, cache_path: str) -> tuple[Config, str]:
    """Return the configuration, and "" or what is wrong with the file if an older one had to do.

    Without a compiled copy of a valid one, settings that nobody here knows are passed over: they may be a newer
    version's. Raise ConfigError if the file is wrong otherwise.
    """
    try:
        return load_compiled(toml_path, cache_path), ""
    except ConfigError as error:
        compiled = _read_compiled(toml_path, cache_path)
        return compiled[0] if compiled else _known_part(toml_path), error.message


def _known_part(path: str) -> Config:
    document = parse(path, decode(path, read(path)[0]))
    known = {
        section: {name: value for name, value in content.items() if f"{section}.{name}" in schema.BY_KEY}
        for section, content in document.items()
        if section in schema.SECTIONS and isinstance(content, dict)
    }
    return check(known, path)


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
        data, found = read(cache_path)
        copy = fast_json.loads(data)
        is_known = copy["format"] == FORMAT and copy["values"].keys() == schema.BY_KEY.keys()
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
    data = fast_json.dumps(copy | {"values": config.values}).encode()
    mode = stat.S_IMODE(found.st_mode) & 0o644  # it holds the same secrets as the file
    try:
        durable.write(cache_path, data, mode, (found.st_uid, found.st_gid))
    except OSError:
        return  # the next load parses again


# --- writing


def write(path: str, values: dict[str, dict[str, object]], mode: int = 0o644) -> Config:
    """Write a file with the required settings and those that differ from their default.

    `values` is by section, as in TOML. Raise ConfigError, and write nothing, if it has mistakes.
    """
    config = check(values, path)
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
    import json

    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def render(document: dict) -> bytes:
    """Return a document as TOML; raise AgentctlError if tomli-w is missing."""
    try:
        import tomli_w
    except ImportError as error:
        hint = "pip install tomli-w"
        raise AgentctlError("cannot write TOML: tomli-w is missing", hint) from error
    return tomli_w.dumps(document).encode()
